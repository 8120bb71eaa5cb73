"""What a document would change when no supervisor runs: held against the plan that was applied last."""

from dataclasses import dataclass

import uvloop

from equipoise.app.document import last_plan
from equipoise.app.inputs import own_facts, read
from equipoise.app.wiring import catalogue
from equipoise.base.paths import Directories
from equipoise.plan.diff import Change, diff


@dataclass(frozen=True, slots=True)
class Preview:
    """What a document would change, or has just changed.

    Attributes:
        revision: The document's number in a pair, once it is in force; None where there is no pair.
        peer_said: Empty where the peer has it too, else why it has not.
    """

    digest: str
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]
    revision: int | None = None
    peer_said: str | None = None


def preview(text: str, file: str, directories: Directories) -> Preview:
    """Return what `text` would change.  Raises: ConfigError or EquipoiseError."""
    known = catalogue()
    plan = uvloop.run(read(text, file, known, own_facts(directories), 0.0)).compiled()
    return Preview(plan.digest, diff(last_plan(directories.state, known), plan), ())

"""What a document would change when no supervisor runs: held against the plan that was applied last."""

from dataclasses import dataclass

import uvloop

from equipoise.app.document import last_plan
from equipoise.app.inputs import read
from equipoise.app.wiring import catalogue
from equipoise.base.paths import Directories
from equipoise.plan.diff import Change, diff
from equipoise.plan.inputs import HostFacts


@dataclass(frozen=True, slots=True)
class Preview:
    """What a document would change, or has just changed."""

    digest: str
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]


def preview(text: str, file: str, directories: Directories) -> Preview:
    """Return what `text` would change.  Raises: ConfigError or EquipoiseError."""
    known = catalogue()
    plan = uvloop.run(read(text, file, known, HostFacts(), 0.0)).compiled()
    return Preview(plan.digest, diff(last_plan(directories.state, known), plan), ())

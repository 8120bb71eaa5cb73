"""What a document would change when no supervisor runs: held against the plan that was applied last."""

from dataclasses import dataclass

import uvloop

from equipoise.app.document import last_plan
from equipoise.app.names import resolve
from equipoise.app.wiring import catalogue
from equipoise.base.paths import Directories
from equipoise.config.loading import load
from equipoise.plan.compile import compile_plan, names_to_resolve
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
    document = load(text, file, known)
    facts = uvloop.run(resolve(names_to_resolve(document.site), HostFacts()))
    plan = compile_plan(document.site, facts)
    return Preview(plan.digest, diff(last_plan(directories.state, known), plan), ())

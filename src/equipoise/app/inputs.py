"""What a plan is made of, put together: the document, and the facts of this machine that it needs.

Leaves out the compiling, which is pure (`plan/compile.py`).
"""

import asyncio
from dataclasses import dataclass, replace

from equipoise.app.certificates import ended, fingerprints, spoiled
from equipoise.app.names import resolve
from equipoise.base.errors import ConfigError
from equipoise.config.loading import Document, load
from equipoise.config.models import Catalogue
from equipoise.plan.compile import compile_plan, files_to_read, names_to_resolve
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Plan


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a plan is compiled from."""

    document: Document
    facts: HostFacts

    def compiled(self) -> Plan:
        """Return the plan."""
        return compile_plan(self.document.site, self.facts)


async def read(text: str, file: str, catalogue: Catalogue, known: HostFacts, now_s: float) -> Inputs:
    """Read a document and gather its facts; `known` are earlier ones, `now_s` is the time since 1970.

    Raises: ConfigError, also for files of TLS that cannot be used, or were replaced with what has ended.
    """
    inputs, unusable = await read_to_start(text, file, catalogue, known)
    if unusable is not None:
        raise unusable
    renewed = {path for path in known.files if known.files[path] != inputs.facts.files.get(path)}
    if wrong := await asyncio.to_thread(ended, inputs.document, renewed, now_s):
        raise ConfigError([each.problem for each in wrong])
    return inputs


async def read_to_start(
    text: str, file: str, catalogue: Catalogue, known: HostFacts
) -> tuple[Inputs, ConfigError | None]:
    """Return what `read` returns, and why files of TLS cannot be used: at a start that stops their service alone.

    Raises: ConfigError for all else.
    """
    document = await asyncio.to_thread(load, text, file, catalogue)  # a large one takes seconds
    wrong = await asyncio.to_thread(spoiled, document)
    unusable = ConfigError([each.problem for each in wrong]) if wrong else None
    return Inputs(document, await _gathered(document, known)), unusable


async def look_again(inputs: Inputs, now_s: float) -> tuple[Inputs, ConfigError | None]:
    """Return the inputs with the facts as they are at `now_s` (since 1970), and why files that changed cannot be used.

    Such files, and those that are used together with them, count as unchanged: what runs on what they held goes on.
    """
    facts, before = await _gathered(inputs.document, inputs.facts), inputs.facts.files
    if facts.files == before:
        return Inputs(inputs.document, facts), None
    changed = {path for path, content in facts.files.items() if before.get(path) != content}
    if wrong := await asyncio.to_thread(lambda: spoiled(inputs.document) + ended(inputs.document, changed, now_s)):
        unchanged = {path: before[path] for each in wrong for path in each.paths if path in before}
        facts = replace(facts, files={**facts.files, **unchanged})
        return Inputs(inputs.document, facts), ConfigError([each.problem for each in wrong])
    return Inputs(inputs.document, facts), None


async def _gathered(document: Document, known: HostFacts) -> HostFacts:
    names = await resolve(names_to_resolve(document.site), known)
    return replace(names, files=await asyncio.to_thread(fingerprints, files_to_read(document.site)))

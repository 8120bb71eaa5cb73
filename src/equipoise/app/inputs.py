"""What a plan is made of, put together: the document, and the facts of this machine that it needs.

Leaves out the compiling, which is pure (`plan/compile.py`).
"""

import asyncio
from dataclasses import dataclass, replace

from equipoise.app.certificates import fingerprints, problems
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


async def read(text: str, file: str, catalogue: Catalogue, known: HostFacts) -> Inputs:
    """Read a document and gather its facts; `known` are earlier ones.  Raises: ConfigError, also for files of TLS."""
    document = await asyncio.to_thread(load, text, file, catalogue)  # a large one takes seconds
    if wrong := await asyncio.to_thread(problems, document):
        raise ConfigError(wrong)
    return Inputs(document, await _gathered(document, known))


async def look_again(inputs: Inputs) -> tuple[Inputs, ConfigError | None]:
    """Return the inputs with the facts as they are now, and why files that changed cannot be used.

    Such files count as unchanged: what runs on what they held goes on.
    """
    facts = await _gathered(inputs.document, inputs.facts)
    if facts.files != inputs.facts.files and (wrong := await asyncio.to_thread(problems, inputs.document)):
        return Inputs(inputs.document, replace(facts, files=inputs.facts.files)), ConfigError(wrong)
    return Inputs(inputs.document, facts), None


async def _gathered(document: Document, known: HostFacts) -> HostFacts:
    names = await resolve(names_to_resolve(document.site), known)
    return replace(names, files=await asyncio.to_thread(fingerprints, files_to_read(document.site)))

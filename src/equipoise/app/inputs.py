"""What a plan is made of, put together: the document, and the facts of this machine that it needs.

Leaves out the compiling, which is pure (`plan/compile.py`).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from equipoise.app.certificates import ended, fingerprints, spoiled
from equipoise.app.names import resolve
from equipoise.app.ways import find_ways
from equipoise.base.errors import ConfigError
from equipoise.base.paths import Directories
from equipoise.cluster.here import read_here
from equipoise.cluster.identity import secured
from equipoise.config.loading import Document, load
from equipoise.config.models import Catalogue
from equipoise.plan.compile import addresses_to_reach, compile_plan, files_to_read, names_to_resolve, versions_of_names
from equipoise.plan.inputs import HostFacts, Way
from equipoise.plan.model import Plan


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a plan is compiled from; `text` is what the document was read from."""

    document: Document
    facts: HostFacts
    text: str

    def compiled(self) -> Plan:
        """Return the plan."""
        return compile_plan(self.document.site, self.facts)

    def compiled_alone(self) -> Plan:
        """Return the plan as it were if this machine were not one of a pair."""
        return compile_plan(self.document.site, replace(self.facts, here=None, secured=None))


def own_facts(directories: Directories) -> HostFacts:
    """Return what this machine's files say of its place in a pair.  Raises: EquipoiseError."""
    return HostFacts(here=read_here(directories.state), secured=secured(directories.state))


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
    return Inputs(document, await _gathered(document, known), text), unusable


async def look_again(inputs: Inputs, now_s: float) -> tuple[Inputs, ConfigError | None]:
    """Return the inputs with the facts as they are at `now_s` (since 1970), and why files that changed cannot be used.

    Such files, and those that are used together with them, count as unchanged: what runs on what they held goes on.
    """
    facts, before = await _gathered(inputs.document, inputs.facts), inputs.facts.files
    if facts.files == before:
        return replace(inputs, facts=facts), None
    changed = {path for path, content in facts.files.items() if before.get(path) != content}
    if wrong := await asyncio.to_thread(lambda: spoiled(inputs.document) + ended(inputs.document, changed, now_s)):
        unchanged = {path: before[path] for each in wrong for path in each.paths if path in before}
        facts = replace(facts, files={**facts.files, **unchanged})
        return replace(inputs, facts=facts), ConfigError([each.problem for each in wrong])
    return replace(inputs, facts=facts), None


async def _gathered(document: Document, known: HostFacts) -> HostFacts:
    site = document.site
    names = await resolve(names_to_resolve(site), known, versions_of_names(site))
    names = replace(names, here=known.here, secured=known.secured)
    ways = await _ways(addresses_to_reach(site, names), known)
    files = await asyncio.to_thread(fingerprints, files_to_read(site))
    return replace(names, files=files, ways=ways)


async def _ways(addresses: frozenset[str], known: HostFacts) -> Mapping[str, Way | None]:
    """Return the way to each address; one that is gone is as it was: a link that flaps must not rewrite the plan."""
    if not addresses:
        return {}
    found = await asyncio.to_thread(find_ways, addresses)
    return {address: way or known.ways.get(address) for address, way in found.items()}

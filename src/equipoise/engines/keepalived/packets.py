"""The packet rules of the pair as they are in force: loaded, mended, and what they hold.

Leaves out what they say (`rules.py`).
"""

import asyncio
from collections.abc import Callable, Collection

from equipoise.engines import nft
from equipoise.engines.keepalived import presence, rules
from equipoise.engines.keepalived.artifact import Artifact
from equipoise.engines.keepalived.files import Files

# Asked just before it is written: an address that is held by mistake is served by nobody.
Held = Callable[[], Collection[str]]


class Packets:
    """The table of this instance; every method raises EngineError where the kernel does not take something."""

    def __init__(self, table: str, files: Files) -> None:
        self._table = table
        self._files = files
        self._gone: frozenset[str] = frozenset()  # interfaces without a chain
        self._writing = asyncio.Lock()

    async def load(self, artifact: Artifact, held: Held) -> None:
        """Put the rules of a plan into force, with the addresses held that are to be."""
        if artifact.rules is None:
            return
        there = await asyncio.to_thread(presence.interfaces)
        gone = frozenset(artifact.rules.doors) - there
        async with self._writing:
            await self._load_text(rules.structure(artifact.rules, gone, held()))
        self._gone = gone

    async def load_text(self, text: str) -> None:
        """Put rules into force that were in force before."""
        async with self._writing:
            await self._load_text(text)

    async def mend(self, artifact: Artifact, held: Held) -> None:
        """Put the rules back where something removed them, or where an interface came or went."""
        if artifact.rules is None:
            return
        doors = artifact.rules.doors
        gone = frozenset(doors) - await asyncio.to_thread(presence.interfaces)
        found = await asyncio.to_thread(nft.listed, "netdev", self._table)
        if gone != self._gone or found.count("hook ingress") != len(doors) - len(gone):
            await self.load(artifact, held)

    async def hold(self, held: Held) -> None:
        """Have those addresses that are to be held, and no others, take no new connections."""
        async with self._writing:
            await asyncio.to_thread(nft.run, rules.holding(self._table, held()))

    async def remove(self) -> None:
        """Take the rules away."""
        await asyncio.to_thread(nft.run, rules.removal(self._table))

    async def _load_text(self, text: str) -> None:
        await asyncio.to_thread(nft.run, text)
        self._files.write(self._files.rules, text)

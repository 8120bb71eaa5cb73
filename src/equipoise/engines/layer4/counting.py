"""What was counted last of the services of a plan: live connections, packets and bytes, and whose turn it is.

Leaves out what follows from it (`balance.py`).
"""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace

from equipoise.base.clock import Clock
from equipoise.engines.base import NodeCount, Observation
from equipoise.engines.layer4.artifact import Pool
from equipoise.engines.layer4.kernel import Counts, Kernel
from equipoise.engines.layer4.kernel_tables import Names
from equipoise.plan.states import node_key

SHARE_OF_A_CORE = 0.03  # that looking may take: 200 000 flows take 0.06 s of it, and before Linux 6.16 three seconds
_FRESH_S = 0.2  # a look that is younger is not repeated for whoever asks
_CHEAP_S = 0.05  # one that takes longer keeps for so long that asking again and again does not take more than its share


class Counting:
    """The counts of one instance."""

    def __init__(self, kernel: Kernel, clock: Clock) -> None:
        self._kernel = kernel
        self._clock = clock
        self._fresh_until_s = float("-inf")
        self._looked = 0
        self.counts = Counts({}, {})

    async def look(self, pools: Collection[Pool], found: Mapping[str, Names], *, whole: bool = False) -> None:
        """Count what is live at these pools, of those tables that were `found`.  Raises: EngineError.

        Args:
            pools: Those to count.
            found: What there is of our tables.
            whole: Whether these are all of them, so that who asks soon need not look again.
        """
        before = self._looked
        counts = await asyncio.to_thread(self._kernel.counts, pools, found)
        if before != self._looked:
            return  # slots have begun anew meanwhile, and so has the counter that tells their turn
        talking = {**self.counts.talking, **counts.talking}
        cost_s = counts.cost_s if pools else self.counts.cost_s  # counters alone cost next to nothing
        self.counts = Counts({**self.counts.live, **counts.live}, counts.passed, talking, cost_s)
        if whole:
            self._fresh_until_s = self._clock.monotonic() + (_FRESH_S if counts.cost_s < _CHEAP_S else self.pause_s)

    @property
    def pause_s(self) -> float:
        """How long after the last look another one takes no more than its share of a core.

        Not by the clock: where the machine is busy, balance is no less wanted.
        """
        return self.counts.cost_s / SHARE_OF_A_CORE

    @property
    def is_fresh(self) -> bool:
        """Whether all of it was counted just now, or looking takes too long to do it again."""
        return self._clock.monotonic() < self._fresh_until_s

    async def restart(self, pools: Collection[Pool], found: Mapping[str, Names]) -> None:
        """Begin anew with what is live now: slots are written, and their turns begin.  Raises: EngineError."""
        counts = await asyncio.to_thread(self._kernel.counts, pools, found)
        self._looked += 1
        self.counts, self._fresh_until_s = replace(counts, passed={}), float("-inf")

    def live(self, pool: Pool) -> dict[str, int]:
        """Return the live connections of each node."""
        counted = self.counts.live.get(pool.service, {})
        return {member.name: counted.get(member.mark, 0) for member in pool.members}

    def busy(self, pool: Pool) -> dict[str, int]:
        """Return the connections of each node that count for where the next one goes: those not silent for long."""
        counted = self.counts.talking.get(pool.service, self.counts.live.get(pool.service, {}))
        return {member.name: counted.get(member.mark, 0) for member in pool.members}

    def next_slot(self, pool: Pool) -> int:
        """Return the slot that the next flow takes."""
        return self.counts.passed.get(f"{pool.family} picks-{pool.service}", (0, 0))[0] % pool.slots

    def observation(self, pools: Collection[Pool], problems: Mapping[str, str]) -> Observation:
        """Return what was counted, for people."""
        nodes, connections = {}, {}
        for pool in pools:
            live = self.live(pool)
            connections[pool.service] = sum(live.values())
            for member in pool.members:
                passed = {way: self._bytes(pool, f"{way}-{pool.service}/{member.name}") for way in ("in", "out")}
                nodes[node_key(pool.service, member.name)] = NodeCount(
                    connections=live[member.name], bytes_in=passed["in"], bytes_out=passed["out"]
                )
        return Observation(nodes, connections, problems=problems)

    def _bytes(self, pool: Pool, counter: str) -> int:
        return self.counts.passed.get(f"{pool.family} {counter}", (0, 0))[1]

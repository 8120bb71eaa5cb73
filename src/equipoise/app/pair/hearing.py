"""Whether this machine hears anything at the interface of the pair.

One that hears nothing thinks that its peer is silent, and takes the addresses; with the higher priority its adverts
even make the peer give them up, and nobody is served.  So where no packet comes in any more, the segment is asked;
where nobody answers, that is a fault.  Leaves out an interface that is down, which keepalived sees.
"""

import asyncio
from pathlib import Path

from equipoise.app.ways import find_ways
from equipoise.base.clock import Clock
from equipoise.base.errors import EngineError
from equipoise.engines.addresses.segment import ask
from equipoise.plan.model import Cluster, Plan

_SYS = Path("/sys/class/net")
_QUIET_S = 0.6  # as the standby, this machine hears the other's adverts much more often
_ANSWER_WITHIN_S = 0.45
_MOST_ASKED = 16


class Hearing:
    """The packets that come in, and when they last did.

    Args:
        clock: Time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._packets = -1
        self._heard_at_s = float("-inf")
        self._asked: frozenset[str] = frozenset()
        self._is_deaf = False

    async def follow(self, plan: Plan, cluster: Cluster) -> None:
        """Take who is on the segment: nodes, the routers to them, and the peer."""
        nodes = {node.host for service in plan.services for node in service.nodes if node.host is not None}
        ways = await asyncio.to_thread(find_ways, nodes)
        here = {host: way for host, way in ways.items() if way is not None and way.interface == cluster.interface}
        there = {way.router or host for host, way in here.items()}
        chosen = sorted(there)[:_MOST_ASKED]
        self._asked = frozenset((*chosen, cluster.peer)) if chosen else frozenset()

    async def problem(self, cluster: Cluster) -> str | None:
        """Return that nothing is heard, in words; None where something is, or where nobody but the peer is there."""
        now_s, packets = self._clock.monotonic(), await asyncio.to_thread(_received, cluster.interface)
        if packets is None or packets != self._packets:
            self._packets, self._heard_at_s, self._is_deaf = packets or 0, now_s, False
        elif self._asked and now_s - self._heard_at_s > _QUIET_S:
            self._is_deaf = not await self._answered(cluster.interface)
        if not self._is_deaf:
            return None
        return (
            f"no packet comes in at {cluster.interface}, and neither the peer nor a node answers there: look at its "
            "cable, its port at the switch and its VLAN"
        )

    async def _answered(self, interface: str) -> bool:
        try:
            answers = await asyncio.to_thread(ask, interface, self._asked, _ANSWER_WITHIN_S)
        except EngineError:  # it is gone or down, or we may not ask
            return True
        return any(answers.values()) or await asyncio.to_thread(_received, interface) != self._packets


def _received(interface: str) -> int | None:
    """Return how many packets came in at an interface since it is there; None where it is not."""
    try:
        return int((_SYS / interface / "statistics/rx_packets").read_text())
    except (OSError, ValueError):
        return None

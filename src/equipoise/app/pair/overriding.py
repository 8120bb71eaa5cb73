"""Operators' overrides on both machines: the one that was given last holds on both."""

from collections.abc import Collection

from equipoise.app.nodes import NodeBook
from equipoise.app.pair.balancer import Balancer
from equipoise.cluster.ledger import Ledger
from equipoise.cluster.link import Link
from equipoise.cluster.messages import Overrides
from equipoise.plan.states import Override, node_key
from equipoise.state.hindrances import Hindrances


class Overriding:
    """The overrides of this machine, and those of the peer.

    Args:
        balancer: Says which nodes there are.
        hindrances: Hear that overrides could not be kept.
        nodes: The overrides that hold here.
        ledger: When they were given.
        session: Of this supervisor, which stands in the stamps of what is given here.
    """

    def __init__(
        self, balancer: Balancer, hindrances: Hindrances, nodes: NodeBook, ledger: Ledger, session: str
    ) -> None:
        self._balancer = balancer
        self._hindrances = hindrances
        self._book = nodes
        self._ledger = ledger
        self._session = session

    @property
    def digest(self) -> str:
        """Return what stands for all of them."""
        return self._ledger.digest(self._nodes())

    def given(self, keys: Collection[str]) -> None:
        """Take note that an operator has just overridden these nodes here."""
        overrides = self._book.overrides
        self._kept(self._ledger.note({key: overrides.get(key, Override()) for key in keys}, self._session))

    def catch_up(self) -> None:
        """Take note of what was given while this machine stood alone, and of what went with a node that left."""
        self.given(self._ledger.differing(self._book.overrides, self._nodes()))

    async def exchange(self, link: Link) -> None:
        """Give the peer ours, and take its newer ones.  Raises: EquipoiseError."""
        await self.take(await link.take_overrides(self._ledger.all(self._nodes())))

    async def take(self, theirs: Overrides) -> Overrides:
        """Take those of the peer that are newer than ours; return all of ours.  Raises: EquipoiseError."""
        newer = self._ledger.newer(theirs, self._nodes())
        if newer:
            self._book.take({key: entry.override for key, entry in newer.items()})
            self._kept(self._ledger.take(newer))
            await self._balancer.tell_states()
        return self._ledger.all(self._nodes())

    def _nodes(self) -> Collection[str]:
        plan = self._balancer.plan
        return {node_key(service.name, node.name) for service in plan.services for node in service.nodes}

    def _kept(self, problem: str | None) -> None:
        self._hindrances.say("keep overrides for the peer", problem)

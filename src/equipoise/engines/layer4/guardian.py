"""Sees that the kernel's rules stay what was written, and that packets for nodes find them.

Any program with the right may flush every table of a machine (`nft flush ruleset`, a firewall that starts), an
interface may come back under another number, a node may answer from another network card.  Every method blocks.
"""

from collections.abc import Callable, Mapping

from equipoise.engines.layer4.artifact import Artifact, Pool
from equipoise.engines.layer4.kernel import Kernel
from equipoise.engines.layer4.kernel_tables import Names
from equipoise.plan.model import ManagedAddress
from equipoise.state.events import Event
from equipoise.state.network_events import FlowsFull, NeighbourMoved


class Guardian:
    """Of the rules of one instance.

    Attributes:
        whole: The names of everything in our tables, by family, as it should be.
        interfaces: The number of each that the rules name; None for one that was not there.
        touched: Whether another program changed rules of some table, so that elements of ours may be gone.
    """

    def __init__(self, kernel: Kernel, emit: Callable[[Event], None]) -> None:
        self._kernel = kernel
        self._emit = emit
        self._artifact = Artifact()
        self.whole: Mapping[str, Names] = {}
        self.touched = False
        self._disturbed = False  # somebody else wrote while we did: what there is now may be less than it should be
        self._rules: Mapping[str, int] = {}
        self.interfaces: Mapping[str, int | None] = {}
        self._generation = -1
        self._macs: dict[ManagedAddress, str | None] = {}  # the last that was known
        self._silent: set[ManagedAddress] = set()
        self._full: dict[str, int] = {}

    def guard(self, artifact: Artifact, interfaces: Mapping[str, int | None], before: int) -> None:
        """Take what was written just now, for these interfaces, for what it should be.

        Args:
            artifact: What was written.
            interfaces: Their numbers.
            before: The generation just before, when all was well or all of it was about to be written.
        """
        whole, rules = self._kernel.found(), self._kernel.rules()
        generation = self._kernel.generation()  # after them: what is removed meanwhile should be there
        self._artifact, self.whole, self._rules, self._generation = artifact, whole, rules, generation
        self._disturbed, self.touched = generation != before + 1, False
        self.interfaces = interfaces
        passed = self._kernel.counts((), self.whole).passed
        self._full = {pool.service: self._full.get(pool.service, _refused(pool, passed)) for pool in artifact.pools}
        self._macs = {place: self._macs.get(place) for place in artifact.neighbours}
        self._ask()

    def wrote(self) -> None:
        """Note that we changed elements; a change by somebody else at the same moment is seen at the next one."""
        if self._kernel.generation() == self._generation + 1:
            self._generation += 1

    def suspects(self) -> bool:
        """Say whether a closer look is due: anybody has changed any table, or interfaces have come or gone."""
        if self._disturbed or self.touched or self._kernel.interfaces(self._artifact.interfaces) != self.interfaces:
            return True
        return self._kernel.generation() != self._generation

    def lost(self) -> str | None:
        """Return why the rules have to be written anew, or None."""
        interfaces = self._kernel.interfaces(self._artifact.interfaces)
        if interfaces != self.interfaces:
            changed = sorted(name for name, number in interfaces.items() if number != self.interfaces.get(name))
            return f"the interface {', '.join(changed)} went, or was made anew"
        if self._disturbed:
            return "another program changed rules while ours were written"
        generation = self._kernel.generation()
        if generation == self._generation:
            return None
        found = self._kernel.found()
        if found == self.whole and self._kernel.rules() == self._rules:
            self._generation, self.touched = generation, True
            return None
        gone = sorted({table.family for table in self._artifact.tables} - found.keys())
        return f"another program removed our table {', '.join(gone)}" if gone else "another program changed our rules"

    @property
    def gone(self) -> tuple[str, ...]:
        """Return the interfaces that the plan names and that are not there."""
        return tuple(sorted(name for name, number in self.interfaces.items() if number is None))

    def problems(self) -> dict[str, str]:
        """Return what a service of direct routing lacks: an interface that is gone."""
        if not self.gone:
            return {}
        reason = f"the interface {', '.join(self.gone)} is not there (any more)"
        return {pool.service: reason for pool in self._artifact.pools if pool.family == "netdev"}

    def look(self, passed: Mapping[str, tuple[int, int]]) -> None:
        """Tell what has changed about tables of flows and neighbours; `passed` are the counters, by their names."""
        for pool in self._artifact.pools:
            refused = _refused(pool, passed)
            before = self._full.get(pool.service, refused)  # none yet of a plan that is just put into force
            if refused > before:
                self._emit(FlowsFull(service=pool.service, refused=refused - before))
            self._full[pool.service] = refused
        self._neighbours()

    def _neighbours(self) -> None:
        """Tell of nodes that answer no more, and of those that answer from elsewhere."""
        found = self._kernel.macs(self._artifact.neighbours)
        for place in self._artifact.neighbours:
            known, now = self._macs.get(place), found.get(place)
            if now is not None and known not in (None, now):
                self._emit(NeighbourMoved(address=place.host, interface=place.interface, before=known, after=now))
            elif now is None and known is not None and place not in self._silent:
                self._emit(NeighbourMoved(address=place.host, interface=place.interface, before=known, after=None))
            self._macs[place] = now or known
            (self._silent.add if now is None else self._silent.discard)(place)
        self._ask()

    def _ask(self) -> None:
        """Have the kernel see who has the addresses of the nodes, so that it follows one that moved within seconds."""
        for place in self._artifact.neighbours:
            if place.interface not in self.gone:
                self._kernel.ask_again(place)


def _refused(pool: Pool, passed: Mapping[str, tuple[int, int]]) -> int:
    """Return how many first packets were reset since a table of flows had no room."""
    return passed.get(f"{pool.family} full-{pool.service}", (0, 0))[0]

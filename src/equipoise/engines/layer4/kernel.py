"""What the engine asks of the kernel, in one place.  Every method blocks.

Rules and what follows from node states are written by nft; what packets taught is read, and for a peer written, by
netlink.  Leaves out what follows from it (`runner.py`).
"""

import socket
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from equipoise.engines import nft
from equipoise.engines.layer4 import conntrack, kernel_elements, kernel_tables, neighbours
from equipoise.engines.layer4.artifact import FAMILIES, Pool
from equipoise.engines.layer4.kernel_tables import Names
from equipoise.engines.layer4.ledger import Change, Seen
from equipoise.engines.layer4.marks import MASK, PREFIX
from equipoise.plan.model import ManagedAddress

_TALKS_S = 60.0  # a flow that was silent for longer does not count where the next one goes
_FORWARDING = {"ip": "/proc/sys/net/ipv4/ip_forward", "ip6": "/proc/sys/net/ipv6/conf/all/forwarding"}


@dataclass(frozen=True, slots=True)
class Counts:
    """What the kernel counted.

    Attributes:
        live: Of each service the connections of each mark.
        talking: Likewise, those of them that spoke in the last minute, where the others may be over.
        passed: Packets and bytes of each counter, by its name.
        cost_s: The processor time that counting took.
    """

    live: Mapping[str, Mapping[int, int]]
    passed: Mapping[str, tuple[int, int]]
    talking: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    cost_s: float = 0.0


class Kernel:
    """The tables of one instance."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self, transaction: str) -> None:
        """Put a transaction into force; an empty one is none.  Raises: EngineError, with nothing changed."""
        if transaction:
            nft.run(transaction)

    def would_load(self, transaction: str) -> None:
        """See whether the kernel would take a transaction.  Raises: EngineError."""
        nft.run(transaction, only_check=True)

    def found(self) -> dict[str, Names]:
        """Return what there is of our tables, by family.  Raises: EngineError."""
        there = {family: kernel_tables.names(number, self.name) for family, number in FAMILIES.items()}
        return {family: names for family, names in there.items() if names is not None}

    def rules(self) -> dict[str, int]:
        """Return how many rules our tables have, by family.  Raises: EngineError."""
        return {family: kernel_tables.rules(number, self.name) for family, number in FAMILIES.items()}

    def generation(self) -> int:
        """Return the number that every change of any table raises.  Raises: EngineError."""
        return kernel_tables.generation()

    def counts(self, pools: Collection[Pool], found: Mapping[str, Names]) -> Counts:
        """Count what is live at these pools, as far as there are tables, and read counters.  Raises: EngineError."""
        began_s = time.thread_time()
        live: dict[str, Mapping[int, int]] = {}
        talking: dict[str, Mapping[int, int]] = {}
        if any(pool.family == "inet" for pool in pools) and "inet" in found:
            tracked = conntrack.count_by_mark(PREFIX, MASK)
            live |= {pool.service: tracked for pool in pools if pool.family == "inet"}
        for pool in pools:
            if pool.family in found and pool.flows in found[pool.family].maps:
                number, quiet = FAMILIES[pool.family], _quiet(pool.idle_s)
                counted = kernel_tables.count_values(number, self.name, pool.flows, quiet=quiet)
                live[pool.service], talking[pool.service] = counted
        passed: dict[str, tuple[int, int]] = {}
        for family in found:
            counters = kernel_tables.counters(FAMILIES[family], self.name)
            passed |= {f"{family} {name}": counted for name, counted in counters.items()}
        return Counts(live, passed, talking, cost_s=time.thread_time() - began_s)

    def elements(self, family: str, name: str, most: int) -> tuple[Seen, bool]:
        """Return what a map holds, at most about so much of it, and whether that is all.  Raises: EngineError."""
        return kernel_tables.elements(FAMILIES[family], self.name, name, most)

    def change(self, family: str, name: str, changes: Sequence[Change]) -> bool:
        """Change elements of a map, all or none; return whether it was done.  Raises: EngineError."""
        return kernel_elements.change(FAMILIES[family], self.name, name, changes)

    def end(self, marks: Collection[int]) -> None:
        """Forget the translated connections of these nodes, so that they end.  Raises: EngineError."""
        for mark in marks:
            conntrack.cut(mark)

    def macs(self, places: Collection[ManagedAddress]) -> Mapping[ManagedAddress, str | None]:
        """Return the hardware address behind each address, as far as it is known."""
        return neighbours.neighbour_macs(places)

    def ask_again(self, place: ManagedAddress) -> None:
        """Have the kernel find out anew who has an address."""
        neighbours.probe(place.host, place.interface)

    def forwards(self, family: str) -> bool:
        """Say whether this machine hands on packets of a family, `ip` or `ip6`."""
        try:
            return Path(_FORWARDING[family]).read_text().strip() != "0"
        except OSError:
            return False

    def interfaces(self, names: Collection[str]) -> Mapping[str, int | None]:
        """Return the number of each interface; None where there is none of that name."""
        known = {name: number for number, name in socket.if_nameindex()}
        return {name: known.get(name) for name in names}


def _quiet(idle_s: float) -> range:
    """Return how many milliseconds a flow has left that was silent for a while.

    A node may have ended it by a reset, which does not pass here.  One that has just begun has little left anyway.
    """
    return range(round(_TALKS_S * 1000) + 1, round(max(_TALKS_S, idle_s - _TALKS_S) * 1000))

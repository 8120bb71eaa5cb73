"""A kernel that keeps what nft would be told, and says of packets and connections what a test wants."""

from collections.abc import Collection, Mapping

from equipoise.base.errors import EngineError
from equipoise.engines.layer4.artifact import FAMILIES, Pool
from equipoise.engines.layer4.kernel import Counts, Kernel
from equipoise.engines.layer4.kernel_tables import Names
from equipoise.plan.model import ManagedAddress

REFUSED = EngineError("the kernel refuses")


class FakeKernel(Kernel):
    """Takes transactions line by line; an object holds its elements, a chain its rules.

    Attributes:
        told: Every transaction that it took.
        refusals: How many of the next transactions it refuses.
        connections: Live ones, by mark.
        talking: Those of direct routing that spoke a moment ago; None where all of them did.
        packets: Packets and bytes by family and counter.
        unable_to_end: How often it will end no connections.
        ended: Marks whose connections were ended.
        hardware: The MAC address that answers at each place.
        asked: Where it was to look anew.
    """

    def __init__(self, name: str = "equipoise") -> None:
        super().__init__(name)
        self.told: list[str] = []
        self.checked: list[str] = []
        self.refusals = 0
        self.unable_to_end = 0
        self.connections: dict[int, int] = {}
        self.talking: dict[int, int] | None = None
        self.packets: dict[str, tuple[int, int]] = {}
        self.ended: list[int] = []
        self.asked: list[ManagedAddress] = []
        self.links: dict[str, int] = {"eth0": 2}
        self.hardware: dict[ManagedAddress, str | None] = {}
        self.forwarding = {"ip", "ip6"}
        self.objects: dict[tuple[str, str, str], list[str]] = {}  # by family, kind, name
        self._generation = 0

    # Changes

    def load(self, transaction: str) -> None:
        if not transaction:
            return
        if self.refusals:
            self.refusals -= 1
            raise REFUSED
        before = {key: list(held) for key, held in self.objects.items()}
        try:
            for line in transaction.splitlines():
                self._do(line)
        except KeyError as error:
            self.objects = before
            raise EngineError(f"no such thing: {error}") from None
        self.told.append(transaction)
        self._generation += 1

    def would_load(self, transaction: str) -> None:
        self.checked.append(transaction)
        if self.refusals:
            raise REFUSED

    def _do(self, line: str) -> None:
        verb, kind, family, table, name, rest = [*line.split(" ", 5), "", ""][:6]
        assert table == self.name
        match verb, kind:
            case _, "table":
                self._table(verb, family)
            case "add", "rule":
                self.objects[family, "chain", name].append(rest)
            case "add", "element":
                holder = self.objects.get((family, "map", name), self.objects.get((family, "set", name)))
                if holder is None:
                    raise KeyError(name)
                holder += rest.removeprefix("{ ").removesuffix(" }").split(", ")
            case "add", _:
                self.objects.setdefault((family, kind, name), [])
            case "flush", _:
                self.objects[family, kind, name].clear()
            case "delete", _:
                del self.objects[family, kind, name]

    def _table(self, verb: str, family: str) -> None:
        if verb == "delete":
            if (family, "table", "") not in self.objects:
                raise KeyError(family)
            self.objects = {key: held for key, held in self.objects.items() if key[0] != family}
        elif verb == "add":
            self.objects.setdefault((family, "table", ""), [])
        else:
            for key, held in self.objects.items():
                if key[:2] == (family, "chain"):
                    held.clear()

    def wipe(self) -> None:
        """Do what another program does with `nft flush ruleset`."""
        self.objects.clear()
        self._generation += 1

    def touch(self) -> None:
        """Change something that is another program's."""
        self._generation += 1

    def end(self, marks: Collection[int]) -> None:
        if self.unable_to_end:
            self.unable_to_end -= 1
            raise REFUSED
        self.ended += marks

    # Looks

    def held(self, name: str) -> list[str]:
        """Return what a set, a map or a chain holds."""
        return next(held for (_, kind, found), held in self.objects.items() if found == name and kind != "counter")

    def found(self) -> dict[str, Names]:
        return {family: self._names(family) for family in FAMILIES if (family, "table", "") in self.objects}

    def _names(self, family: str) -> Names:
        def of(kind: str) -> frozenset[str]:
            return frozenset(name for where, what, name in self.objects if (where, what) == (family, kind))

        return Names(chains=of("chain"), sets=of("set"), maps=of("map"), counters=of("counter"), hooks={})

    def rules(self) -> dict[str, int]:
        return {
            family: sum(len(held) for key, held in self.objects.items() if key[:2] == (family, "chain"))
            for family in self.found()
        }

    def generation(self) -> int:
        return self._generation

    def counts(self, pools: Collection[Pool], found: Mapping[str, Names]) -> Counts:
        live: dict[str, Mapping[int, int]] = {
            pool.service: dict(self.connections) for pool in pools if pool.family in found
        }
        silent = {pool.service for pool in pools if pool.flows and self.talking is not None}
        return Counts(live, dict(self.packets), {service: self.talking or {} for service in silent})

    def macs(self, places: Collection[ManagedAddress]) -> Mapping[ManagedAddress, str | None]:
        return {place: self.hardware.get(place) for place in places}

    def ask_again(self, place: ManagedAddress) -> None:
        self.asked.append(place)

    def forwards(self, family: str) -> bool:
        return family in self.forwarding

    def interfaces(self, names: Collection[str]) -> Mapping[str, int | None]:
        return {name: self.links.get(name) for name in names}

"""Two machines with real files: each knows its own certificate and, once they are a pair, the other's."""

from dataclasses import dataclass
from pathlib import Path

from equipoise.cluster.identity import Identity, own_identity, secured, store_peer
from equipoise.plan.model import Secured


class SetClock:
    """A clock that stands where it was set."""

    def __init__(self, wall_s: float = 1_900_000_000.0) -> None:
        self.now_s = 1000.0
        self.wall_s = wall_s

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.wall_s


@dataclass
class Machine:
    state: Path
    identity: Identity

    @property
    def secured(self) -> Secured:
        found = secured(self.state)
        assert found is not None
        return found

    def trusts(self, other: "Machine") -> None:
        store_peer(self.state, other.identity.certificate)


def machine(state: Path, clock: SetClock | None = None) -> Machine:
    return Machine(state, own_identity(state, "127.0.0.1", clock or SetClock()))


def pair(directory: Path, second_clock: SetClock | None = None) -> tuple[Machine, Machine]:
    """Return two machines that have joined; the second one's clock may be anything."""
    first, second = machine(directory / "first"), machine(directory / "second", second_clock)
    first.trusts(second)
    second.trusts(first)
    return first, second

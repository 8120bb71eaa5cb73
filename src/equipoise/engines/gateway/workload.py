"""The open associations of one node, as work: how much of it is in the way of another one.  Pure; time is passed in.

What an association still has to move is a guess, the largest of three: what its calling AE usually moves less what
has moved; a third of what has moved, for who sent more than usual is seldom just about to end; and 64 KiB, for being
open is work, too.  Bytes of both directions count.  Rates play no part: the quicker a node is, the more it would seem
to have to do.
"""

from typing import Protocol

from equipoise.engines.gateway.speed import Speedometer

FLOOR_BYTES = 65536.0
_BEYOND = 1 / 3
# What each load has left is looked at anew at most so often; in between only who comes and goes is added and taken
# away.  So a pick costs the same with 5 000 open associations as with five, and looking takes about one hundredth of
# the time: it costs 1 us a load or less, once in 100 us a load.  The price: sums up to 50 ms old, or 0.5 s with 5 000.
_LOOK_S = 0.05
_LOOK_LOAD_S = 100e-6


class Traffic(Protocol):
    """What an association has moved so far."""

    @property
    def bytes_in(self) -> int:
        """From the client."""

    @property
    def bytes_out(self) -> int:
        """From the node."""

    def taken(self) -> tuple[int, float]:
        """Return the bytes that the node has acknowledged, and for how many seconds some were on their way to it."""


class Load:
    """One open association.  `counted` is what it stands for in its node's sums; without `traffic`, always the same."""

    __slots__ = ("_predicted", "_taken", "_traffic", "counted")

    def __init__(self, predicted: float, traffic: Traffic | None) -> None:
        self._predicted = predicted
        self._traffic = traffic
        self._taken = (0, 0.0)
        self.counted = self.remaining()

    def remaining(self) -> float:
        """Return the bytes still to come, in all likelihood."""
        traffic = self._traffic
        moved = traffic.bytes_in + traffic.bytes_out if traffic is not None else 0
        return max(self._predicted - moved, moved * _BEYOND, FLOOR_BYTES)

    def taken(self) -> tuple[int, float]:
        """Return what the node has taken since the last time, and the seconds that it was busy with it."""
        if self._traffic is None:
            return 0, 0.0
        before, self._taken = self._taken, self._traffic.taken()
        return self._taken[0] - before[0], self._taken[1] - before[1]


class _Size:
    """The loads of about one size: between a power of two and the next."""

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0


class Workload:
    """The loads of one node, by size: there are few sizes, however many loads."""

    __slots__ = ("_loads", "_looked_s", "_sizes")

    def __init__(self) -> None:
        self._loads: dict[Load, None] = {}  # in order, so that sums are the same every time
        self._sizes: dict[int, _Size] = {}
        self._looked_s = float("-inf")

    def __len__(self) -> int:
        return len(self._loads)

    def add(self, load: Load) -> None:
        """Count a load that begins."""
        self._loads[load] = None
        self._count(load)

    def remove(self, load: Load) -> None:
        """Count a load no more; one that is not here is no error."""
        if load not in self._loads:
            return
        del self._loads[load]
        power = int(load.counted).bit_length()
        size = self._sizes[power]
        size.count -= 1
        size.total -= load.counted
        if not size.count:  # exactly nothing, whatever rounding has left: idle nodes are equal
            del self._sizes[power]

    def in_the_way(self, own_bytes: float, now_s: float) -> float:
        """Return the bytes that these loads move until another one, of `own_bytes`, is done.

        A node shares its speed among its associations: each moves what it has left, and at most as much as the new one.
        Of loads about as large as that, which are taken together, it is up to a fifth too much.
        """
        if now_s - self._looked_s >= max(_LOOK_S, len(self._loads) * _LOOK_LOAD_S):
            self._looked_s = now_s
            self._look()
        return sum(min(size.total, size.count * own_bytes) for size in self._sizes.values())

    def tell_taken(self, speedometer: Speedometer) -> None:
        """Tell what the node has taken of all loads."""
        for load in self._loads:
            speedometer.saw(*load.taken())

    def _look(self) -> None:
        self._sizes.clear()
        for load in self._loads:
            load.counted = load.remaining()
            self._count(load)

    def _count(self, load: Load) -> None:
        size = self._sizes.setdefault(int(load.counted).bit_length(), _Size())
        size.count += 1
        size.total += load.counted

"""The pair that tests of several files share, one after the other: to make one takes as long as several tests.

A test that failed may have left anything: the next one gets a new pair.  Each machine has a disk that can be broken.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.system.machine_disk import Disk
from tests.system.pair_stage import Pair, in_pair


class Shared:
    """At most one pair, made when it is first needed.

    Args:
        folder: Makes a directory.
    """

    def __init__(self, folder: Callable[[str], Path]) -> None:
        self._folder = folder
        self._pair: Pair | None = None
        self._failed = 0
        self._end = ExitStack()
        self.disks: dict[str, Disk] = {}  # by the name of a machine

    def pair(self, failed: int) -> Pair:
        """Return a whole pair; `failed` is how many tests have failed until now."""
        if self._pair is None or failed != self._failed:
            self.close()
            self._pair = self._new()
        self._failed = failed
        self._pair.whole()
        return self._pair

    def close(self) -> None:
        """End it."""
        self._pair = None
        self._end.close()

    def _new(self) -> Pair:
        with ExitStack() as stack:
            self.disks = {name: stack.enter_context(Disk()) for name in ("balancer", "standby")}
            through = {name: disk.through for name, disk in self.disks.items()}
            pair = stack.enter_context(in_pair(self._folder("pair"), through=through))
            self._end = stack.pop_all()
        return pair

"""The addresses that we hold on this machine: put there and taken away, all or none, and never another's.

Every call blocks, and waits for one that is under way.
"""

import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

from equipoise.base.errors import EngineError
from equipoise.engines.addresses import interfaces
from equipoise.engines.addresses.record import Record
from equipoise.plan.model import ManagedAddress


@dataclass(frozen=True, slots=True)
class Change:
    """What was done, in order."""

    added: tuple[ManagedAddress, ...] = ()
    removed: tuple[ManagedAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back, and why the rest could not be; empty where there is no rest."""

    back: tuple[ManagedAddress, ...]
    hindered: str


class Holding:
    """Which addresses are ours, and the ways to have others."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._ours: frozenset[ManagedAddress] = frozenset()
        self._lock = threading.Lock()

    @property
    def ours(self) -> frozenset[ManagedAddress]:
        """Those that we put there, or that a supervisor before us did."""
        return self._ours

    def adopt(self) -> None:
        """Take over what the supervisor before us held.  Raises: EngineError."""
        self._ours = self._record.read()

    def change(self, wanted: frozenset[ManagedAddress], settled: frozenset[ManagedAddress] = frozenset()) -> Change:
        """Add what is wanted and not there, remove what is ours and not wanted; all or nothing.  Raises: EngineError.

        Of `settled`, wanted already before, none is added: where one vanished it is `restore`'s.
        """
        with self._lock:
            if not wanted and not self._ours:
                return Change()
            before, held = self._ours, interfaces.look().addresses
            missing, surplus = wanted - held - settled, before - wanted
            if missing:
                self._record.write(before | missing)
            change = self._carry_out(sorted(missing), sorted(surplus & held))
            self._ours = (before - surplus) | frozenset(change.added)
            if missing or surplus:
                with suppress(EngineError):  # the file names too many then: addresses that are nobody's
                    self._record.write(self._ours)
            return change

    def restore(self, wanted: frozenset[ManagedAddress]) -> Restored:
        """Put back those of ours that vanished: an interface may have flapped.  Raises: EngineError."""
        with self._lock:
            back, hindered = [], []
            for each in sorted((self._ours & wanted) - interfaces.look().addresses):
                try:
                    if interfaces.add(each):
                        back.append(each)
                except EngineError as error:
                    hindered.append(str(error))
            return Restored(tuple(back), "; ".join(hindered))

    def _carry_out(self, missing: Collection[ManagedAddress], surplus: Collection[ManagedAddress]) -> Change:
        done: list[tuple[Callable[[ManagedAddress], bool], ManagedAddress]] = []
        try:
            added = [each for each in missing if self._do(interfaces.add, interfaces.remove, each, done)]
            removed = [each for each in surplus if self._do(interfaces.remove, interfaces.add, each, done)]
        except EngineError as error:
            for undo, each in reversed(done):
                _take_back(error, undo, each)
            with suppress(EngineError):
                self._record.write(self._ours)
            raise
        return Change(tuple(added), tuple(removed))

    @staticmethod
    def _do(
        act: Callable[[ManagedAddress], bool],
        undo: Callable[[ManagedAddress], bool],
        address: ManagedAddress,
        done: list[tuple[Callable[[ManagedAddress], bool], ManagedAddress]],
    ) -> bool:
        """Do one thing and write down its contrary; False where somebody else did it just now."""
        if changed := act(address):
            done.append((undo, address))
        return changed


def _take_back(error: EngineError, undo: Callable[[ManagedAddress], bool], address: ManagedAddress) -> None:
    """Take one thing back, and add to the error where even that fails."""
    try:
        undo(address)
    except EngineError as another:
        error.add_note(f"taking the change back: {another}")

"""Good senders that must not notice: they echo and store all the time, and know how long everything took.

Leaves out real files: objects are numbers, so that who stored which is known without a word of DICOM.
"""

import contextlib
import itertools
import statistics
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from equipoise.proto.dicom.pdu import RELEASE_RP, Pdu, PduType
from tests.property.dicom_streams import command_set, p_data, pdv
from tests.system.rawpeer import (
    CT_IMAGE_STORAGE,
    ECHO_RQ,
    ECHO_RSP,
    MAX_LENGTH,
    STORAGE,
    STORE_COMMAND,
    NodeSide,
    RawClient,
)

STORE_RSP = p_data(pdv(STORAGE, 3, command_set(0x8001, 1, data_set=False, status=0, sop_class=CT_IMAGE_STORAGE)))
_NUMBER = struct.Struct(">Q")
_COMMAND, _LAST = 1, 2  # bits of a PDV's control header: PS3.8 annex E.2
_FRAGMENT = bytes(MAX_LENGTH - 6)
_PAUSE_S = 0.02

Dial = Callable[[], RawClient]


def an_object(number: int, fragments: int = 4) -> bytes:
    """Return a C-STORE request whose object is this number and some 16 KiB."""
    data = b"".join(p_data(pdv(STORAGE, 0, _FRAGMENT)) for _ in range(fragments))
    return STORE_COMMAND + data + p_data(pdv(STORAGE, _LAST, _NUMBER.pack(number)))


@dataclass(slots=True)
class Shelf:
    """What a node has stored; use its `serve` as manners."""

    stored: list[int] = field(default_factory=list)

    def serve(self, side: NodeSide) -> None:
        """Accept, answer echoes, store, release."""
        side.accept()
        for found in iter(lambda: side.pdu(3600), None):
            match found.type:
                case PduType.DATA_TF:
                    self._take(side, found.body)
                case PduType.RELEASE_RQ:
                    side.send(RELEASE_RP)
                case PduType.ABORT:
                    return

    def _take(self, side: NodeSide, body: bytes) -> None:
        control = body[5]
        if control & _COMMAND:
            if body[4] != STORAGE:
                side.send(ECHO_RSP)
        elif control & _LAST:
            self.stored.append(_NUMBER.unpack(body[6:])[0])
            side.send(STORE_RSP)


class Sender:
    """One who has an association open and echoes on it, and comes again and again with a new one to store.

    Attributes:
        echoes: Seconds that each C-ECHO took, on the open association.
        set_ups: From connect to A-ASSOCIATE-AC, where nothing was kept waiting.
        stores: Of each C-STORE.
    """

    _firsts = itertools.count(1)

    def __init__(self, dial: Dial, *, pause_s: float = _PAUSE_S) -> None:
        self._dial, self._pause_s = dial, pause_s
        self.echoes: list[float] = []
        self.set_ups: list[float] = []
        self.stores: list[float] = []
        self.acknowledged: list[int] = []
        self.failures: list[str] = []
        self._number = next(self._firsts) << 32  # objects of two senders are two
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), daemon=True) for work in (self._stay, self._visit)
        ]
        for thread in self._threads:
            thread.start()

    def clear(self) -> None:
        """Begin to measure anew."""
        self.echoes, self.set_ups, self.stores = [], [], []

    def stop(self) -> None:
        """End, properly."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def __enter__(self) -> "Sender":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, AssertionError) as error:
            self.failures.append(f"{work.__name__}: {error!r}")

    def _stay(self) -> None:
        with contextlib.closing(self._dial().associate()) as line:
            while not self._stop.wait(self._pause_s):
                began_s = time.monotonic()
                line.send(ECHO_RQ)
                assert line.pdu() == _pdu(ECHO_RSP)
                self.echoes.append(time.monotonic() - began_s)
            line.release()

    def _visit(self) -> None:
        while not self._stop.wait(self._pause_s):
            began_s = time.monotonic()
            line = self._dial().associate()
            set_up_s = time.monotonic()
            self._number += 1
            line.send(an_object(self._number))
            assert line.pdu() == _pdu(STORE_RSP)
            self.set_ups.append(set_up_s - began_s)
            self.stores.append(time.monotonic() - set_up_s)
            self.acknowledged.append(self._number)
            line.release()


def _pdu(wire: bytes) -> Pdu:
    return Pdu(PduType(wire[0]), wire[6:])


def usual(seconds: list[float]) -> float:
    """Return the median."""
    return statistics.median(seconds)


def nearly_all(seconds: list[float]) -> float:
    """Return what 95 of 100 stay below."""
    return statistics.quantiles(seconds, n=20)[-1]

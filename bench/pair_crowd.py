"""Many clients, each from an address of its own, as fast as they are served: `python -m bench.pair_crowd ...`.

It runs on the host whose addresses they are, and prints when the first one began, when the last one was answered and
how many failed.  Clocks are CLOCK_MONOTONIC.  Leaves out whether nodes answer as they should: other measurements do.
"""

import json
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address

from equipoise.proto.dicom.association import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
    PresentationContext,
    encode_request,
)
from equipoise.proto.dicom.pdu import RELEASE_RQ, PduType

FIRST_SOURCE = IPv4Address("198.18.0.1")  # RFC 2544, appendix C.2.2: set aside for measurements
NETWORK = "198.18.0.0/15"
_AT_ONCE = 200
_LIMIT_S = 120.0
_WEB = b"GET /who HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n"
_HEAD_BYTES = 6  # of a PDU, PS3.8 section 9.3.1


def source(number: int) -> str:
    """Return the address of a client."""
    return str(FIRST_SOURCE + number)


def _dicom() -> bytes:
    context = PresentationContext(1, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,))
    return encode_request("PACS", "CROWD", [context])


class Crowd:
    """All of them."""

    def __init__(self, address: str, port: int, kind: str, numbers: Sequence[int]) -> None:
        self._target = (address, port)
        self._is_dicom = kind == "dicom"
        self._question = _dicom() if self._is_dicom else _WEB
        self._waiting = iter(numbers)
        self._open = selectors.EpollSelector()
        self._clients: dict[int, socket.socket] = {}
        self._leaving: set[int] = set()  # those that were answered and have still to be let go
        self.answered, self.last_s = 0, 0.0
        self.failed: Counter[str] = Counter()

    def run(self) -> None:
        """Have each of them come, be answered and leave."""
        deadline_s = time.monotonic() + _LIMIT_S
        self._fill()
        while self._clients and time.monotonic() < deadline_s:
            for key, events in self._open.select(1.0):
                self._go_on(self._clients[key.fd], events)
            self._fill()
        if self._clients:
            self.failed["late"] += len(self._clients)

    def _fill(self) -> None:
        while len(self._clients) < _AT_ONCE:
            number = next(self._waiting, None)
            if number is None:
                return
            client = socket.socket()
            client.setblocking(False)
            client.bind((source(number), 0))
            with suppress(BlockingIOError):
                client.connect(self._target)
            self._open.register(client, selectors.EVENT_WRITE)
            self._clients[client.fileno()] = client

    def _go_on(self, client: socket.socket, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                client.send(self._question)
                self._open.modify(client, selectors.EVENT_READ)
                return
            said = client.recv(4096)
        except OSError as error:
            self._end(client, error.strerror or str(error))
            return
        self._heard(client, said)

    def _heard(self, client: socket.socket, said: bytes) -> None:
        good = said[:1] == bytes([PduType.ASSOCIATE_AC]) if self._is_dicom else b" 200 " in said[:20]
        if client.fileno() in self._leaving:
            self._end(client)
        elif not good:
            self._end(client, f"answered {said[:_HEAD_BYTES]!r}")
        else:
            self.answered, self.last_s = self.answered + 1, time.monotonic()
            self._leave(client)

    def _leave(self, client: socket.socket) -> None:
        if not self._is_dicom:
            self._end(client)
            return
        self._leaving.add(client.fileno())
        with suppress(OSError):
            client.send(RELEASE_RQ)

    def _end(self, client: socket.socket, failure: str = "") -> None:
        self._open.unregister(client)
        self._leaving.discard(client.fileno())
        del self._clients[client.fileno()]
        client.close()
        if failure:
            self.failed[failure] += 1


def main(arguments: Sequence[str]) -> None:
    """Have COUNT clients, the first one with number FIRST, come to ADDRESS PORT as KIND, `web` or `dicom`."""
    address, port, kind, first, count = arguments
    crowd = Crowd(address, int(port), kind, range(int(first), int(first) + int(count)))
    began_s = time.monotonic()
    crowd.run()
    told = {"began_s": began_s, "last_s": crowd.last_s, "answered": crowd.answered, "failed": crowd.failed}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])

"""pynetdicom as client and as node: the second independent implementation, and one that tells all that it saw."""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context, evt

from equipoise.sim.peers import heed

VERIFICATION = "1.2.840.10008.1.1"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


def entity(calling: str = "CLIENT") -> Any:
    """Return an application entity with the patience of these tests."""
    ae = AE(ae_title=calling)
    ae.connection_timeout, ae.acse_timeout, ae.dimse_timeout, ae.network_timeout = 5, 15, 20, 60
    ae.maximum_associations = 100
    return ae


def associate(
    port: int,
    *,
    calling: str = "CLIENT",
    called: str = "PACS",
    host: str = "127.0.0.1",
    source: str | None = None,
    contexts: Sequence[Any] = (),
    max_pdu: int = 16382,
    items: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
) -> Any:
    """Return the outcome of an attempt to associate: look at `is_established`."""
    opened = entity(calling).associate(
        host,
        port,
        contexts=list(contexts) or [build_context(VERIFICATION)],
        ae_title=called,
        max_pdu=max_pdu,
        ext_neg=list(items),
        evt_handlers=list(handlers),
        **({"bind_address": (source, 0)} if source else {}),
    )
    heed(opened)
    return opened


@contextmanager
def association(port: int, **arguments: Any) -> Iterator[Any]:
    """Hold an association open, and release it."""
    opened = associate(port, **arguments)
    assert opened.is_established
    yield opened
    if opened.is_established:
        opened.release()


def echo(opened: Any) -> int | None:
    """Return the status of a C-ECHO; None where no answer came."""
    status = opened.send_c_echo().get("Status")
    return None if status is None else int(status)


def visit(port: int, **arguments: Any) -> None:
    """Associate, echo, release."""
    with association(port, **arguments) as opened:
        assert echo(opened) == 0


def items(pdu: bytes) -> list[tuple[int, bytes]]:
    """Return what an associate request or answer says: its fixed fields, then each item; those of the user singly."""
    return [(0, pdu[6:74]), *_items(pdu[74:])]


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, _, length = struct.unpack_from(">BBH", data)
        value, data = data[4 : 4 + length], data[4 + length :]
        if kind == 0x50:  # user information holds items of its own: PS3.8 section 9.3.2.3
            yield from _items(value)
        else:
            yield kind, value


@dataclass(frozen=True, slots=True)
class Seen:
    """One association, as the node saw it."""

    calling: str
    called: str
    address: str
    request: bytes  # the A-ASSOCIATE-RQ, whole
    max_length: int


class Node:
    """A node that takes every storage object, in threads of this process."""

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, max_pdu: int = 16382, handlers: Sequence[Any] = ()
    ) -> None:
        self.seen: list[Seen] = []
        self._address = (host, port)
        self._handlers = list(handlers)
        self._requests: dict[Any, bytes] = {}
        self._entity = entity("NODE")
        self._entity.maximum_pdu_size = max_pdu
        self._entity.add_supported_context(VERIFICATION, ALL_TRANSFER_SYNTAXES)
        for context in AllStoragePresentationContexts:
            self._entity.add_supported_context(
                context.abstract_syntax, ALL_TRANSFER_SYNTAXES, scu_role=True, scp_role=True
            )
        self._server: Any = None
        self.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._address[1]

    def __enter__(self) -> "Node":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, again on the same port after a `stop`."""
        handlers = [
            (evt.EVT_DATA_RECV, self._on_data),
            (evt.EVT_ACCEPTED, self._on_accepted),
            (evt.EVT_C_STORE, lambda _event: 0x0000),
            *self._handlers,
        ]
        self._server = self._entity.start_server(self._address, block=False, evt_handlers=handlers)
        self._address = (self._address[0], int(self._server.server_address[1]))

    def stop(self) -> None:
        """Listen no more, and drop what is open."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None
        for opened in self._entity.active_associations:
            if opened.is_established:
                opened.abort()

    def _on_data(self, event: Any) -> None:
        if event.data[0] == 0x01:
            self._requests[event.assoc] = bytes(event.data)

    def _on_accepted(self, event: Any) -> None:
        peer = event.assoc.requestor
        self.seen.append(
            Seen(
                calling=peer.ae_title.strip(),
                called=peer.primitive.called_ae_title.strip(),
                address=str(peer.address),
                request=self._requests.pop(event.assoc),
                max_length=int(peer.maximum_length or 0),
            )
        )

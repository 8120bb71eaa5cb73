"""Application entities of the simulated site: where they are, how an association to one is opened, why it failed.

Timeouts are short: a simulated site has no slow lines, and a demonstration must notice a dead peer in seconds.
Source: DICOM PS3.8, table 9-21 (reasons of a rejection).
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pynetdicom import AE, _config, evt

from equipoise.base.errors import PeerError

MAX_PDU_BYTES = 128 * 1024  # the largest that DCMTK takes too: few headers for each image
_CONNECT_TIMEOUT_S = 3.0
_ANSWER_TIMEOUT_S = 10.0


class Checkpoint:
    """Where the thread of an association stands still while a request waits for its answer; for pynetdicom's own.

    That one says that it stands until a moment after it goes on.  A request within this moment believes it, and its
    answer is taken from it: "Received unexpected C-STORE service message", and the request waits in vain.
    Source: https://github.com/pydicom/pynetdicom/issues/875, seen with 3.0 on a busy machine.
    """

    def __init__(self, association: Any) -> None:
        self._association = association
        self._open = True
        self._changed = threading.Condition()

    def set(self) -> None:
        """Have the thread go on."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Have the thread stand still when it comes here next."""
        with self._changed:
            self._open = False

    def wait(self) -> None:
        """Stand still, and say so no longer before anybody can ask for the next time."""
        with self._changed:
            self._changed.wait_for(lambda: self._open)
            self._association._is_paused = False


def heed(association: Any) -> None:
    """Have each request of an association of pynetdicom get the answer that came for it."""
    association._reactor_checkpoint = Checkpoint(association)


@dataclass(frozen=True, slots=True)
class Peer:
    """One application entity, as a device that calls it has it configured."""

    ae_title: str
    host: str
    port: int


class AssociationError(PeerError):
    """An association could not be opened, or ended before its work was done; the text is the reason alone."""


def parse_peer(text: str) -> Peer:
    """Return the peer that `AE=HOST:PORT` names; an IPv6 address stands in brackets.  Raises: ValueError."""
    ae_title, equals, address = text.partition("=")
    host, colon, port = address.rpartition(":")
    if not (equals and colon and ae_title and host and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"{text!r} is not AE=HOST:PORT; write for example VIEWER=127.0.0.1:11113")
    return Peer(ae_title, host.removeprefix("[").removesuffix("]"), int(port))


def speak_quietly() -> None:
    """Stop pynetdicom from composing a log text for each message; a process of the simulated site calls it once."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False


def application_entity(ae_title: str) -> Any:
    """Return an application entity of pynetdicom with the site's limits and timeouts."""
    entity = AE(ae_title=ae_title)
    entity.maximum_pdu_size = MAX_PDU_BYTES
    entity.maximum_associations = 200  # pynetdicom's own limit of 10 is reached by one busy department
    entity.connection_timeout = _CONNECT_TIMEOUT_S
    entity.acse_timeout = _ANSWER_TIMEOUT_S
    entity.dimse_timeout = _ANSWER_TIMEOUT_S
    entity.network_timeout = 60.0
    return entity


def open_association(
    peer: Peer,
    calling_ae: str,
    contexts: Sequence[Any],
    roles: Sequence[Any] = (),
    on_store: Any = None,
    *,
    source: str | None = None,
) -> Any:
    """Return an established association.

    Args:
        peer: Whom to call.
        calling_ae: Our own title.
        contexts: Presentation contexts to propose.
        roles: SCP/SCU role selection items, for C-GET.
        on_store: Called with each C-STORE event that the peer sends back; returns a status.
        source: The address to call from; the machine's choice where there is none.

    Raises: AssociationError, with the reason.
    """
    opened: list[object] = []
    handlers = [(evt.EVT_CONN_OPEN, lambda event: opened.append(event.address))]
    if on_store is not None:
        handlers.append((evt.EVT_C_STORE, on_store))
    association = application_entity(calling_ae).associate(
        peer.host,
        peer.port,
        contexts=list(contexts),
        ae_title=peer.ae_title,
        max_pdu=MAX_PDU_BYTES,
        ext_neg=list(roles),
        evt_handlers=handlers,
        bind_address=(source, 0) if source else None,
    )
    if association.is_established:
        heed(association)
        return association
    raise AssociationError(_why_not_opened(association, connected=bool(opened)))


def _why_not_opened(association: Any, *, connected: bool) -> str:
    if not connected:
        return "connection refused"
    if association.is_rejected:
        answer = association.acceptor.primitive
        return f"rejected ({answer.result},{answer.result_source},{answer.diagnostic})"
    return "aborted or closed during set-up"

"""What the DICOM playbooks start from: a service's settings, a client's request, a node's answer."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from equipoise.engines.gateway.admission import Door
from equipoise.engines.gateway.messages import ServiceTask
from equipoise.engines.gateway.relay import (
    FromClient,
    FromNode,
    NodeOpened,
    NodePicked,
    OpenNode,
    PickNode,
    StartTimer,
    ToClient,
    ToNode,
)
from equipoise.engines.gateway.relay_dicom import DicomRelay
from equipoise.plan.model import Dicom, Node, PassiveHealth, Persistence, Route
from equipoise.proto.dicom.pdu import AbortReason, AbortSource, encode_abort
from tests.playbook.playbook import Playbook
from tests.property.dicom_streams import command_set, p_data, pdv
from tests.unit.proto.captures import ECHOSCU_RQ, STORESCP_AC

ARTIM, SETUP, CONNECT, IDLE, STALL, SLOW = 30.0, 20.0, 2.0, 3600.0, 60.0, 50.0
POOL, SOURCE = "pacs", "192.0.2.1"
SETTINGS = Dicom(
    called_ae_allow=(),
    calling_ae_allow=(),
    node_called_ae=None,
    connect_timeout_s=CONNECT,
    setup_timeout_s=SETUP,
    artim_s=ARTIM,
    idle_timeout_s=IDLE,
    stall_timeout_s=STALL,
    max_associate_bytes=1 << 17,
)
RQ, AC = ECHOSCU_RQ, STORESCP_AC
ABORT = encode_abort(AbortSource.PROVIDER)  # the other side is gone
USER_ABORT = encode_abort(AbortSource.USER)
UNEXPECTED = encode_abort(AbortSource.PROVIDER, AbortReason.UNEXPECTED_PDU)
INVALID = encode_abort(AbortSource.PROVIDER, AbortReason.INVALID_VALUE)
UNRECOGNIZED = encode_abort(AbortSource.PROVIDER, AbortReason.UNRECOGNIZED_PDU)

STORE_RQ = p_data(pdv(1, 3, command_set(0x0001, 7, data_set=True)))
STORE_DATA = p_data(pdv(1, 0, bytes(1000)))
STORE_LAST = p_data(pdv(1, 2, bytes(1000)))
STORE_RSP = p_data(pdv(1, 3, command_set(0x8001, 7, data_set=False, status=0)))
ECHO_RQ = p_data(pdv(1, 3, command_set(0x0030, 8, data_set=False)))
ECHO_RSP = p_data(pdv(1, 3, command_set(0x8030, 8, data_set=False, status=0)))
FIND_RQ = p_data(pdv(1, 3, command_set(0x0020, 9, data_set=True)), pdv(1, 2, b"keys"))
FIND_PENDING = p_data(pdv(1, 3, command_set(0x8020, 9, data_set=True, status=0xFF00)), pdv(1, 2, b"match!"))
FIND_RSP = p_data(pdv(1, 3, command_set(0x8020, 9, data_set=False, status=0)))
CANCEL_RQ = p_data(pdv(1, 3, command_set(0x0FFF, 9, data_set=False)))


def task(
    name: str = POOL,
    routes: Sequence[Route] = (),
    *,
    nodes: str = "ab",
    allow_from: tuple[str, ...] = (),
    slow_response_s: float = SLOW,
    **settings: Any,
) -> ServiceTask:
    """Return what a gateway knows of a service; `settings` are those of `dicom`."""
    return ServiceTask(
        name=name,
        listen=(),
        balance="first_up",
        persistence=Persistence("none", 1800.0, 32, 64),
        nodes=tuple(Node(node, node, "192.0.2.9", 104, 100, None, backup=False) for node in nodes),
        allow_from=allow_from,
        max_connections=None,
        queue_wait_s=5.0,
        source_address=None,
        dicom=replace(SETTINGS, **settings),
        passive_health=PassiveHealth(slow_response_s=slow_response_s),
        routes=tuple(routes),
    )


def route(to: str, **conditions: str | tuple[str, ...]) -> Route:
    """Return a route; a condition that is one text is a tuple of it."""
    given = {name: (value,) if isinstance(value, str) else value for name, value in conditions.items()}
    empty: Mapping[str, tuple[str, ...]] = {"called_ae": (), "calling_ae": (), "service": (), "source": ()}
    return Route(**{**empty, **given}, to=to)


def relay(*others: ServiceTask, **settings: Any) -> DicomRelay:
    door = Door.of(task(**settings), {other.name: other for other in others})
    return DicomRelay(door, SOURCE, 0)


def waiting(**settings: Any) -> Playbook:
    """A client has connected."""
    talk = Playbook(relay(**settings))
    talk.then(StartTimer(settings.get("artim_s", ARTIM)))
    return talk


def picking(**settings: Any) -> Playbook:
    """Its request is whole."""
    talk = waiting(**settings)
    talk.when(FromClient(RQ)).then(PickNode(POOL, "MODALITY", ()))
    return talk


def connecting(alternatives: int = 1, **settings: Any) -> Playbook:
    """Node a was picked; others may be left."""
    talk = picking(**settings)
    talk.when(NodePicked("a", alternatives)).then(OpenNode(), StartTimer(CONNECT))
    return talk


def asking(alternatives: int = 1, **settings: Any) -> Playbook:
    """Node a has the request."""
    talk = connecting(alternatives, **settings)
    talk.when(NodeOpened()).then(ToNode(RQ), StartTimer(SETUP / (1 + alternatives)))
    return talk


def associated(**settings: Any) -> Playbook:
    """Node a has accepted."""
    talk = asking(**settings)
    stall, idle = settings.get("stall_timeout_s", STALL), settings.get("idle_timeout_s", IDLE)
    talk.when(FromNode(AC)).then(ToClient(AC), StartTimer(min(stall, idle)))
    return talk


def storing(talk: Playbook) -> Playbook:
    """The client is in the middle of a PDU of an image."""
    talk.when(FromClient(STORE_RQ)).then(ToNode(STORE_RQ))
    talk.when(FromClient(STORE_DATA[:500])).then(ToNode(STORE_DATA[:500]))
    return talk


def with_max_length(pdu: bytes, value: int) -> bytes:
    """Return a captured PDU with another maximum length."""
    return pdu.replace(bytes.fromhex("51000004 00004000"), bytes.fromhex("51000004") + struct.pack(">I", value))

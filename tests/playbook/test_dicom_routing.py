"""A request that a route leads to another service's pool: from then on that service's settings hold."""

from typing import Any

from equipoise.engines.gateway.relay import (
    CloseClient,
    CloseNode,
    FromClient,
    FromNode,
    NodeOpened,
    NodePicked,
    NoNode,
    OpenNode,
    PickNode,
    StartTimer,
    TimerExpired,
    ToClient,
    ToNode,
)
from equipoise.proto.dicom.pdu import REJECT_CALLED_AE, REJECT_LIMIT, REJECT_NO_REASON
from tests.playbook.playbook import Blames, Ends, Playbook
from tests.playbook.scene import AC, ARTIM, CONNECT, ECHO_RQ, ECHO_RSP, RQ, SETUP, STALL, relay, route, task

CALLED_BY_NODES = b"MWL".ljust(16)


def front(*conditions: dict[str, Any], nodes: str = "", **target: Any) -> Playbook:
    """A client has come to a service whose routes all lead to `mwl`."""
    routes = [route("mwl", **one) for one in conditions]
    talk = Playbook(relay(task("mwl", **target), name="front", routes=routes, nodes=nodes))
    talk.then(StartTimer(ARTIM))
    return talk


def test_the_pool_of_the_route_is_asked() -> None:
    talk = front({"called_ae": "ARCHIVE"})
    talk.when(FromClient(RQ)).then(PickNode("mwl", "MODALITY", ()))
    talk.when(NoNode(limit=True, reason="full")).then(
        ToClient(REJECT_LIMIT.encode()), CloseNode(), StartTimer(ARTIM), Ends("no_node", "full")
    )


def test_what_no_route_takes_stays() -> None:
    talk = front({"called_ae": "WORKLIST"}, nodes="a")
    talk.when(FromClient(RQ)).then(PickNode("front", "MODALITY", ()))
    talk.when(NoNode(limit=True, reason="full")).then(
        ToClient(REJECT_LIMIT.encode()), CloseNode(), StartTimer(ARTIM), Ends("no_node", "full")
    )


def test_an_echo_goes_through_a_service_that_only_routes() -> None:
    front({"service": "worklist"}).when(FromClient(RQ)).then(PickNode("mwl", "MODALITY", ()))


def test_the_settings_of_the_chosen_service_hold_from_then_on() -> None:
    talk = front(
        {}, node_called_ae="MWL", setup_timeout_s=8.0, connect_timeout_s=1.0, idle_timeout_s=40.0, slow_response_s=5.0
    )
    talk.when(FromClient(RQ), at=1).then(PickNode("mwl", "MODALITY", ()))
    talk.when(NodePicked("a", 0)).then(OpenNode(), StartTimer(1.0))
    asked = RQ.replace(b"ARCHIVE".ljust(16), CALLED_BY_NODES)
    talk.when(NodeOpened()).then(ToNode(asked), StartTimer(8.0))
    talk.when(FromNode(AC.replace(b"ARCHIVE".ljust(16), CALLED_BY_NODES))).then(ToClient(AC), StartTimer(40.0))
    talk.when(FromClient(ECHO_RQ), at=2).then(ToNode(ECHO_RQ))
    talk.when(FromNode(ECHO_RSP), at=7).then(ToClient(ECHO_RSP), Blames("slow"))


def test_until_then_those_of_the_service_that_the_client_came_to() -> None:
    """Also for the length of the request: the other service's is not asked."""
    talk = front({}, max_associate_bytes=100, artim_s=3.0)
    talk.when(FromClient(RQ[:150])).then()
    talk.when(FromClient(RQ[150:])).then(PickNode("mwl", "MODALITY", ()))
    late = front({}, artim_s=3.0)
    late.when(TimerExpired(), at=ARTIM).then(CloseClient(), Ends("timed_out", "within 30 s"))


def test_the_target_must_let_the_client_in() -> None:
    talk = front({}, called_ae_allow=("MWL",))
    talk.when(FromClient(RQ)).then(
        ToClient(REJECT_CALLED_AE.encode()),
        CloseNode(),
        StartTimer(ARTIM),
        Ends("refused", "route to mwl: called AE 'ARCHIVE'"),
    )


def test_what_nobody_takes_is_rejected() -> None:
    talk = front({"called_ae": "WORKLIST"})
    talk.when(FromClient(RQ)).then(
        ToClient(REJECT_NO_REASON.encode()),
        CloseNode(),
        StartTimer(ARTIM),
        Ends("refused", "front has no nodes of its own", node=None),
    )


def test_another_node_is_one_of_the_same_pool() -> None:
    talk = front({})
    talk.when(FromClient(RQ)).then(PickNode("mwl", "MODALITY", ()))
    talk.when(NodePicked("a", 1)).then(OpenNode(), StartTimer(CONNECT))
    talk.when(TimerExpired(), at=2).then(Blames("refused"), CloseNode(), PickNode("mwl", "MODALITY", ("a",)))
    talk.when(NodePicked("b", 0)).then(OpenNode(), StartTimer(CONNECT))
    talk.when(NodeOpened()).then(ToNode(RQ), StartTimer(SETUP - 2))
    talk.when(FromNode(AC)).then(ToClient(AC), StartTimer(STALL))

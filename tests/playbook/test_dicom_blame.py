"""What an established association holds against its node.  What its set-up does: test_dicom_setup.py."""

import pytest

from equipoise.engines.gateway.relay import (
    Blame,
    ClientClosed,
    CloseClient,
    CloseNode,
    Finish,
    FromClient,
    FromNode,
    NodeClosed,
    StartTimer,
    TimerExpired,
    ToClient,
    ToNode,
    WriteStalled,
)
from equipoise.proto.dicom.pdu import RELEASE_RQ
from tests.playbook.playbook import Blames, Ends, Playbook
from tests.playbook.scene import (
    ABORT,
    ARTIM,
    ECHO_RQ,
    ECHO_RSP,
    FIND_PENDING,
    FIND_RQ,
    FIND_RSP,
    SLOW,
    STALL,
    STORE_DATA,
    STORE_LAST,
    STORE_RQ,
    STORE_RSP,
    USER_ABORT,
    associated,
    storing,
)
from tests.property.dicom_streams import command_set, p_data, pdv

NODE_LEFT = (CloseNode(linger=True), CloseClient())
CLIENT_TOLD = (ToClient(ABORT), StartTimer(ARTIM))
BOTH_TOLD = (*CLIENT_TOLD, ToNode(ABORT), CloseNode(linger=True))
STORED = STORE_RQ + STORE_DATA + STORE_LAST


def answered(status: int, command: int = 0x8001) -> bytes:
    return p_data(pdv(1, 3, command_set(command, 7, data_set=False, status=status)))


def asked(command: int) -> bytes:
    return p_data(pdv(1, 3, command_set(command, 7, data_set=True)), pdv(1, 2, b"keys"))


def stored() -> Playbook:
    """A whole object has gone to the node, which owes its response since second 10."""
    talk = associated()
    talk.when(FromClient(STORE_RQ), at=1).then(ToNode(STORE_RQ))
    talk.when(FromClient(STORE_DATA), at=9).then(ToNode(STORE_DATA))
    talk.when(FromClient(STORE_LAST), at=10).then(ToNode(STORE_LAST))
    return talk


# Statuses


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0xA7FF, 0x0213])
def test_a_node_out_of_resources_is_blamed_once(status: int) -> None:
    talk = stored()
    answer = answered(status)
    talk.when(FromNode(answer)).then(ToClient(answer), Blame("status", f"C-STORE answered with status {status:04X}"))
    talk.when(FromClient(STORED)).then(ToNode(STORED))
    talk.when(FromNode(answer)).then(ToClient(answer))
    talk.when(NodeClosed()).then(*CLIENT_TOLD, Ends("node_closed"))


@pytest.mark.parametrize("status", [0x0000, 0xA900, 0xC000, 0xB000, 0x0110, 0x0122])
def test_another_status_is_about_the_object(status: int) -> None:
    stored().when(FromNode(answered(status))).then(ToClient(answered(status)))


def test_a_client_out_of_resources_is_not_the_nodes_fault() -> None:
    talk = associated()
    get = asked(0x0010)
    talk.when(FromClient(get)).then(ToNode(get))
    talk.when(FromNode(STORED)).then(ToClient(STORED))
    talk.when(FromClient(answered(0xA700))).then(ToNode(answered(0xA700)))


def test_a_status_and_an_abort_in_one_read_are_one_blame_in_front_of_the_end() -> None:
    wire = answered(0xA700) + USER_ABORT
    stored().when(FromNode(wire)).then(
        ToClient(wire), Blames("status"), CloseNode(), StartTimer(ARTIM), Ends("node_aborted")
    )


def test_a_disabled_node_is_still_blamed_for_its_last_response() -> None:
    talk = stored()
    talk.when(Finish("a was disabled")).then()
    answer = answered(0xA700)
    talk.when(FromNode(answer)).then(ToClient(answer), Blames("status"), *BOTH_TOLD, Ends("disabled"))


# Slow responses


def test_a_slow_response_is_counted_from_the_last_byte_of_its_request() -> None:
    stored().when(FromNode(STORE_RSP), at=10 + SLOW - 1).then(ToClient(STORE_RSP))
    stored().when(FromNode(STORE_RSP), at=10 + SLOW).then(
        ToClient(STORE_RSP), Blame("slow", "C-STORE answered after 50.0 s")
    )


def test_the_time_that_a_client_takes_is_its_own() -> None:
    talk = associated()
    talk.when(FromClient(STORE_RQ), at=1).then(ToNode(STORE_RQ))
    talk.when(FromClient(STORE_DATA), at=100).then(ToNode(STORE_DATA))
    talk.when(FromClient(STORE_LAST), at=200).then(ToNode(STORE_LAST))
    talk.when(FromNode(STORE_RSP), at=201).then(ToClient(STORE_RSP))


@pytest.mark.parametrize("command", [0x0010, 0x0021])
def test_a_retrieval_may_take_long(command: int) -> None:
    talk = associated()
    talk.when(FromClient(asked(command))).then(ToNode(asked(command)))
    response = answered(0, command | 0x8000)
    talk.when(FromNode(response), at=1000).then(ToClient(response))


def test_a_query_with_many_matches_may_take_long_in_all() -> None:
    talk = associated()
    talk.when(FromClient(FIND_RQ)).then(ToNode(FIND_RQ))
    for second in range(40, 400, 40):
        talk.when(FromNode(FIND_PENDING), at=second).then(ToClient(FIND_PENDING))
    talk.when(FromNode(FIND_RSP), at=400).then(ToClient(FIND_RSP))


def test_a_node_that_falls_silent_between_matches_is_slow() -> None:
    talk = associated()
    talk.when(FromClient(FIND_RQ)).then(ToNode(FIND_RQ))
    talk.when(FromNode(FIND_PENDING), at=40).then(ToClient(FIND_PENDING))
    talk.when(FromNode(FIND_PENDING), at=90).then(
        ToClient(FIND_PENDING), Blames("slow", "C-FIND answered after 50.0 s")
    )


# Responses that never come: the client gives up first


def test_a_client_that_gives_up_waiting_leaves_a_slow_node() -> None:
    stored().when(FromClient(USER_ABORT), at=60).then(
        ToNode(USER_ABORT), Blame("slow", "C-STORE not answered in 50.0 s"), *NODE_LEFT, Ends("client_aborted")
    )
    stored().when(ClientClosed(), at=60).then(Blames("slow"), ToNode(ABORT), *NODE_LEFT, Ends("client_closed"))


def test_a_client_that_gives_up_soon_does_not() -> None:
    stored().when(FromClient(USER_ABORT), at=59).then(ToNode(USER_ABORT), *NODE_LEFT, Ends("client_aborted"))
    stored().when(ClientClosed(), at=59).then(ToNode(ABORT), *NODE_LEFT, Ends("client_closed"))


def test_a_client_that_stops_within_its_request_is_not_waiting() -> None:
    talk = storing(associated())
    talk.when(ClientClosed(), at=100).then(CloseNode(), CloseClient(), Ends("client_closed"))


def test_a_client_that_waits_for_a_retrieval_does_not_blame() -> None:
    talk = associated()
    talk.when(FromClient(asked(0x0021))).then(ToNode(asked(0x0021)))
    talk.when(ClientClosed(), at=1000).then(ToNode(ABORT), *NODE_LEFT, Ends("client_closed"))


def test_a_client_at_rest_owes_and_is_owed_nothing() -> None:
    talk = stored()
    talk.when(FromNode(STORE_RSP), at=11).then(ToClient(STORE_RSP))
    talk.when(ClientClosed(), at=1000).then(ToNode(ABORT), *NODE_LEFT, Ends("client_closed"))


def test_a_client_that_does_not_read_keeps_the_response_back_itself() -> None:
    stored().when(WriteStalled(client=True), at=200).then(*BOTH_TOLD, Ends("timed_out"))


def test_a_response_awaited_until_all_is_idle() -> None:
    talk = associated(idle_timeout_s=100)
    talk.when(FromClient(ECHO_RQ)).then(ToNode(ECHO_RQ))
    talk.when(TimerExpired(), at=60).then(StartTimer(40))
    talk.when(TimerExpired(), at=100).then(Blames("slow", "C-ECHO"), *BOTH_TOLD, Ends("timed_out", "idle"))


# Nodes that leave


def test_a_node_that_leaves_an_idle_association_does_as_it_is_set_up() -> None:
    for talk in (associated(), stored()):
        talk.when(FromClient(ECHO_RQ), at=20).then(ToNode(ECHO_RQ))
        talk.when(FromNode(STORE_RSP + ECHO_RSP)).then(ToClient(STORE_RSP + ECHO_RSP))
        talk.when(NodeClosed(), at=30).then(*CLIENT_TOLD, Ends("node_closed"))
    associated().when(FromNode(USER_ABORT), at=10).then(
        ToClient(USER_ABORT), CloseNode(), StartTimer(ARTIM), Ends("node_aborted")
    )


def test_a_node_that_accepts_and_leaves_at_once_is_blamed() -> None:
    associated().when(NodeClosed(), at=9).then(Blames("aborted"), *CLIENT_TOLD, Ends("node_closed"))


def test_a_node_that_leaves_a_request_unanswered_is_blamed_however_late() -> None:
    stored().when(NodeClosed(), at=40).then(Blames("aborted", "a closed"), *CLIENT_TOLD, Ends("node_closed"))
    stored().when(FromNode(USER_ABORT), at=40).then(
        ToClient(USER_ABORT), Blames("aborted"), CloseNode(), StartTimer(ARTIM), Ends("node_aborted")
    )


def test_a_node_that_closes_instead_of_answering_a_release_has_done_its_work() -> None:
    talk = associated()
    talk.when(FromClient(RELEASE_RQ)).then(ToNode(RELEASE_RQ))
    talk.when(NodeClosed()).then(*CLIENT_TOLD, Ends("node_closed"))


def test_a_release_that_a_node_never_answers_is_not_a_failure_of_its_work() -> None:
    talk = associated()
    talk.when(FromClient(RELEASE_RQ)).then(ToNode(RELEASE_RQ))
    talk.when(TimerExpired(), at=60).then(StartTimer(STALL))
    talk.when(TimerExpired(), at=120).then(*BOTH_TOLD, Ends("timed_out"))

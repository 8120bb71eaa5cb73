"""From the node's acceptance to the end: PS3.8 sections 7.2, 7.3 and 9.2, DESIGN "Relaying" and "Negotiation"."""

import pytest

from equipoise.engines.gateway.relay import (
    Abort,
    ClientClosed,
    CloseClient,
    CloseNode,
    Command,
    Event,
    Finish,
    FromClient,
    FromNode,
    NodeClosed,
    NodeFailed,
    NodeOpened,
    NodePicked,
    NoNode,
    StartTimer,
    TimerExpired,
    ToClient,
    ToNode,
    WriteStalled,
)
from equipoise.proto.dicom.pdu import RELEASE_RP, RELEASE_RQ
from tests.playbook.playbook import Blames, Ends, Playbook
from tests.playbook.scene import (
    ABORT,
    AC,
    ARTIM,
    CANCEL_RQ,
    ECHO_RQ,
    ECHO_RSP,
    FIND_PENDING,
    FIND_RQ,
    FIND_RSP,
    IDLE,
    INVALID,
    RQ,
    STALL,
    STORE_DATA,
    STORE_LAST,
    STORE_RQ,
    STORE_RSP,
    UNEXPECTED,
    UNRECOGNIZED,
    USER_ABORT,
    asking,
    associated,
    storing,
)
from tests.property.dicom_streams import command_set, p_data, pdv

BOTH_TOLD: tuple[Command, ...] = (ToClient(ABORT), StartTimer(ARTIM), ToNode(ABORT), CloseNode(linger=True))


def receiving() -> Playbook:
    """The node is in the middle of a PDU of an answer with data."""
    talk = associated()
    talk.when(FromClient(FIND_RQ)).then(ToNode(FIND_RQ))
    talk.when(FromNode(FIND_PENDING[:-3])).then(ToClient(FIND_PENDING[:-3]))
    return talk


def test_an_object_is_stored_and_the_association_released() -> None:
    talk = associated()
    talk.when(FromClient(STORE_RQ), at=1).then(ToNode(STORE_RQ))
    for _ in range(100):
        talk.when(FromClient(STORE_DATA)).then(ToNode(STORE_DATA))
    talk.when(FromClient(STORE_LAST)).then(ToNode(STORE_LAST))
    talk.when(FromNode(STORE_RSP), at=1.25).then(ToClient(STORE_RSP))
    talk.when(FromClient(RELEASE_RQ)).then(ToNode(RELEASE_RQ))
    talk.when(FromNode(RELEASE_RP)).then(
        ToClient(RELEASE_RP), CloseNode(), StartTimer(ARTIM), Ends("released", "by the client", node="a", tried=("a",))
    )
    talk.when(ClientClosed()).then(CloseClient())
    assert talk.record is not None
    assert (talk.record.calling_ae, talk.record.called_ae, talk.record.setup_ms) == ("MODALITY", "ARCHIVE", 0.0)
    (stored,) = talk.record.messages
    assert (stored.command, stored.status, stored.count, stored.response_ms_mean) == ("C-STORE", "0000", 1, 250.0)


def test_a_client_that_does_not_close_after_the_release_is_closed() -> None:
    talk = associated()
    talk.when(FromClient(RELEASE_RQ)).then(ToNode(RELEASE_RQ))
    talk.when(FromNode(RELEASE_RP)).then(
        ToClient(RELEASE_RP), CloseNode(), StartTimer(ARTIM), Ends("released", "by the client")
    )
    talk.when(TimerExpired(), at=30).then(CloseClient())


def test_the_node_may_release() -> None:
    talk = associated()
    talk.when(FromNode(RELEASE_RQ)).then(ToClient(RELEASE_RQ))
    talk.when(FromClient(RELEASE_RP)).then(
        ToNode(RELEASE_RP), CloseNode(linger=True), CloseClient(), Ends("released", "by the node")
    )


def test_a_release_collision_ends_when_both_are_answered() -> None:
    """PS3.8 section 7.2.2.7: the requestor answers first, the acceptor then."""
    talk = associated()
    talk.when(FromClient(RELEASE_RQ)).then(ToNode(RELEASE_RQ))
    talk.when(FromNode(RELEASE_RQ)).then(ToClient(RELEASE_RQ))
    talk.when(FromClient(RELEASE_RP)).then(ToNode(RELEASE_RP))
    talk.when(FromNode(RELEASE_RP)).then(
        ToClient(RELEASE_RP), CloseNode(), StartTimer(ARTIM), Ends("released", "by the client")
    )


def test_what_the_node_still_had_to_say_passes_after_the_release_request() -> None:
    talk = associated()
    talk.when(FromClient(FIND_RQ + CANCEL_RQ + RELEASE_RQ)).then(ToNode(FIND_RQ + CANCEL_RQ + RELEASE_RQ))
    talk.when(FromNode(FIND_PENDING + FIND_RSP)).then(ToClient(FIND_PENDING + FIND_RSP))
    talk.when(FromNode(RELEASE_RP)).then(
        ToClient(RELEASE_RP), CloseNode(), StartTimer(ARTIM), Ends("released", "by the client")
    )


def test_a_release_that_nobody_asked_for_is_unexpected() -> None:
    associated().when(FromNode(RELEASE_RP)).then(
        Blames("aborted", "without an A-RELEASE-RQ"),
        ToClient(ABORT),
        StartTimer(ARTIM),
        ToNode(UNEXPECTED),
        CloseNode(linger=True),
        Ends("node_error", "without an A-RELEASE-RQ"),
    )


def test_messages_are_counted_by_what_they_were() -> None:
    talk = associated()
    echo_failed = p_data(pdv(1, 3, command_set(0x8030, 8, data_set=False, status=0x0122)))
    report = p_data(pdv(1, 3, command_set(0x0100, 1, data_set=False)))
    for event in (
        FromClient(ECHO_RQ),
        FromNode(ECHO_RSP),
        FromClient(ECHO_RQ),
        FromNode(echo_failed),
        FromClient(FIND_RQ),
        FromNode(FIND_PENDING + FIND_PENDING),
        FromClient(CANCEL_RQ),
        FromNode(FIND_RSP),
        FromNode(report),  # crosses nothing and stays without an answer
    ):
        talk.when(event)
    talk.when(FromClient(USER_ABORT)).then(
        ToNode(USER_ABORT), CloseNode(linger=True), CloseClient(), Ends("client_aborted", "by the service user")
    )
    assert talk.record is not None
    counted = {(row.command, row.status): row.count for row in talk.record.messages}
    assert counted == {
        ("C-ECHO", "0000"): 1,
        ("C-ECHO", "0122"): 1,
        ("C-FIND", "0000"): 1,
        ("N-EVENT-REPORT", None): 1,
    }


def test_c_get_sub_operations_cross_the_open_request() -> None:
    talk = associated()
    get_rq = p_data(pdv(1, 3, command_set(0x0010, 9, data_set=True)), pdv(1, 2, b"keys"))
    get_rsp = p_data(pdv(1, 3, command_set(0x8010, 9, data_set=False, status=0)))
    talk.when(FromClient(get_rq)).then(ToNode(get_rq))
    talk.when(FromNode(STORE_RQ + STORE_LAST)).then(ToClient(STORE_RQ + STORE_LAST))
    talk.when(FromClient(STORE_RSP)).then(ToNode(STORE_RSP))
    talk.when(FromNode(get_rsp)).then(ToClient(get_rsp))


# One side goes away


def test_a_client_that_closes_between_messages() -> None:
    associated().when(ClientClosed()).then(ToNode(ABORT), CloseNode(linger=True), CloseClient(), Ends("client_closed"))


def test_a_node_that_closes_between_pdus() -> None:
    talk = associated()
    talk.when(FromClient(STORE_RQ)).then(ToNode(STORE_RQ))
    talk.when(NodeClosed()).then(
        Blames("aborted", "a closed"),
        ToClient(ABORT),
        StartTimer(ARTIM),
        Ends("node_closed", "a closed the connection"),
    )
    talk.when(ClientClosed()).then(CloseClient())


def test_a_client_that_closes_within_a_pdu_leaves_an_object_that_must_not_be_completed() -> None:
    """An A-ABORT of ours would be read as the rest of the PDU: a node could store ten bytes that nobody sent."""
    talk = storing(associated())
    talk.when(FromClient(STORE_DATA[500:] + STORE_LAST[:-10])).then(ToNode(STORE_DATA[500:] + STORE_LAST[:-10]))
    talk.when(ClientClosed()).then(CloseNode(), CloseClient(), Ends("client_closed"))


def test_a_node_that_closes_within_a_pdu_leaves_an_answer_that_must_not_be_completed() -> None:
    receiving().when(NodeClosed()).then(Blames("aborted"), CloseClient(), Ends("node_closed"))


def test_the_side_that_is_between_pdus_is_still_told() -> None:
    storing(associated()).when(NodeClosed()).then(
        Blames("aborted"), ToClient(ABORT), StartTimer(ARTIM), Ends("node_closed")
    )
    receiving().when(ClientClosed()).then(ToNode(ABORT), CloseNode(linger=True), CloseClient(), Ends("client_closed"))


def test_the_client_may_abort_within_a_message() -> None:
    talk = associated()
    talk.when(FromClient(STORE_RQ + STORE_DATA)).then(ToNode(STORE_RQ + STORE_DATA))
    talk.when(FromClient(USER_ABORT)).then(
        ToNode(USER_ABORT), CloseNode(linger=True), CloseClient(), Ends("client_aborted")
    )


def test_the_node_may_abort() -> None:
    talk = associated()
    talk.when(FromNode(USER_ABORT[:6])).then(ToClient(USER_ABORT[:6]))
    talk.when(FromNode(USER_ABORT[6:])).then(
        ToClient(USER_ABORT[6:]),
        Blames("aborted", "by the service user"),
        CloseNode(),
        StartTimer(ARTIM),
        Ends("node_aborted", "by the service user", node="a"),
    )


# Bytes that break the protocol


@pytest.mark.parametrize(
    ("wire", "answer", "said"),
    [
        (b"\xff", UNRECOGNIZED, "0xFF"),
        (RQ, UNEXPECTED, "A-ASSOCIATE-RQ within an association"),
        (bytes.fromhex("04 00 ffffffff"), INVALID, "4294967295 bytes, 16384 were agreed"),
        (bytes.fromhex("04 00 00000000"), INVALID, "holds no fragment"),
        (bytes.fromhex("04 00 00000005"), INVALID, "holds no fragment"),
        (STORE_DATA, UNEXPECTED, "data fragment where a command"),
        (STORE_RQ + ECHO_RQ, UNEXPECTED, "command fragment where a data"),
        (p_data(pdv(3, 3, command_set(0x0030, 8, data_set=False))), INVALID, "context 3 was not accepted"),
    ],
)
def test_each_side_is_answered_with_its_reason_and_the_other_told(wire: bytes, answer: bytes, said: str) -> None:
    associated().when(FromClient(wire)).then(
        ToClient(answer), StartTimer(ARTIM), ToNode(ABORT), CloseNode(linger=True), Ends("client_error", said)
    )
    associated().when(FromNode(wire)).then(
        Blames("aborted", said),
        ToClient(ABORT),
        StartTimer(ARTIM),
        ToNode(answer),
        CloseNode(linger=True),
        Ends("node_error", said),
    )


def test_a_client_that_goes_wrong_behind_a_pdu_begun_earlier_completes_nothing_at_the_node() -> None:
    """What it sent now is not forwarded, so the node still waits for the rest of the earlier PDU."""
    storing(associated()).when(FromClient(STORE_DATA[500:] + b"\xff")).then(
        ToClient(UNRECOGNIZED), StartTimer(ARTIM), CloseNode(), Ends("client_error")
    )


def test_a_node_that_goes_wrong_behind_a_pdu_begun_earlier_completes_nothing_at_the_client() -> None:
    receiving().when(FromNode(FIND_PENDING[-3:] + b"\xff")).then(
        Blames("aborted"), CloseClient(), ToNode(UNRECOGNIZED), CloseNode(linger=True), Ends("node_error")
    )


def test_too_many_requests_without_a_response() -> None:
    talk = associated()
    echoes = [p_data(pdv(1, 3, command_set(0x0030, number, data_set=False))) for number in range(65)]
    talk.when(FromClient(b"".join(echoes[:64]))).then(ToNode(b"".join(echoes[:64])))
    talk.when(FromClient(echoes[64])).then(
        ToClient(UNEXPECTED), StartTimer(ARTIM), ToNode(ABORT), CloseNode(linger=True), Ends("client_error", "65")
    )


# Disabled, drained


def test_disabled_at_rest_it_ends_at_once() -> None:
    associated().when(Finish("a was disabled")).then(*BOTH_TOLD, Ends("disabled", "a was disabled"))


def test_disabled_while_busy_it_ends_after_the_response() -> None:
    talk = storing(associated())
    talk.when(Finish("a was disabled")).then()
    talk.when(FromClient(STORE_DATA[500:] + STORE_LAST)).then(ToNode(STORE_DATA[500:] + STORE_LAST))
    talk.when(FromNode(STORE_RSP)).then(ToClient(STORE_RSP), *BOTH_TOLD, Ends("disabled", "a was disabled"))


def test_disabled_during_a_query_it_ends_after_the_final_response() -> None:
    talk = receiving()
    talk.when(Finish("a was disabled")).then()
    talk.when(FromNode(FIND_PENDING[-3:] + FIND_PENDING)).then(ToClient(FIND_PENDING[-3:] + FIND_PENDING))
    talk.when(FromNode(FIND_RSP)).then(ToClient(FIND_RSP), *BOTH_TOLD, Ends("disabled"))


def test_disabled_within_a_release_it_lets_the_release_end() -> None:
    talk = associated()
    talk.when(FromClient(RELEASE_RQ)).then(ToNode(RELEASE_RQ))
    talk.when(Finish("a was disabled")).then()
    talk.when(FromNode(RELEASE_RP)).then(
        ToClient(RELEASE_RP), CloseNode(), StartTimer(ARTIM), Ends("released", "by the client")
    )


def test_disabled_a_client_that_releases_by_itself_is_released() -> None:
    talk = associated()
    talk.when(FromClient(ECHO_RQ)).then(ToNode(ECHO_RQ))
    talk.when(Finish("a was disabled")).then()
    talk.when(FromClient(RELEASE_RQ)).then(ToNode(RELEASE_RQ))
    talk.when(FromNode(ECHO_RSP)).then(ToClient(ECHO_RSP))
    talk.when(FromNode(RELEASE_RP)).then(
        ToClient(RELEASE_RP), CloseNode(), StartTimer(ARTIM), Ends("released", "by the client")
    )


def test_a_drain_that_is_over_aborts_both_sides() -> None:
    associated().when(Abort("drain_timeout is over")).then(*BOTH_TOLD, Ends("drained", "drain_timeout is over"))


def test_a_drain_that_is_over_completes_nothing() -> None:
    storing(associated()).when(Abort("over")).then(ToClient(ABORT), StartTimer(ARTIM), CloseNode(), Ends("drained"))
    receiving().when(Abort("over")).then(CloseClient(), ToNode(ABORT), CloseNode(linger=True), Ends("drained"))


# Silence


def test_an_idle_association_ends_after_its_time() -> None:
    talk = associated(idle_timeout_s=100)
    talk.when(FromClient(ECHO_RQ), at=10).then(ToNode(ECHO_RQ))
    talk.when(FromNode(ECHO_RSP), at=50).then(ToClient(ECHO_RSP))
    talk.when(TimerExpired(), at=60).then(StartTimer(STALL))
    talk.when(TimerExpired(), at=120).then(StartTimer(30))
    talk.when(TimerExpired(), at=150).then(*BOTH_TOLD, Ends("timed_out", "idle for 100 s"))


def test_idle_between_messages_is_no_stall() -> None:
    talk = associated()
    talk.when(FromClient(STORE_RQ)).then(ToNode(STORE_RQ))  # the modality thinks before it sends the data
    for minute in range(1, 60):
        talk.when(TimerExpired(), at=60 * minute).then(StartTimer(STALL))
    talk.when(TimerExpired(), at=IDLE).then(*BOTH_TOLD, Ends("timed_out", "idle for 3600 s"))


def test_a_client_that_stops_within_a_pdu() -> None:
    talk = storing(associated())
    talk.when(TimerExpired(), at=60).then(StartTimer(STALL))
    talk.when(TimerExpired(), at=120).then(
        ToClient(ABORT), StartTimer(ARTIM), CloseNode(), Ends("timed_out", "the client left a PDU unfinished for 60 s")
    )


def test_a_client_that_sends_a_byte_a_second_within_a_pdu() -> None:
    talk = storing(associated())
    for second in range(1, 60):
        byte = STORE_DATA[499 + second : 500 + second]
        talk.when(FromClient(byte), at=second).then(ToNode(byte))
    talk.when(TimerExpired(), at=60).then(StartTimer(STALL))
    talk.when(FromClient(STORE_DATA[559:600]), at=61).then(ToNode(STORE_DATA[559:600]))
    talk.when(TimerExpired(), at=120).then(
        ToClient(ABORT), StartTimer(ARTIM), CloseNode(), Ends("timed_out", "the client left a PDU")
    )


def test_a_node_that_stops_within_a_pdu() -> None:
    talk = receiving()
    talk.when(TimerExpired(), at=60).then(StartTimer(STALL))
    talk.when(TimerExpired(), at=120).then(
        Blames("slow", "C-FIND not answered in 120.0 s"),
        CloseClient(),
        ToNode(ABORT),
        CloseNode(linger=True),
        Ends("timed_out", "the node left a PDU"),
    )


def test_a_slow_sender_that_gets_on_is_no_stall() -> None:
    talk = storing(associated())
    for minute in range(1, 10):
        piece = STORE_DATA[500:] + STORE_DATA[:500]
        talk.when(FromClient(piece), at=60 * minute - 1).then(ToNode(piece))
        talk.when(TimerExpired(), at=60 * minute).then(StartTimer(STALL))


def test_a_stall_is_a_matter_of_time_not_of_looks() -> None:
    talk = storing(associated(idle_timeout_s=10.0))
    for second in range(9, 60, 9):  # a byte now and then: never idle, and each look comes sooner than the stall timeout
        byte = STORE_DATA[499 + second : 500 + second]
        talk.when(FromClient(byte), at=second).then(ToNode(byte))
        talk.when(TimerExpired(), at=second + 1).then(StartTimer(9.0))
    talk.when(FromClient(b"x"), at=63).then(ToNode(b"x"))
    talk.when(TimerExpired(), at=71).then(
        ToClient(ABORT), StartTimer(ARTIM), CloseNode(), Ends("timed_out", "the client left a PDU unfinished for 60 s")
    )


def test_a_request_to_release_that_nobody_answers() -> None:
    talk = associated()
    talk.when(FromClient(RELEASE_RQ)).then(ToNode(RELEASE_RQ))
    talk.when(TimerExpired(), at=60).then(StartTimer(STALL))
    talk.when(TimerExpired(), at=120).then(*BOTH_TOLD, Ends("timed_out", "an A-RELEASE-RQ was not answered for 60 s"))


@pytest.mark.parametrize(("client", "side"), [(True, "the client took no bytes"), (False, "the node took no bytes")])
def test_a_peer_that_never_reads(client: bool, side: str) -> None:
    blamed = [] if client else [Blames("slow", side)]
    associated().when(WriteStalled(client)).then(*blamed, *BOTH_TOLD, Ends("timed_out", side))


# Events that come too late, or twice


@pytest.mark.parametrize(
    "late", [NodePicked("b", 0), NoNode(limit=False, reason="x"), NodeOpened(), NodeFailed("connection refused")]
)
def test_an_association_that_stands_has_its_node(late: Event) -> None:
    talk = associated()
    talk.when(late).then()
    talk.when(FromClient(ECHO_RQ)).then(ToNode(ECHO_RQ))


def test_each_side_is_held_to_its_own_length() -> None:
    """The client announced 16384 and the node 512: what goes to the client may be longer."""
    talk = asking()
    answer = AC.replace(bytes.fromhex("51000004 00004000"), bytes.fromhex("51000004 00000200"))
    talk.when(FromNode(answer)).then(ToClient(answer), StartTimer(STALL))
    talk.when(FromNode(STORE_RQ + STORE_LAST)).then(ToClient(STORE_RQ + STORE_LAST))
    talk.when(FromClient(STORE_RQ)).then(ToNode(STORE_RQ))
    talk.when(FromClient(STORE_LAST)).then(
        ToClient(INVALID), StartTimer(ARTIM), ToNode(ABORT), CloseNode(linger=True), Ends("client_error", "512 were")
    )

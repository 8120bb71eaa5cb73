"""From the client's connection to the node's answer: PS3.8 section 9.2, DESIGN "Set-up"."""

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
    OpenNode,
    PickNode,
    StartTimer,
    TimerExpired,
    ToClient,
    ToNode,
    WriteStalled,
)
from equipoise.proto.dicom.pdu import (
    REJECT_CALLED_AE,
    REJECT_CALLING_AE,
    REJECT_CONGESTION,
    REJECT_LIMIT,
    REJECT_NO_REASON,
    REJECT_VERSION,
    Reject,
)
from tests.playbook.playbook import Blames, Ends, Playbook
from tests.playbook.scene import (
    ABORT,
    AC,
    ARTIM,
    CONNECT,
    INVALID,
    POOL,
    RQ,
    SETUP,
    STALL,
    STORE_RQ,
    UNEXPECTED,
    UNRECOGNIZED,
    USER_ABORT,
    asking,
    associated,
    connecting,
    picking,
    relay,
    waiting,
    with_max_length,
)

BUSY = Reject(2, 3, 1)


def test_a_request_goes_to_the_node_and_its_answer_back() -> None:
    talk = waiting()
    talk.when(FromClient(RQ)).then(PickNode(POOL, "MODALITY", ()))
    talk.when(NodePicked("a", 1)).then(OpenNode(), StartTimer(CONNECT))
    talk.when(NodeOpened()).then(ToNode(RQ), StartTimer(SETUP / 2))
    talk.when(FromNode(AC)).then(ToClient(AC), StartTimer(STALL))


def test_a_request_may_come_a_byte_at_a_time_and_so_may_the_answer() -> None:
    talk = waiting()
    for at in range(len(RQ) - 1):
        talk.when(FromClient(RQ[at : at + 1])).then()
    talk.when(FromClient(RQ[-1:])).then(PickNode(POOL, "MODALITY", ()))
    talk.when(NodePicked("a", 0)).then(OpenNode(), StartTimer(CONNECT))
    talk.when(NodeOpened()).then(ToNode(RQ), StartTimer(SETUP))
    for at in range(len(AC) - 1):
        talk.when(FromNode(AC[at : at + 1])).then()
    talk.when(FromNode(AC[-1:])).then(ToClient(AC), StartTimer(STALL))


def test_titles_and_lengths_are_changed_where_they_must() -> None:
    talk = waiting(node_called_ae="PACS_A")
    talk.when(FromClient(with_max_length(RQ, 0))).then(PickNode(POOL, "MODALITY", ()))
    talk.when(NodePicked("a", 0)).then(OpenNode(), StartTimer(CONNECT))
    forwarded = with_max_length(RQ, 1 << 20).replace(b"ARCHIVE         ", b"PACS_A          ")
    talk.when(NodeOpened()).then(ToNode(forwarded), StartTimer(SETUP))
    answer = with_max_length(AC, 0).replace(b"ARCHIVE         ", b"PACS_A          ")
    talk.when(FromNode(answer)).then(ToClient(with_max_length(AC, 1 << 20)), StartTimer(STALL))


def test_what_the_node_sends_behind_its_answer_is_not_lost() -> None:
    talk = asking()
    talk.when(FromNode(AC + STORE_RQ)).then(ToClient(AC), StartTimer(STALL), ToClient(STORE_RQ))


# Clients that do not ask


def test_a_bare_connect_is_no_error() -> None:
    waiting().when(ClientClosed()).then(CloseClient(), Ends("no_request", "without a byte"))


def test_a_client_that_closes_in_its_request() -> None:
    talk = waiting()
    talk.when(FromClient(RQ[:100])).then()
    talk.when(ClientClosed()).then(CloseNode(), CloseClient(), Ends("client_closed", "after 100 bytes"))


def test_artim_ends_a_client_that_sends_nothing_without_an_abort() -> None:
    waiting().when(TimerExpired(), at=30).then(CloseClient(), Ends("timed_out", "within 30 s, only 0 bytes"))


def test_artim_ends_a_client_that_sends_a_byte_a_second() -> None:
    talk = waiting()
    for second in range(30):
        talk.when(FromClient(RQ[second : second + 1]), at=second).then()
    talk.when(TimerExpired(), at=30).then(CloseClient(), Ends("timed_out", "only 30 bytes"))


@pytest.mark.parametrize(
    ("first", "answer", "said"),
    [
        (b"G", UNRECOGNIZED, "0x47"),  # GET / HTTP/1.1
        (b"\x00", UNRECOGNIZED, "0x00"),
        (STORE_RQ[:1], UNEXPECTED, "P-DATA-TF before an association"),
        (AC, UNEXPECTED, "A-ASSOCIATE-AC before an association"),
        (bytes.fromhex("01 00 00020001"), INVALID, "A-ASSOCIATE-RQ of 131073 bytes, at most 131072"),
        (bytes.fromhex("01 00 ffffffff"), INVALID, "A-ASSOCIATE-RQ of 4294967295 bytes"),
        (bytes.fromhex("01 00 00000000"), INVALID, "fixed fields"),
        (RQ[:2] + bytes.fromhex("00000044") + RQ[6:74], INVALID, "without a presentation context"),
        (RQ.replace(bytes.fromhex("55 00 000f"), bytes.fromhex("55 00 0010")), INVALID, "overruns"),
        (RQ.replace(bytes.fromhex("55 00 000f"), bytes.fromhex("55 00 000e")), INVALID, "left over"),
    ],
)
def test_bytes_that_are_no_request_are_answered_with_their_reason(first: bytes, answer: bytes, said: str) -> None:
    talk = waiting()
    talk.when(FromClient(first)).then(ToClient(answer), CloseNode(), StartTimer(ARTIM), Ends("client_error", said))
    talk.when(FromClient(b"more")).then()
    talk.when(ClientClosed()).then(CloseClient())
    talk.when(TimerExpired()).then()


def test_a_client_that_aborts_before_its_request() -> None:
    waiting().when(FromClient(USER_ABORT)).then(CloseClient(), Ends("client_aborted", "by the service user"))


@pytest.mark.parametrize("event", [NodeClosed(), NodeOpened(), FromNode(AC), Finish("x"), WriteStalled(client=True)])
def test_a_client_without_request_has_no_node_to_hear_of(event: Event) -> None:
    waiting().when(event).then()


# Admission


@pytest.mark.parametrize(
    ("settings", "reject", "said"),
    [
        ({"called_ae_allow": ("PACS",)}, REJECT_CALLED_AE, "called AE 'ARCHIVE'"),
        ({"calling_ae_allow": ("CT*", "MR?")}, REJECT_CALLING_AE, "calling AE 'MODALITY'"),
        ({"allow_from": ("198.51.100.0/24",)}, REJECT_NO_REASON, "192.0.2.1"),
    ],
)
def test_who_may_not_associate_is_rejected_before_a_node_is_asked(
    settings: dict[str, object], reject: Reject, said: str
) -> None:
    talk = waiting(**settings)
    talk.when(FromClient(RQ)).then(ToClient(reject.encode()), CloseNode(), StartTimer(ARTIM), Ends("refused", said))
    talk.when(TimerExpired(), at=30).then(CloseClient())


@pytest.mark.parametrize(
    ("title", "reject"),
    [(b"ARCHIVE         ", REJECT_CALLED_AE), (b"MODALITY        ", REJECT_CALLING_AE)],
)
def test_a_title_of_spaces_is_none(title: bytes, reject: Reject) -> None:
    talk = waiting()
    request = RQ.replace(title, b" " * 16)
    talk.when(FromClient(request)).then(
        ToClient(reject.encode()), CloseNode(), StartTimer(ARTIM), Ends("refused", "is empty")
    )


def test_another_protocol_version_is_rejected_and_a_higher_bit_beside_the_first_is_not() -> None:
    talk = waiting()
    talk.when(FromClient(RQ[:6] + b"\x00\x02" + RQ[8:])).then(
        ToClient(REJECT_VERSION.encode()), CloseNode(), StartTimer(ARTIM), Ends("refused", "0x0002")
    )
    waiting().when(FromClient(RQ[:6] + b"\x00\x03" + RQ[8:])).then(PickNode(POOL, "MODALITY", ()))


def test_patterns_of_titles_let_in_whom_they_name() -> None:
    talk = waiting(called_ae_allow=("PACS", "ARCH*"), calling_ae_allow=("MODALIT?",))
    talk.when(FromClient(RQ)).then(PickNode(POOL, "MODALITY", ()))


# Nodes that fail: another is asked


def test_a_node_that_refuses_the_connection() -> None:
    talk = connecting()
    talk.when(NodeFailed("connection refused")).then(
        Blames("refused", "connection refused"), CloseNode(), PickNode(POOL, "MODALITY", ("a",))
    )
    talk.when(NodePicked("b", 0)).then(OpenNode(), StartTimer(CONNECT))
    talk.when(NodeOpened()).then(ToNode(RQ), StartTimer(SETUP))
    talk.when(FromNode(AC)).then(ToClient(AC), StartTimer(STALL))


def test_a_node_that_does_not_answer_the_connection() -> None:
    talk = connecting()
    talk.when(TimerExpired(), at=2).then(
        Blames("refused", "no connection"), CloseNode(), PickNode(POOL, "MODALITY", ("a",))
    )


def test_a_node_that_does_not_answer_the_request() -> None:
    talk = asking()
    talk.when(TimerExpired(), at=10).then(
        Blames("aborted", "no answer"), ToNode(ABORT), CloseNode(), PickNode(POOL, "MODALITY", ("a",))
    )
    talk.when(NodePicked("b", 0)).then(OpenNode(), StartTimer(CONNECT))
    talk.when(NodeOpened()).then(ToNode(RQ), StartTimer(SETUP - 10))


def test_a_node_that_closes_instead_of_answering() -> None:
    asking().when(NodeClosed()).then(Blames("aborted", "closed"), CloseNode(), PickNode(POOL, "MODALITY", ("a",)))


def test_a_node_that_aborts_is_not_answered() -> None:
    """PS3.8 table 9-10, A-ABORT in Sta5: AA-3, no PDU goes back."""
    asking().when(FromNode(USER_ABORT)).then(
        Blames("aborted", "by the service user"), CloseNode(), PickNode(POOL, "MODALITY", ("a",))
    )


def test_a_node_that_is_busy() -> None:
    asking().when(FromNode(BUSY.encode())).then(
        Blames("busy", "temporary congestion"), CloseNode(), PickNode(POOL, "MODALITY", ("a",))
    )


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        STORE_RQ,
        bytes.fromhex("02 00 ffffffff"),
        bytes.fromhex("02 00 00000000"),
        bytes.fromhex("03 00 00000003 000203"),
        AC.replace(bytes.fromhex("21 00 0019 01"), bytes.fromhex("21 00 0019 02")),
        AC.replace(bytes.fromhex("55 00 000f"), bytes.fromhex("55 00 0010")),
    ],
)
def test_a_node_that_answers_nonsense(nonsense: bytes) -> None:
    asking().when(FromNode(nonsense)).then(
        Blames("aborted"), ToNode(ABORT), CloseNode(), PickNode(POOL, "MODALITY", ("a",))
    )


def test_a_node_that_is_disabled_while_it_is_asked() -> None:
    asking().when(Finish("a was disabled")).then(
        ToNode(ABORT), CloseNode(linger=True), CloseNode(), PickNode(POOL, "MODALITY", ("a",))
    )
    connecting().when(Finish("a was disabled")).then(CloseNode(), CloseNode(), PickNode(POOL, "MODALITY", ("a",)))


def test_permanent_no_reason_is_tried_at_one_other_node_once() -> None:
    talk = asking()
    talk.when(FromNode(REJECT_NO_REASON.encode())).then(
        Blames("busy", "(1,1,1)"), CloseNode(), PickNode(POOL, "MODALITY", ("a",))
    )
    talk.when(NodePicked("b", 1)).then(OpenNode(), StartTimer(CONNECT))
    talk.when(NodeOpened()).then(ToNode(RQ), StartTimer(SETUP / 2))
    talk.when(FromNode(REJECT_NO_REASON.encode())).then(
        ToClient(REJECT_NO_REASON.encode()),
        CloseNode(),
        StartTimer(ARTIM),
        Ends("rejected", "b: rejected (1,1,1)", node="b", tried=("a", "b")),
    )


@pytest.mark.parametrize(
    "reject", [Reject(1, 1, 7), Reject(1, 1, 3), Reject(1, 1, 2), Reject(1, 2, 2), Reject(9, 9, 9)]
)
def test_another_permanent_reject_passes_through_as_it_is(reject: Reject) -> None:
    asking().when(FromNode(reject.encode())).then(
        ToClient(reject.encode()), CloseNode(), StartTimer(ARTIM), Ends("rejected", str(reject), node="a")
    )


# No node is left


def test_the_last_reject_is_what_the_client_hears() -> None:
    talk = asking()
    talk.when(FromNode(Reject(2, 1, 1).encode())).then(Blames("busy"), CloseNode(), PickNode(POOL, "MODALITY", ("a",)))
    talk.when(NodePicked("b", 0)).then(OpenNode(), StartTimer(CONNECT))
    talk.when(NodeFailed("refused")).then(Blames("refused"), CloseNode(), PickNode(POOL, "MODALITY", ("a", "b")))
    talk.when(NoNode(limit=False, reason="a tried, b tried")).then(
        ToClient(Reject(2, 1, 1).encode()),
        CloseNode(),
        StartTimer(ARTIM),
        Ends("rejected", "tried last: b: refused", tried=("a", "b")),
    )


def test_without_any_answer_it_hears_that_there_is_congestion() -> None:
    talk = connecting(alternatives=0)
    talk.when(NodeFailed("refused")).then(Blames("refused"), CloseNode(), PickNode(POOL, "MODALITY", ("a",)))
    talk.when(NoNode(limit=False, reason="a tried")).then(
        ToClient(REJECT_CONGESTION.encode()), CloseNode(), StartTimer(ARTIM), Ends("no_node", "a: refused")
    )


def test_all_nodes_down_is_congestion_and_a_limit_of_ours_is_a_limit() -> None:
    picking().when(NoNode(limit=False, reason="a is down")).then(
        ToClient(REJECT_CONGESTION.encode()), CloseNode(), StartTimer(ARTIM), Ends("no_node", "a is down")
    )
    picking().when(NoNode(limit=True, reason="max_connections, 5")).then(
        ToClient(REJECT_LIMIT.encode()), CloseNode(), StartTimer(ARTIM), Ends("no_node", "max_connections, 5")
    )


def test_when_the_time_is_over_no_further_node_is_asked() -> None:
    talk = asking(alternatives=5)
    talk.when(NodeClosed(), at=20).then(
        Blames("aborted"),
        CloseNode(),
        ToClient(REJECT_CONGESTION.encode()),
        CloseNode(),
        StartTimer(ARTIM),
        Ends("no_node", "took too long"),
    )


def test_nodes_share_the_time_fairly_connecting_included() -> None:
    talk = picking(connect_timeout_s=SETUP)
    talk.when(NodePicked("a", 3)).then(OpenNode(), StartTimer(5))
    talk.when(NodeOpened(), at=3).then(ToNode(RQ), StartTimer(2))
    talk.when(TimerExpired(), at=5).then(
        Blames("aborted"), ToNode(ABORT), CloseNode(), PickNode(POOL, "MODALITY", ("a",))
    )
    talk.when(NodePicked("b", 2)).then(OpenNode(), StartTimer(5))
    talk.when(TimerExpired(), at=10).then(Blames("refused"), CloseNode(), PickNode(POOL, "MODALITY", ("a", "b")))
    talk.when(NodePicked("c", 0)).then(OpenNode(), StartTimer(10))


def test_time_spent_in_the_queue_is_set_up_time_and_not_held_against_the_node() -> None:
    talk = picking()
    talk.when(NodePicked("a", 1), at=19).then(OpenNode(), StartTimer(0.5))
    talk.when(TimerExpired(), at=19.5).then(CloseNode(), PickNode(POOL, "MODALITY", ("a",)))
    talk.when(NodePicked("b", 0)).then(OpenNode(), StartTimer(0.5))
    talk.when(NodeOpened()).then(ToNode(RQ), StartTimer(0.5))
    talk.when(TimerExpired(), at=20).then(
        ToNode(ABORT),
        CloseNode(),
        ToClient(REJECT_CONGESTION.encode()),
        CloseNode(),
        StartTimer(ARTIM),
        Ends("no_node", "took too long"),
    )


def test_a_connection_that_this_machine_could_not_make_is_not_held_against_the_node() -> None:
    talk = connecting()
    talk.when(NodeFailed("too many open files", ours=True)).then(CloseNode(), PickNode(POOL, "MODALITY", ("a",)))


def test_a_node_that_fails_after_another_one_did_is_blamed_too() -> None:
    talk = connecting(alternatives=2)
    talk.when(NodeFailed("refused")).then(Blames("refused"), CloseNode(), PickNode(POOL, "MODALITY", ("a",)))
    talk.when(NodePicked("b", 1)).then(OpenNode(), StartTimer(CONNECT))
    talk.when(NodeOpened()).then(ToNode(RQ), StartTimer(SETUP / 2))
    talk.when(FromNode(BUSY.encode())).then(Blames("busy"), CloseNode(), PickNode(POOL, "MODALITY", ("a", "b")))


# The client does not wait


def in_set_up(state: str) -> tuple[Playbook, tuple[Command, ...]]:
    """Return a conversation in that state, and how its node is left."""
    match state:
        case "picking":
            return picking(), (CloseNode(),)
        case "connecting":
            return connecting(), (CloseNode(),)
    return asking(), (ToNode(ABORT), CloseNode(linger=True))


STATES = ["picking", "connecting", "asking"]


@pytest.mark.parametrize("state", STATES)
def test_a_client_that_closes_before_it_has_an_answer(state: str) -> None:
    talk, left = in_set_up(state)
    talk.when(ClientClosed()).then(*left, CloseClient(), Ends("client_closed", "before the association was accepted"))


@pytest.mark.parametrize("state", STATES)
def test_a_client_that_aborts_before_it_has_an_answer(state: str) -> None:
    talk, left = in_set_up(state)
    talk.when(FromClient(USER_ABORT[:4])).then()
    talk.when(FromClient(USER_ABORT[4:])).then(*left, CloseClient(), Ends("client_aborted"))


@pytest.mark.parametrize("state", STATES)
def test_a_client_that_sends_data_before_it_has_an_answer(state: str) -> None:
    talk, left = in_set_up(state)
    talk.when(FromClient(STORE_RQ)).then(
        ToClient(UNEXPECTED),
        *left,
        StartTimer(ARTIM),
        Ends("client_error", "P-DATA-TF before the association was accepted"),
    )


def test_a_client_that_sends_data_with_its_request() -> None:
    waiting().when(FromClient(RQ + STORE_RQ)).then(
        ToClient(UNEXPECTED), CloseNode(), StartTimer(ARTIM), Ends("client_error", "P-DATA-TF before")
    )


def test_a_client_that_aborts_with_its_request() -> None:
    waiting().when(FromClient(RQ + USER_ABORT)).then(CloseNode(), CloseClient(), Ends("client_aborted"))


@pytest.mark.parametrize("state", STATES)
def test_a_drain_that_is_over_aborts(state: str) -> None:
    talk, left = in_set_up(state)
    talk.when(Abort("drain_timeout is over")).then(
        ToClient(ABORT),
        *left,
        StartTimer(ARTIM),
        Ends("drained", "drain_timeout is over"),
    )


# Late events


@pytest.mark.parametrize(
    "late", [FromNode(AC), NodeClosed(), NodeOpened(), NodeFailed("x"), TimerExpired(), WriteStalled(client=False)]
)
def test_while_a_node_is_picked_nothing_of_the_last_one_matters(late: Event) -> None:
    talk = asking()
    talk.when(NodeClosed()).then(Blames("aborted"), CloseNode(), PickNode(POOL, "MODALITY", ("a",)))
    talk.when(late).then()


LATE: list[Event] = [
    FromClient(RQ),
    FromClient(b"\xff"),
    FromNode(AC),
    NodeClosed(),
    NodePicked("b", 0),
    NoNode(limit=False, reason="x"),
    NodeOpened(),
    NodeFailed("x"),
    WriteStalled(client=True),
    WriteStalled(client=False),
    Finish("x"),
    Abort("x"),
]


@pytest.mark.parametrize("late", LATE)
def test_after_a_reject_only_the_clients_close_is_awaited(late: Event) -> None:
    talk = picking()
    talk.when(NoNode(limit=True, reason="full")).then(
        ToClient(REJECT_LIMIT.encode()), CloseNode(), StartTimer(ARTIM), Ends("no_node")
    )
    talk.when(late).then()
    talk.when(TimerExpired(), at=30).then(CloseClient())
    talk.when(late).then()
    talk.when(ClientClosed()).then()


@pytest.mark.parametrize("late", [*LATE, ClientClosed(), TimerExpired()])
def test_after_the_end_nothing_is_done(late: Event) -> None:
    talk = associated()
    talk.when(ClientClosed()).then(ToNode(ABORT), CloseNode(linger=True), CloseClient(), Ends("client_closed"))
    talk.when(late).then()


def test_a_view_of_the_drivers_buffer_is_not_kept() -> None:
    buffer = bytearray(RQ)
    one = relay()
    one.handle(FromClient(memoryview(buffer)[:100]), 0)
    buffer[:100] = bytes(100)
    assert one.handle(FromClient(memoryview(buffer)[100:]), 0) == [PickNode(POOL, "MODALITY", ())]

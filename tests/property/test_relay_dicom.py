"""Whatever happens, in whatever order, the relay answers, ends once, and lets no byte of its own into a peer's PDU."""

from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from equipoise.engines.gateway.admission import Door
from equipoise.engines.gateway.relay import (
    Abort,
    Blame,
    ClientClosed,
    CloseClient,
    Command,
    Ended,
    Event,
    Finish,
    FromClient,
    FromNode,
    NodeClosed,
    NodeFailed,
    NodeOpened,
    NodePicked,
    NoNode,
    PickNode,
    TimerExpired,
    ToClient,
    ToNode,
    WriteStalled,
)
from equipoise.engines.gateway.relay_dicom import DicomRelay
from equipoise.proto.dicom.pdu import RELEASE_RP, RELEASE_RQ, Reject
from tests.playbook.scene import (
    AC,
    ECHO_RQ,
    ECHO_RSP,
    FIND_PENDING,
    FIND_RQ,
    FIND_RSP,
    RQ,
    SOURCE,
    STORE_DATA,
    STORE_LAST,
    STORE_RQ,
    STORE_RSP,
    USER_ABORT,
    route,
    task,
)

CLIENT_PDUS = (RQ, STORE_RQ, STORE_DATA, STORE_LAST, ECHO_RQ, FIND_RQ, RELEASE_RQ, RELEASE_RP, USER_ABORT)
REJECTS = tuple(Reject(*values).encode() for values in ((1, 1, 1), (2, 3, 1), (1, 1, 7)))
NODE_PDUS = (AC, STORE_RSP, ECHO_RSP, FIND_PENDING, FIND_RSP, RELEASE_RQ, RELEASE_RP, USER_ABORT, *REJECTS)
CLIENT_BYTES = st.sampled_from(CLIENT_PDUS) | st.builds(
    lambda pdu, cut: pdu[:cut], st.sampled_from(CLIENT_PDUS), st.integers(0, 300)
)
NODE_BYTES = st.sampled_from(NODE_PDUS) | st.builds(
    lambda pdu, cut: pdu[:cut], st.sampled_from(NODE_PDUS), st.integers(0, 300)
)
REASON = st.just("said")
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(FromClient, CLIENT_BYTES | st.binary(max_size=20)),
    st.builds(FromNode, NODE_BYTES | st.binary(max_size=20)),
    st.builds(FromClient, CLIENT_BYTES),
    st.builds(FromNode, NODE_BYTES),
    st.builds(NodePicked, st.sampled_from("abc"), st.integers(0, 3)),
    st.just(NodeOpened()),
    st.builds(NodeFailed, REASON),
    st.builds(NoNode, st.booleans(), REASON),
    st.just(ClientClosed()),
    st.just(NodeClosed()),
    st.just(TimerExpired()),
    st.builds(WriteStalled, st.booleans()),
    st.builds(Finish, REASON),
    st.builds(Abort, REASON),
)
SET_UP: list[Event] = [FromClient(RQ), NodePicked("a", 1), NodeOpened(), FromNode(AC)]
ELSEWHERE = task("elsewhere", node_called_ae="OTHER")
DOORS = st.sampled_from(
    [
        Door.of(one, {"elsewhere": ELSEWHERE})
        for one in (
            task(),
            task(called_ae_allow=("PACS",)),
            task(node_called_ae="PACS"),
            task(routes=[route("elsewhere", called_ae="ARCH*")]),
            task(routes=[route("elsewhere", service=("store",))], nodes=""),
        )
    ]
)
PACES = st.sampled_from([0.0, 0.5, 25.0])


def play(relay: DicomRelay, events: Sequence[Event], pace_s: float) -> list[list[Command]]:
    return [relay.start(), *(relay.handle(event, place * pace_s) for place, event in enumerate(events))]


def blames_by_node(commands: list[Command]) -> list[list[Blame]]:
    """Return what was said against each node that was picked; before the first there is nobody to blame."""
    picked: list[list[Blame]] = []
    for command in commands:
        if isinstance(command, PickNode):
            picked.append([])
        elif isinstance(command, Blame):
            picked[-1].append(command)
    return picked


@given(DOORS, st.integers(0, 4), st.lists(EVENTS, max_size=20), PACES)
def test_any_events_give_one_end_and_nothing_for_a_node_after_it(
    door: Door, done: int, events: list[Event], pace_s: float
) -> None:
    said = play(DicomRelay(door, SOURCE, 0), [*SET_UP[:done], *events, ClientClosed(), ClientClosed()], pace_s)
    commands = [command for answer in said for command in answer]
    ends = [place for place, command in enumerate(commands) if isinstance(command, Ended)]
    assert len(ends) == 1
    assert all(isinstance(command, CloseClient) for command in commands[ends[0] + 1 :])
    assert sum(isinstance(command, CloseClient) for command in commands) == 1
    assert all(len(blamed) <= 1 for blamed in blames_by_node(commands))
    assert said[-1] == []


@st.composite
def conversations(draw: st.DrawFn) -> list[Event]:
    """Both directions, cut anywhere, then something that ends it."""
    client = b"".join(draw(st.lists(st.sampled_from((STORE_RQ + STORE_DATA + STORE_LAST, ECHO_RQ, FIND_RQ)))))
    node = b"".join(draw(st.lists(st.sampled_from((STORE_RSP, ECHO_RSP, FIND_PENDING, FIND_RSP)))))
    client, node = client[: draw(st.integers(0, len(client)))], node[: draw(st.integers(0, len(node)))]
    events: list[Event] = []
    while client or node:
        cut = draw(st.integers(1, 1500))
        if client and (not node or draw(st.booleans())):
            events.append(FromClient(client[:cut]))
            client = client[cut:]
        else:
            events.append(FromNode(node[:cut]))
            node = node[cut:]
    wrong = draw(st.sampled_from([b"\xff", RQ, STORE_DATA[7:] + b"\xff" * 30]))
    endings: list[Event] = [FromClient(wrong), FromNode(wrong), FromClient(USER_ABORT), FromNode(USER_ABORT)]
    endings += [ClientClosed(), NodeClosed(), Abort("x"), Finish("x"), WriteStalled(client=True)]
    return [*events, draw(st.sampled_from(endings))]


def sent(events: list[Event], kind: type[FromClient] | type[FromNode]) -> bytes:
    return b"".join(bytes(event.data) for event in events if isinstance(event, kind))


def passed(commands: list[Command], kind: type[ToClient] | type[ToNode]) -> bytes:
    return b"".join(bytes(command.data) for command in commands if isinstance(command, kind))


def ends_of_pdus(wire: bytes) -> set[int]:
    ends, at = {0}, 0
    while at + 6 <= len(wire):
        at += 6 + int.from_bytes(wire[at + 2 : at + 6], "big")
        ends.add(at)
    return ends


@given(conversations())
@example([FromClient(STORE_RQ + STORE_LAST[:-10]), ClientClosed()])
@example([FromClient(STORE_RQ + STORE_LAST[:-10]), Abort("drained")])
@example([FromNode(FIND_PENDING[:-10]), FromClient(b"\xff")])
def test_what_a_side_receives_was_sent_by_the_other_or_is_an_abort_between_pdus(events: list[Event]) -> None:
    relay = DicomRelay(Door.of(task(), {}), SOURCE, 0)
    play(relay, SET_UP, 0)
    commands = [command for event in events for command in relay.handle(event, 1)]
    pairs = (
        (sent(events, FromClient), passed(commands, ToNode)),
        (sent(events, FromNode), passed(commands, ToClient)),
    )
    for said, heard in pairs:
        if said.startswith(heard):
            continue
        own = heard[-10:]
        assert own.startswith(bytes.fromhex("07 00 00000004 0000 02"))
        assert said.startswith(heard[:-10])
        assert len(heard) - 10 in ends_of_pdus(said)

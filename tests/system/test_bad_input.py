"""Clients that do everything wrong: each gets what PS3.8 gives it and one event, and nobody else notices.

Nodes that do it are in `test_bad_nodes.py`, memory and crowds in `test_bad_crowds.py`, starts in `test_bad_starts.py`.
Answers: DICOM PS3.8 tables 9-10 (what in which state), 9-21 (rejects), 9-26 (aborts: 1 unrecognized PDU, 2 unexpected
PDU, 6 invalid PDU parameter value).
"""

import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from equipoise.proto.dicom.pdu import RELEASE_RP, RELEASE_RQ, Pdu, PduType
from tests.property.dicom_streams import command_set, element, p_data, pdv
from tests.system.balancer import eventually
from tests.system.hostile import HostileSite
from tests.system.rawpeer import (
    ECHO,
    ECHO_RQ,
    ECHO_RSP,
    MAX_LENGTH,
    STORAGE,
    STORE_COMMAND,
    STORE_DATA,
    STORE_RQ,
    NodeSide,
    RawClient,
    abort,
    item,
    reject,
)

UNRECOGNIZED, UNEXPECTED, INVALID = (abort(2, reason) for reason in (1, 2, 6))
OTHER_SIDE = abort(2, 0)  # what the peer of a side that is gone or wrong is told
WRONG_TYPES = (0x00, 0x08, 0x47, 0xFF)  # 0x47 is the G of a web browser's GET
LENGTHS = (0, 5, 0xFFFFFFFF)
SHORT_S = 1.0  # artim and stall_timeout here
LATEST_S = 8.0  # when they must have worked on a busy machine; a request or an object byte by byte takes longer


def slow_to_accept(side: NodeSide) -> None:
    side.pdu()  # the balancer's abort, or nothing


def never_answers(side: NodeSide) -> None:
    side.accept()
    while (found := side.pdu()) is not None:
        if found.type is not PduType.DATA_TF:
            side.visit.control.append(found)
        if found.type is PduType.ABORT:
            return


def floods(side: NodeSide) -> None:
    side.accept()
    side.pdu()
    side.send(STORE_COMMAND)
    while True:
        side.send(STORE_DATA)


def never_reads(side: NodeSide) -> None:
    side.sock.setsockopt(1, 8, 4096)  # SOL_SOCKET, SO_RCVBUF
    side.accept()
    side.hold()


def rejects(side: NodeSide) -> None:
    side.send(reject(1, 1, 2).encode())
    side.pdu()


@pytest.fixture(scope="module")
def site() -> Iterator[HostileSite]:
    manners = {
        "SLOW": slow_to_accept,
        "SILENT": never_answers,
        "FLOOD": floods,
        "DEAF": never_reads,
        "REJECT": rejects,
    }
    with HostileSite(manners) as found:
        yield found
        found.settled()


@pytest.fixture(autouse=True)
def others_go_on(site: HostileSite) -> Iterator[None]:
    with site.unharmed():
        yield


def header(kind: int, length: int) -> bytes:
    return struct.pack(">BxI", kind, length)


def told(site: HostileSite, client: RawClient, expected: Pdu | None, ended: str, *words: str) -> None:
    """Hold that the client hears `expected`, or just the end, and that its one event says so."""
    assert client.farewell() == expected
    client.close()
    event = site.ended(client)
    assert event["ended"] == ended, event
    for word in words:
        assert word in event["reason"], event


def titled(site: HostileSite, client: RawClient) -> None:
    event = site.ended(client)
    assert (event["calling_ae"], event["called_ae"]) == (client.calling, client.called)


# Before there is an association


@pytest.mark.parametrize("kind", WRONG_TYPES)
@pytest.mark.parametrize("whole_header", [False, True])
def test_a_wrong_first_byte(site: HostileSite, kind: int, whole_header: bool) -> None:
    client = site.caller()
    client.send(header(kind, 4) if whole_header else bytes([kind]))
    told(site, client, UNRECOGNIZED, "client_error", f"0x{kind:02X}")


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", [2, 3, 4, 5, 6])
def test_a_pdu_that_cannot_come_first(site: HostileSite, kind: int, length: int) -> None:
    client = site.caller()
    client.send(header(kind, length) + b"x" * min(length, 5))
    told(site, client, UNEXPECTED, "client_error", PduType(kind).label, "before an association")


@pytest.mark.parametrize(("length", "words"), [(0, "0 bytes"), (5, "5 bytes"), (0xFFFFFFFF, "4294967295 bytes")])
def test_a_request_with_a_wrong_length(site: HostileSite, length: int, words: str) -> None:
    client = site.caller()
    client.send(header(1, length) + b"x" * min(length, 5))
    told(site, client, INVALID, "client_error", "A-ASSOCIATE-RQ", words)


@pytest.mark.parametrize("length", [0, 4, 5])
def test_an_abort_before_the_association_is_not_answered(site: HostileSite, length: int) -> None:
    client = site.caller()
    client.send(header(7, length) + bytes(length))
    told(site, client, None, "client_aborted", "A-ABORT")


def test_an_abort_of_4_gib_before_the_association(site: HostileSite) -> None:
    client = site.caller()
    client.send(header(7, 0xFFFFFFFF))
    told(site, client, INVALID, "client_error", "4294967295")


def test_data_behind_the_request_in_one_write(site: HostileSite) -> None:
    client = site.caller("SLOW")
    client.send(client.request() + ECHO_RQ)
    told(site, client, UNEXPECTED, "client_error", "P-DATA-TF before the association was accepted")
    titled(site, client)
    assert client.calling not in site.node.visits  # it was answered before a node was asked


@pytest.mark.parametrize("early", [ECHO_RQ, RELEASE_RQ, RELEASE_RP, header(1, 200), header(2, 200), header(3, 4)])
def test_anything_but_an_abort_while_the_node_is_asked(site: HostileSite, early: bytes) -> None:
    client = site.caller("SLOW")
    client.send(client.request())
    site.node.called_by(client.calling)
    client.send(early)
    told(site, client, UNEXPECTED, "client_error", PduType(early[0]).label, "before the association was accepted")
    titled(site, client)
    site.node.visit(client.calling)


def test_an_abort_while_the_node_is_asked(site: HostileSite) -> None:
    client = site.caller("SLOW")
    client.send(client.request())
    site.node.called_by(client.calling)
    client.send(abort(0, 0).encode())
    told(site, client, None, "client_aborted", "A-ABORT by the service user")
    site.node.visit(client.calling)


# The request


def with_items(client: RawClient, items: bytes) -> bytes:
    return Pdu(PduType.ASSOCIATE_RQ, client.request()[6:74] + items).encode()


def context(number: int, abstract: bytes = b"1.2.840.10008.1.1", transfer: bytes = b"1.2.840.10008.1.2") -> bytes:
    return item(0x20, bytes([number, 0, 0, 0]) + item(0x30, abstract) + item(0x40, transfer))


USER = item(0x50, item(0x51, struct.pack(">I", MAX_LENGTH)))


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (context(1) + context(1) + USER, "id 1 is proposed twice"),
        (context(2) + USER, "id 2 is even"),
        (context(0) + USER, "id 0 is even"),
        (USER, "without a presentation context"),
        (b"", "without a presentation context"),
        (context(1) + b"\x50\x00\x00\x09abcd", "overruns what holds it by 5"),
        (context(1) + b"\x50\x00\xff\xff", "overruns what holds it by 65535"),
        (context(1) + USER + b"\x50\x00", "2 bytes left over"),
        (context(1) + item(0x50, b"\x51\x00\x00\x05\x00\x00\x40\x00"), "overruns what holds it by 1"),
        (context(1) + item(0x50, b"\x51"), "1 bytes left over"),
        (context(1) + item(0x50, item(0x51, b"\x40\x00")), "maximum length item of 2 bytes"),
        (item(0x20, b"\x01\x00\x00"), "presentation context of 3 bytes"),
        (item(0x20, b"\x01\x00\x00\x00"), "has 0 abstract and 0 transfer syntaxes"),
        (item(0x20, b"\x01\x00\x00\x00" + item(0x30, b"1.2")), "1 abstract and 0 transfer"),
        (item(0x20, b"\x01\x00\x00\x00\x30\x00\x00\x09" + b"1.2") + USER, "overruns what holds it by 6"),
    ],
)
def test_a_request_whose_items_are_wrong(site: HostileSite, items: bytes, words: str) -> None:
    client = site.caller()
    client.send(with_items(client, items))
    told(site, client, INVALID, "client_error", words)
    assert client.calling not in site.node.visits


def test_a_request_just_over_its_bound_is_refused_from_its_header(site: HostileSite) -> None:
    client = site.caller()
    client.send(header(1, 128 * 1024 + 1))
    told(site, client, INVALID, "client_error", "131073 bytes, at most 131072")


def test_a_request_at_its_bound_is_served(site: HostileSite) -> None:
    client = site.caller()
    room = 128 * 1024 - 68 - len(context(1)) - 4 * 4
    filled = item(0x50, b"") + item(0xF0, bytes(60_000)) * 2 + item(0xF0, bytes(room - 120_000))
    client.send(with_items(client, context(1) + filled))
    found = client.pdu()
    assert found is not None
    assert found.type is PduType.ASSOCIATE_AC
    client.release()
    assert site.ended(client)["ended"] == "released"


@pytest.mark.parametrize(
    ("place", "value", "expected", "words"),
    [
        (slice(6, 8), b"\0\2", reject(1, 2, 2), "version"),
        (slice(10, 26), b" " * 16, reject(1, 1, 7), "called AE"),
        (slice(26, 42), b"\0" * 16, reject(1, 1, 3), "calling AE"),
    ],
)
def test_a_request_that_is_well_formed_and_refused(
    site: HostileSite, place: slice, value: bytes, expected: Pdu, words: str
) -> None:
    client = site.caller()
    request = bytearray(client.request())
    request[place] = value
    client.send(bytes(request))
    told(site, client, expected, "refused", words)


def test_a_request_cut_anywhere_and_closed(site: HostileSite) -> None:
    clients: list[RawClient] = []
    while not clients or len(clients) < len(clients[0].request()):
        client = site.caller("CUT")
        client.send(client.request()[: len(clients)])
        client.half_close()
        assert client.rest() == b""
        clients.append(client)
    for end, client in enumerate(clients):
        event = site.ended(client)
        expected = ("client_closed", f"closed after {end} bytes") if end else ("no_request", "without a byte")
        assert event["ended"] == expected[0], event
        assert expected[1] in event["reason"], event


def test_a_request_cut_anywhere_and_then_silence(site: HostileSite) -> None:
    clients: list[RawClient] = []
    began_s = time.monotonic()
    while not clients or len(clients) < len(clients[0].request()):
        clients.append(site.caller("CUT"))
        clients[-1].send(clients[-1].request()[: len(clients) - 1])
    for end, client in enumerate(clients):
        assert client.rest() == b""  # AA-2: ARTIM ends it without a word
        event = site.ended(client)
        assert event["ended"] == "timed_out", event
        assert f"within 1 s, only {end} bytes" in event["reason"], event
        assert SHORT_S - 0.05 <= event["duration_s"] < LATEST_S
    assert time.monotonic() - began_s < 2 * LATEST_S  # not one after the other: there are some hundred


def test_a_request_at_a_byte_a_moment_has_no_more_time(site: HostileSite) -> None:
    client = site.caller()
    event = drip(site, client, client.request())
    assert event["ended"] == "timed_out", event
    assert event["duration_s"] < LATEST_S


def drip(site: HostileSite, client: RawClient, data: bytes) -> dict[str, Any]:
    """Send a byte every 50 ms until the balancer has had enough; return how it ended."""
    for place in range(len(data)):
        try:
            client.send(data[place : place + 1])
        except OSError:
            break
        time.sleep(0.05)
        site.log.read()
        if any(event["client"] == client.address for event in site.log.ended):
            break
    client.close()
    return site.ended(client)


def test_a_conversation_in_single_bytes_is_served(site: HostileSite) -> None:
    client = site.caller()

    def send(data: bytes) -> None:
        for place in range(len(data)):
            client.send(data[place : place + 1])

    send(client.request())
    found = client.pdu()
    assert found is not None
    assert found.type is PduType.ASSOCIATE_AC
    send(ECHO_RQ)
    found = client.pdu()
    assert found is not None
    assert found.encode() == ECHO_RSP
    send(RELEASE_RQ)
    assert client.pdu() == Pdu(PduType.RELEASE_RP, bytes(4))
    client.close()
    event = site.ended(client)
    assert (event["ended"], [row["count"] for row in event["messages"]]) == ("released", [1])


# Within an association

Wrong = tuple[bytes, Pdu, str]
LONG_COMMAND = command_set(0x0030, 1, data_set=False) + element(0x1000, bytes(65_400))
PIECES = [LONG_COMMAND[start : start + 16_000] for start in range(0, len(LONG_COMMAND), 16_000)]


def command(data: bytes) -> bytes:
    return p_data(pdv(ECHO, 3, data))


WITHIN: dict[str, Wrong] = {
    **{f"type {kind}": (bytes([kind]), UNRECOGNIZED, f"0x{kind:02X}") for kind in WRONG_TYPES},
    **{
        f"{PduType(kind).label} of {length}": (header(kind, length) + b"x" * min(length, 5), UNEXPECTED, "within")
        for kind in (1, 2, 3)
        for length in LENGTHS
    },
    **{
        f"{PduType(kind).label} of {length}": (header(kind, length) + b"x" * min(length, 5), INVALID, f"{length} bytes")
        for kind in (4, 5, 6, 7)
        for length in LENGTHS
    },
    "release response unasked": (RELEASE_RP, UNEXPECTED, "without an A-RELEASE-RQ"),
    "over the announced length": (header(4, MAX_LENGTH + 13), INVALID, "16384 were agreed"),
    "another context's command within a message": (
        STORE_COMMAND + ECHO_RQ,
        UNEXPECTED,
        "fragment of context 1 inside a message of context 3",
    ),
    "another context's data within a message": (
        STORE_COMMAND + p_data(pdv(ECHO, 0, b"x")),
        UNEXPECTED,
        "inside a message of context 3",
    ),
    "a command within data": (
        STORE_COMMAND + STORE_DATA + p_data(pdv(STORAGE, 3, STORE_RQ)),
        UNEXPECTED,
        "command fragment where a data fragment must come",
    ),
    "interleaved in one PDU": (
        p_data(pdv(STORAGE, 1, STORE_RQ[:20]), pdv(ECHO, 1, STORE_RQ[20:])),
        UNEXPECTED,
        "fragment of context 1 inside a message of context 3",
    ),
    "a context that was not accepted": (p_data(pdv(5, 3, STORE_RQ)), INVALID, "presentation context 5 was not"),
    "an even context": (p_data(pdv(2, 3, STORE_RQ)), INVALID, "presentation context 2 was not accepted"),
    "context 0": (p_data(pdv(0, 3, STORE_RQ)), INVALID, "presentation context 0 was not accepted"),
    "data before a command": (p_data(pdv(STORAGE, 0, b"x")), UNEXPECTED, "data fragment where a command"),
    "data within a command": (
        p_data(pdv(STORAGE, 1, STORE_RQ[:20])) + STORE_DATA,
        UNEXPECTED,
        "data fragment where a command",
    ),
    "a command over 64 KiB": (
        b"".join(p_data(pdv(ECHO, 1, piece)) for piece in PIECES) + p_data(pdv(ECHO, 1, bytes(100))),
        INVALID,
        "more than 65536 bytes",
    ),
    "a fragment of 1 byte": (header(4, 6) + struct.pack(">IBB", 1, 1, 3), INVALID, "fragment of 1 bytes"),
    "a fragment of 0 bytes": (header(4, 6) + struct.pack(">IBB", 0, 1, 3), INVALID, "fragment of 0 bytes"),
    "a fragment over its PDU": (header(4, 16) + struct.pack(">IBB", 13, 1, 3), INVALID, "13 bytes in a P-DATA-TF"),
    "a fragment of 4 GiB": (header(4, 16) + b"\xff" * 4 + b"\1\3", INVALID, "4294967295 bytes in a P-DATA-TF"),
    "bytes behind the last fragment": (
        header(4, 6 + len(STORE_RQ) + 3) + pdv(ECHO, 1, STORE_RQ) + b"xyz",
        INVALID,
        "3 bytes left over",
    ),
    "an empty command": (command(b""), INVALID, "without"),
    "a command of another group": (command(struct.pack("<HHI", 8, 0x18, 0)), INVALID, "(0008,0018)"),
    "a command element that overruns": (command(struct.pack("<HHI", 0, 2, 0xFFFFFFFF)), INVALID, "overrun"),
    "a command cut short": (command(STORE_RQ[:-1]), INVALID, "overrun"),
    "a command without a message id": (
        command(element(0x0100, b"\x30\0") + element(0x0800, b"\1\1")),
        INVALID,
        "without a message id",
    ),
    "65 requests without waiting": (
        b"".join(command(command_set(0x0030, number, data_set=False)) for number in range(65)),
        UNEXPECTED,
        "65 requests without a response",
    ),
}


@pytest.mark.parametrize("name", WITHIN)
def test_wrong_bytes_within_an_association(site: HostileSite, name: str) -> None:
    wrong, expected, words = WITHIN[name]
    client = site.caller("SILENT").associate()
    client.send(wrong)
    told(site, client, expected, "client_error", words)
    titled(site, client)
    assert site.node.visit(client.calling).control == [OTHER_SIDE]  # the node hears that its peer is gone


def test_a_pdu_of_the_announced_length_is_served(site: HostileSite) -> None:
    client = site.caller().associate()
    client.send(STORE_COMMAND + STORE_DATA + p_data(pdv(STORAGE, 2, b"end")))
    client.release()
    assert site.ended(client)["ended"] == "released"
    assert site.node.visit(client.calling).data_bytes > MAX_LENGTH


def test_a_side_that_was_aborted_and_does_not_close_is_closed(site: HostileSite) -> None:
    client = site.caller().associate()
    began_s = time.monotonic()
    client.send(RELEASE_RP)
    assert client.rest() == UNEXPECTED.encode()
    assert 0.9 * SHORT_S < time.monotonic() - began_s < LATEST_S
    client.close()


# Slow and silent


def test_a_sender_that_stops_within_a_pdu(site: HostileSite) -> None:
    ends = [1, 5, 6, 8, 12, 13, 1000, len(STORE_DATA) - 11, len(STORE_DATA) - 1]
    clients = [site.caller().associate() for _ in ends]
    for end, client in zip(ends, clients, strict=True):
        client.send(STORE_COMMAND + STORE_DATA[:end])
    for client in clients:
        told(site, client, OTHER_SIDE, "timed_out", "the client left a PDU unfinished for 1 s")
        titled(site, client)
        assert site.ended(client)["duration_s"] < LATEST_S


def test_a_byte_a_moment_within_a_pdu_is_no_progress(site: HostileSite) -> None:
    client = site.caller().associate()
    client.send(STORE_COMMAND)
    event = drip(site, client, STORE_DATA)
    assert event["ended"] == "timed_out", event
    assert "the client left a PDU unfinished" in event["reason"]
    assert event["duration_s"] < LATEST_S


def test_a_client_that_never_reads_is_ended_and_costs_no_memory(site: HostileSite) -> None:
    before = site.resident_bytes()
    client = site.caller("FLOOD", receive_bytes=4096).associate()
    client.send(ECHO_RQ)
    event = site.ended(client)
    assert event["ended"] == "timed_out", event
    assert "the client took no bytes for 1 s" in event["reason"], event
    assert event["duration_s"] < LATEST_S
    assert site.resident_bytes() - before < 4 << 20  # what 1 MiB of unread bytes costs, whatever the node sends
    site.node.visit(client.calling)
    client.close()


def test_a_node_that_never_reads_is_ended_and_costs_no_memory(site: HostileSite) -> None:
    before = site.resident_bytes()
    client = site.caller("DEAF").associate()
    with ThreadPoolExecutor(1) as pool:
        flood = pool.submit(_send_for_ever, client)
        event = site.ended(client)
        assert event["ended"] == "timed_out", event
        assert "the node took no bytes for 1 s" in event["reason"], event
        assert site.resident_bytes() - before < 4 << 20
        assert client.farewell() == OTHER_SIDE
        client.reset()
        flood.result(10)


def _send_for_ever(client: RawClient) -> None:
    try:
        client.send(STORE_COMMAND)
        while True:
            client.send(STORE_DATA)
    except OSError:
        return


# Clients that go, in every phase


def nothing_sent(client: RawClient) -> None:
    del client


def part_of_a_request(client: RawClient) -> None:
    client.send(client.request()[:50])


def whole_request(client: RawClient) -> None:
    client.called = "SLOW"
    client.send(client.request())


def established(client: RawClient) -> None:
    client.associate()


def within_a_pdu(client: RawClient) -> None:
    client.associate().send(STORE_COMMAND + STORE_DATA[:5000])


def within_a_header(client: RawClient) -> None:
    client.associate().send(STORE_COMMAND + STORE_DATA[:3])


def awaiting_a_response(client: RawClient) -> None:
    client.called = "SILENT"
    client.associate().send(ECHO_RQ)


def awaiting_the_release(client: RawClient) -> None:
    client.called = "SILENT"
    client.associate().send(RELEASE_RQ)


def not_reading(client: RawClient) -> None:
    client.called = "FLOOD"
    client.associate().send(ECHO_RQ)


def rejected(client: RawClient) -> None:
    client.called = "REJECT"
    client.send(client.request())
    assert client.pdu() == reject(1, 1, 2)


def aborted(client: RawClient) -> None:
    client.send(b"\xff")
    assert client.pdu() == UNRECOGNIZED


PHASES = [
    (nothing_sent, "no_request"),
    (part_of_a_request, "client_closed"),
    (whole_request, "client_closed"),
    (established, "client_closed"),
    (within_a_pdu, "client_closed"),
    (within_a_header, "client_closed"),
    (awaiting_a_response, "client_closed"),
    (awaiting_the_release, "client_closed"),
    (not_reading, "client_closed"),
    (rejected, "rejected"),
    (aborted, "client_error"),
]


@pytest.mark.parametrize(("phase", "ended"), PHASES)
@pytest.mark.parametrize("leave", ["reset", "half_close", "close"])
def test_a_client_that_goes(site: HostileSite, phase: Callable[[RawClient], None], ended: str, leave: str) -> None:
    client = site.caller(receive_bytes=16384)
    phase(client)
    site.seen()
    if phase is whole_request:
        site.node.called_by(client.calling)
    getattr(client, leave)()
    if leave == "half_close":
        client.rest()  # it is closed for good, not left half open
    event = site.ended(client)
    assert event["ended"] == ended, event
    assert event["reason"]
    if event["calling_ae"]:
        titled(site, client)
        site.node.visit(client.calling)  # the node's connection ends too


@pytest.mark.parametrize("leave", ["reset", "close"])
def test_a_client_that_goes_before_it_is_seen(site: HostileSite, leave: str) -> None:
    """Monitors probe like that.  Whose reset came before the accept has no address any more, but has its event."""
    site.log.read()
    before = len(site.log.ended)
    for _ in range(100):
        getattr(RawClient(site.port, "GOOD"), leave)()

    def look() -> bool:
        site.log.read()
        return len(site.log.ended) >= before + 100

    eventually(look, what="100 events")
    site.seen()
    site.log.read()
    seen = [event["ended"] for event in site.log.ended[before:]]
    del site.log.ended[before:]  # these clients are not in the account
    assert seen == ["no_request"] * 100, f"{len(seen)} events of 100 connections"


# What is cut is never mended


@pytest.mark.parametrize("missing", [1, 4, 10, 11])
@pytest.mark.parametrize("how", ["close", "reset", "stall"])
def test_an_object_that_was_cut_short_does_not_arrive_whole(site: HostileSite, missing: int, how: str) -> None:
    """An A-ABORT put into an unfinished PDU would be its last bytes: the node would store a damaged object."""
    client = site.caller().associate()
    last = p_data(pdv(STORAGE, 2, b"\x55" * 1000))
    client.send(STORE_COMMAND + last[:-missing])
    site.seen()
    if how != "stall":
        getattr(client, how)()
    visit = site.node.visit(client.calling)
    client.close()
    assert visit.data_bytes == len(STORE_COMMAND) - 6, "the node received the object's last PDU as whole"
    assert visit.tail == last[:-missing], f"the node received {visit.tail[-12:].hex()} as the object's last bytes"

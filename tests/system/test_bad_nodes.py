"""Nodes that do everything wrong: the client hears it properly, another node is asked where that may help.

Source: DICOM PS3.8 tables 9-10, 9-21, 9-26; DESIGN, "What the relays promise".
"""

import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from equipoise.proto.dicom.pdu import RELEASE_RP, RELEASE_RQ, Pdu, PduType
from tests.property.dicom_streams import p_data, pdv
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
    Manners,
    NodeSide,
    abort,
    answer,
    answer_body,
    item,
    reject,
)

CONGESTION = reject(2, 3, 1)
OTHER_SIDE = abort(2, 0)
UNRECOGNIZED, UNEXPECTED, INVALID = (abort(2, reason) for reason in (1, 2, 6))


def header(kind: int, length: int) -> bytes:
    return struct.pack(">BxI", kind, length)


def instead_of_an_answer(data: Callable[[NodeSide], bytes], *, close: bool = False) -> Manners:
    def manners(side: NodeSide) -> None:
        side.send(data(side))
        if not close:
            side.serve()

    return manners


def fixed(data: bytes) -> Callable[[NodeSide], bytes]:
    return lambda side: data


def whole(side: NodeSide) -> bytes:
    return answer(side.asked, {ECHO: 0, STORAGE: 0})


def with_items(items: bytes) -> Callable[[NodeSide], bytes]:
    return lambda side: Pdu(PduType.ASSOCIATE_AC, answer_body(side.asked, {ECHO: 0}) + items).encode()


def resets(side: NodeSide) -> None:
    side.reset()


# Title: what the node does instead of a good answer, and what the event says of it
ANSWERS: dict[str, tuple[Manners, str]] = {
    "CLOSES": (lambda side: None, "closed the connection before it answered"),
    "RESETS": (resets, "closed the connection before it answered"),
    "GARBAGE": (instead_of_an_answer(fixed(b"HTTP/1.1 400 Bad Request\r\n\r\n")), "PDU type 0x48"),
    "ZERO": (instead_of_an_answer(fixed(b"\0")), "PDU type 0x00"),
    "AC_0": (instead_of_an_answer(fixed(header(2, 0))), "A-ASSOCIATE-AC of 0 bytes"),
    "AC_5": (instead_of_an_answer(fixed(header(2, 5) + b"abcde")), "A-ASSOCIATE-AC of 5 bytes"),
    "AC_4GIB": (instead_of_an_answer(fixed(header(2, 0xFFFFFFFF))), "4294967295 bytes"),
    "AC_LONG": (instead_of_an_answer(fixed(header(2, 131073))), "131073 bytes, at most 131072"),
    "AC_OVERRUN": (instead_of_an_answer(with_items(b"\x21\x00\xff\xff")), "overruns what holds it by 65535"),
    "AC_REST": (instead_of_an_answer(with_items(b"\x21")), "1 bytes left over"),
    "AC_TWICE": (instead_of_an_answer(with_items(item(0x21, b"\1\0\0\0"))), "id 1 is answered twice"),
    "AC_EVEN": (instead_of_an_answer(with_items(item(0x21, b"\2\0\0\0"))), "id 2 is even"),
    "AC_CUT": (instead_of_an_answer(lambda side: whole(side)[:60], close=True), "closed the connection before"),
    "AC_HALF": (instead_of_an_answer(lambda side: whole(side)[:60]), "no answer to the A-ASSOCIATE-RQ in time"),
    "SILENT": (lambda side: side.serve(), "no answer to the A-ASSOCIATE-RQ in time"),
    "RQ": (instead_of_an_answer(fixed(header(1, 0))), "answered A-ASSOCIATE-RQ"),
    "DATA": (instead_of_an_answer(fixed(ECHO_RSP)), "answered P-DATA-TF"),
    "RELEASE_RQ": (instead_of_an_answer(fixed(RELEASE_RQ)), "answered A-RELEASE-RQ"),
    "RELEASE_RP": (instead_of_an_answer(fixed(RELEASE_RP)), "answered A-RELEASE-RP"),
    "RJ_3": (instead_of_an_answer(fixed(header(3, 3) + b"\0\1\1")), "A-ASSOCIATE-RJ of 3 bytes"),
    "ABORT": (instead_of_an_answer(fixed(abort(0, 0).encode())), "A-ABORT by the service user"),
    "ABORT_ODD": (instead_of_an_answer(fixed(abort(9, 200).encode())), "A-ABORT by the service source 9"),
    "ABORT_0": (instead_of_an_answer(fixed(header(7, 0))), "A-ABORT of 0 bytes"),
    "ABORT_40": (instead_of_an_answer(fixed(header(7, 40) + bytes(40))), "A-ABORT of 40 bytes"),
}


def in_the_conversation(data: bytes) -> Manners:
    def manners(side: NodeSide) -> None:
        side.accept()
        side.pdu()
        side.send(data)
        side.serve()

    return manners


# Title: what the node sends unasked within an association, what it hears, and what the event says
WITHIN: dict[str, tuple[bytes, Pdu, str]] = {
    "IN_GARBAGE": (b"\x0anything", UNRECOGNIZED, "0x0A"),
    "IN_RQ": (header(1, 300), UNEXPECTED, "A-ASSOCIATE-RQ within"),
    "IN_AC": (header(2, 300), UNEXPECTED, "A-ASSOCIATE-AC within"),
    "IN_RJ": (reject(1, 1, 1).encode(), UNEXPECTED, "A-ASSOCIATE-RJ within"),
    "IN_RP": (RELEASE_RP, UNEXPECTED, "A-RELEASE-RP without an A-RELEASE-RQ"),
    "IN_ABORT_0": (header(7, 0), INVALID, "A-ABORT of 0 bytes"),
    "IN_ABORT_5": (header(7, 5) + bytes(5), INVALID, "A-ABORT of 5 bytes"),
    "IN_ABORT_4G": (header(7, 0xFFFFFFFF), INVALID, "A-ABORT of 4294967295 bytes"),
    "IN_DATA_0": (header(4, 0), INVALID, "P-DATA-TF of 0 bytes"),
    "IN_DATA_5": (header(4, 5) + bytes(5), INVALID, "P-DATA-TF of 5 bytes"),
    "IN_DATA_4G": (header(4, 0xFFFFFFFF), INVALID, "4294967295 bytes, 16384 were agreed"),
    "IN_OVER": (header(4, MAX_LENGTH + 13), INVALID, "P-DATA-TF of 16397 bytes"),
    "IN_CONTEXT": (p_data(pdv(7, 3, STORE_RQ)), INVALID, "presentation context 7 was not accepted"),
    "IN_DATA": (p_data(pdv(STORAGE, 0, b"x")), UNEXPECTED, "data fragment where a command"),
}


def accepts_others(side: NodeSide) -> None:
    """Accept contexts that nobody proposed, and use one of them."""
    side.send(answer(side.asked, {ECHO: 0, 5: 0, 7: 0}))
    side.pdu()
    side.send(p_data(pdv(5, 3, STORE_RQ)))
    side.serve()


def accepts_none(side: NodeSide) -> None:
    side.send(answer(side.asked, {ECHO: 3, STORAGE: 4}))
    side.serve()


def dies(missing: int, how: str) -> Manners:
    """Send an object of which the end is missing, and go."""

    def manners(side: NodeSide) -> None:
        side.accept()
        side.pdu()
        side.send(STORE_COMMAND)
        side.send(STORE_DATA[: len(STORE_DATA) - missing])
        time.sleep(0.1)
        if how == "reset":
            side.reset()
        elif how == "stall":
            side.pdu(5)

    return manners


DEATHS = {f"{how.upper()}_{missing}": (how, missing) for how in ("close", "reset", "stall") for missing in (1, 10, 11)}


def floods(side: NodeSide) -> None:
    """Send an object without end, and count what is taken of it."""
    side.accept()
    side.pdu()
    side.send(STORE_COMMAND)
    while True:
        side.send(STORE_DATA)
        side.visit.data_bytes += len(STORE_DATA)


@pytest.fixture(scope="module")
def site() -> Iterator[HostileSite]:
    manners: dict[str, Manners] = {title: manner for title, (manner, _) in ANSWERS.items()}
    manners |= {title: in_the_conversation(data) for title, (data, _, _) in WITHIN.items()}
    manners |= {title: dies(missing, how) for title, (how, missing) in DEATHS.items()}
    manners |= {"OTHERS": accepts_others, "NONE": accepts_none, "FLOOD": floods}
    manners["AB_ODD"] = in_the_conversation(abort(1, 77).encode())
    with HostileSite(manners) as found:
        yield found
        found.settled()


@pytest.fixture(scope="module")
def patient() -> Iterator[HostileSite]:
    """One whose ARTIM is long, so that it shows who waits for it."""
    with HostileSite({title: dies(missing, how) for title, (how, missing) in DEATHS.items()}, artim="20s") as found:
        yield found
        found.settled()


@pytest.fixture(autouse=True)
def others_go_on(site: HostileSite) -> Iterator[None]:
    with site.unharmed():
        yield


@pytest.mark.parametrize("title", ANSWERS)
def test_a_bad_answer_is_a_reject_for_the_client(site: HostileSite, title: str) -> None:
    client = site.caller(title)
    client.send(client.request())
    assert client.farewell() == CONGESTION
    client.close()
    event = site.ended(client)
    assert (event["ended"], event["tried"]) == ("no_node", ["bad"]), event
    assert ANSWERS[title][1] in event["reason"], event
    assert (event["calling_ae"], event["called_ae"]) == (client.calling, title)
    site.node.visit(client.calling)  # its connection ends too


@pytest.mark.parametrize("title", ANSWERS)
def test_a_bad_answer_sends_the_client_to_another_node(site: HostileSite, title: str) -> None:
    client = site.caller(title, site.pair_port).associate()
    client.send(ECHO_RQ)
    found = client.pdu()
    assert found is not None
    assert found.encode() == ECHO_RSP
    client.release()
    event = site.ended(client)
    assert (event["ended"], event["node"], event["tried"]) == ("released", "spare", ["bad", "spare"]), event


def test_a_node_that_closes_as_soon_as_it_is_called(site: HostileSite) -> None:
    site.node.greeting = lambda sock: None
    client = site.caller("GOOD", site.pair_port).associate()
    site.node.greeting = None
    client.release()
    assert site.ended(client)["tried"] == ["bad", "spare"]


def test_a_node_that_speaks_first(site: HostileSite) -> None:
    def speaks(sock: socket.socket) -> None:
        sock.sendall(b"220 mail.example ESMTP\r\n")
        sock.settimeout(5)
        sock.recv(1 << 16)

    site.node.greeting = speaks
    client = site.caller("GOOD", site.pair_port).associate()
    site.node.greeting = None
    client.release()
    assert site.ended(client)["tried"] == ["bad", "spare"]


@pytest.mark.parametrize("title", WITHIN)
def test_wrong_bytes_within_an_association(site: HostileSite, title: str) -> None:
    _, heard, words = WITHIN[title]
    client = site.caller(title).associate()
    client.send(ECHO_RQ)
    assert client.farewell() == OTHER_SIDE
    client.close()
    event = site.ended(client)
    assert (event["ended"], event["node"]) == ("node_error", "bad"), event
    assert words in event["reason"], event
    assert site.node.visit(client.calling).control == [heard]


def test_an_odd_abort_reaches_the_client_as_it_is(site: HostileSite) -> None:
    client = site.caller("AB_ODD").associate()
    client.send(ECHO_RQ)
    assert client.farewell() == abort(1, 77)
    client.close()
    assert site.ended(client)["ended"] == "node_aborted"


def test_a_context_that_was_never_proposed_carries_nothing(site: HostileSite) -> None:
    client = site.caller("OTHERS")
    client.send(client.request())
    found = client.pdu()
    assert found is not None
    if found.type is PduType.ASSOCIATE_AC:  # to refuse the whole answer is as good
        client.send(ECHO_RQ)
        found = client.pdu()
        assert found == OTHER_SIDE, f"the client got {found} in a context that it has not proposed"
    client.close()
    assert site.ended(client)["ended"] in ("node_error", "no_node")


def test_data_where_the_node_accepted_no_context(site: HostileSite) -> None:
    client = site.caller("NONE").associate()
    client.send(ECHO_RQ)
    assert client.farewell() == INVALID
    client.close()
    assert "presentation context 1 was not accepted" in site.ended(client)["reason"]


def test_a_node_that_sends_on_after_the_end_is_cut_off(site: HostileSite) -> None:
    """What is read only to be dropped costs the others: a hundred such nodes held their answers up for a second."""
    client = site.caller("FLOOD", receive_bytes=4096).associate()
    client.send(ECHO_RQ)
    assert client.pdu() is not None
    time.sleep(0.3)  # every buffer on the way is full
    client.reset()
    before = site.node.visits[client.calling].data_bytes
    assert site.ended(client)["ended"] == "client_closed"
    taken = site.node.visit(client.calling).data_bytes - before
    assert taken < 64 << 20, f"{taken >> 20} MiB were taken after the end; sockets hold 32 MiB at most"


@pytest.mark.parametrize("title", DEATHS)
def test_an_object_that_was_cut_short_does_not_arrive_whole(
    site: HostileSite, patient: HostileSite, title: str
) -> None:
    """An A-ABORT put into an unfinished PDU would be its last bytes: the client would keep a damaged object."""
    how, missing = DEATHS[title]
    called = site if how == "stall" else patient
    client = called.caller(title).associate()
    client.send(ECHO_RQ)
    began_s = time.monotonic()
    received = client.rest()
    client.close()
    assert received == (STORE_COMMAND + STORE_DATA)[:-missing], f"its last bytes are {received[-12:].hex()}"
    event = called.ended(client)
    assert event["ended"] == ("timed_out" if how == "stall" else "node_closed"), event
    assert how == "stall" or time.monotonic() - began_s < 8, "a client in the middle of a PDU waits for ARTIM"

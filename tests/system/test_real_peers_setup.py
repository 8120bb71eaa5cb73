"""How an association comes about, seen from both ends: the balancer changes what it was told to, and nothing else."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import build_context, build_role, evt
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)

from equipoise.sim.ports import free_port
from tests.system import pynet
from tests.system.balancer import eventually
from tests.system.caller import ACCEPTED, visit
from tests.system.dcmtk import run, storescp
from tests.system.files import content, content_of, named
from tests.system.pynet import CT_IMAGE_STORAGE, Node
from tests.system.rawpeer import NodeSide, RawNode, abort, reject
from tests.system.stage import QUICK_CHECK, Stage, checked_elsewhere

ASYNC_WINDOW, MAX_LENGTH, USER_IDENTITY_ANSWER, ROLE, SOP_EXTENDED = 0x53, 0x51, 0x59, 0x54, 0x56
ONE_MIB = 1 << 20
NO_REASON, CALLING_UNKNOWN, CALLED_UNKNOWN, CONGESTION = (1, 1, 1), (1, 1, 3), (1, 1, 7), (2, 3, 1)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


@pytest.fixture
def node() -> Iterator[Node]:
    with Node() as node:
        yield node


# Transparency


def accepted(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what a DCMTK client logs of the answer: its bytes, and what it takes from them."""
    lines = done.stdout.splitlines() + done.stderr.splitlines()
    begin = next(n for n, line in enumerate(lines) if "PDU Type: Associate Accept" in line)
    end = next(n for n, line in enumerate(lines) if "END A-ASSOCIATE-AC" in line)
    return lines[begin:end]


@pytest.mark.parametrize(
    "client",
    [("echoscu", "-d"), ("storescu", "-d", "-R"), ("storescu", "-d", "-pdu", "28672"), ("storescu", "-d", "+C", "-xv")],
    ids=" ".join,
)
def test_a_dcmtk_client_and_a_dcmtk_node_see_each_other(stage: Stage, client: tuple[str, ...], tmp_path: Path) -> None:
    """Byte by byte: DCMTK proposes no asynchronous window, so nothing at all is changed in the answer."""
    (file,) = named("CT_small.dcm")
    what = (str(file.path),) if client[0] == "storescu" else ()
    with storescp(free_port(), tmp_path / "in", "-pdu", "32768", "-aet", "STORE") as peer:
        served = stage.serve({"a": peer.port})
        direct, balanced = (run(*client, "127.0.0.1", str(port), *what) for port in (peer.port, served.port))
    assert (direct.returncode, balanced.returncode) == (0, 0)
    assert any("Their Max PDU Receive Size:  32768" in line for line in accepted(direct))
    assert accepted(balanced) == accepted(direct)


@pytest.mark.parametrize(
    "client", [("echoscu",), ("storescu",), ("storescu", "-R"), ("getscu", "-S", "-k", "PatientID=1")], ids=" ".join
)
def test_a_node_gets_the_request_as_the_client_wrote_it(stage: Stage, node: Node, client: tuple[str, ...]) -> None:
    """Up to 128 contexts, up to 120 role items, byte by byte."""
    (file,) = named("CT_small.dcm")
    what = (str(file.path),) if client[0] == "storescu" else ()
    served = stage.serve({"a": node.port})
    for port in (node.port, served.port):
        run(*client, "-aet", "CT1", "-aec", "PACS", "127.0.0.1", str(port), *what)
    direct, balanced = node.seen
    assert balanced.request == direct.request
    assert len(direct.request) > 200


def answers_everything() -> list[Any]:
    return [
        (evt.EVT_ASYNC_OPS, lambda _event: (5, 3)),
        (evt.EVT_SOP_EXTENDED, lambda event: event.app_info),
        (evt.EVT_USER_ID, lambda event: (True, b"answer-to-" + event.primary_field)),
    ]


def asks_for_everything() -> list[Any]:
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked, window.maximum_number_operations_performed = 5, 3
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = (
        CT_IMAGE_STORAGE,
        b"\x02\x00\x03\x00\x01\x00",
    )
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.positive_response_requested = 3, True  # Kerberos: an answer has a body
    identity.primary_field = b"ticket-of-a-radiographer"
    return [window, extended, identity, build_role(CT_IMAGE_STORAGE, scu_role=True, scp_role=True)]


def test_all_that_is_negotiated_gets_the_nodes_answer_but_for_the_window(stage: Stage) -> None:
    answers: list[list[tuple[int, bytes]]] = []

    def on_data(event: Any) -> None:
        if event.data[0] == 0x02:
            answers.append(pynet.items(event.data))

    with Node(handlers=answers_everything()) as node:
        served = stage.serve({"a": node.port})
        for port in (node.port, served.port):
            with pynet.association(
                port,
                contexts=[build_context(CT_IMAGE_STORAGE)],
                items=asks_for_everything(),
                handlers=[(evt.EVT_DATA_RECV, on_data)],
            ) as opened:
                assert opened.acceptor.user_information
        direct_request, balanced_request = (pynet.items(seen.request) for seen in node.seen)
    direct_answer, balanced_answer = answers
    assert {ASYNC_WINDOW, SOP_EXTENDED, USER_IDENTITY_ANSWER, ROLE} <= {kind for kind, _ in direct_answer}
    assert balanced_answer == [item for item in direct_answer if item[0] != ASYNC_WINDOW]
    assert ASYNC_WINDOW in {kind for kind, _ in direct_request}
    assert balanced_request == [item for item in direct_request if item[0] != ASYNC_WINDOW]


def test_a_maximum_length_of_zero_is_passed_on_as_one_mebibyte_both_ways(stage: Stage) -> None:
    (file,) = named("MR2_UNCR.dcm")
    stored: list[Any] = []

    def keep(event: Any) -> int:
        stored.append(content_of(event.dataset, str(event.context.transfer_syntax)))
        return 0x0000

    with Node(max_pdu=0, handlers=[(evt.EVT_C_STORE, keep)]) as node:
        served = stage.serve({"a": node.port})
        announced = []
        for port in (node.port, served.port):
            contexts = [build_context(file.sop_class, [file.transfer_syntax])]
            with pynet.association(port, contexts=contexts, max_pdu=0) as opened:
                announced.append(opened.acceptor.maximum_length)
                assert opened.send_c_store(file.path).Status == 0x0000
        assert announced == [0, ONE_MIB]
        assert [seen.max_length for seen in node.seen] == [0, ONE_MIB]
    assert file.path.stat().st_size > 2 * ONE_MIB - 4096  # so that the limit is reached
    assert stored == [content(file.path)] * 2


# Titles and admission


def test_node_called_ae_is_what_the_node_hears_and_the_client_gets_its_own_back(stage: Stage, node: Node) -> None:
    answers: list[bytes] = []
    served = stage.serve({"a": node.port}, dicom={"node_called_ae": "ARCHIVE"})
    handlers = [(evt.EVT_DATA_RECV, lambda event: answers.append(bytes(event.data)))]
    pynet.visit(served.port, called="VIP", calling="CT1", handlers=handlers)
    assert [(seen.called, seen.calling) for seen in node.seen] == [("ARCHIVE", "CT1")]
    assert (answers[0][0], answers[0][10:26], answers[0][26:42]) == (0x02, b"VIP".ljust(16), b"CT1".ljust(16))
    (event,) = served.ended(1)
    assert (event["called_ae"], event["calling_ae"]) == ("VIP", "CT1")


@pytest.mark.parametrize(
    ("calling", "called", "answer"),
    [
        ("CT_WARD_3", "PACS", ACCEPTED),
        ("CT_WARD_3", "STORE7", ACCEPTED),
        ("US12", "PACS", ACCEPTED),
        ("US1", "PACS", CALLING_UNKNOWN),
        ("US123", "PACS", CALLING_UNKNOWN),
        ("ACT_1", "PACS", CALLING_UNKNOWN),
        ("CT.WARD", "PACSX", CALLED_UNKNOWN),
        ("CT_WARD_3", "STORE", CALLED_UNKNOWN),
        ("NOBODY", "NOWHERE", CALLED_UNKNOWN),
    ],
)
def test_titles_are_let_in_by_pattern(
    stage: Stage, node: Node, calling: str, called: str, answer: tuple[int, int, int]
) -> None:
    titles = {"called_ae_allow": ["PACS", "STORE?"], "calling_ae_allow": ["CT*", "US??"]}
    served = stage.serve({"a": node.port}, dicom=titles)
    assert visit(served.port, calling=calling, called=called) == answer
    assert len(node.seen) == (answer == ACCEPTED)
    (event,) = served.ended(1)
    assert event["ended"] == ("released" if answer == ACCEPTED else "refused")


def test_sources_outside_allow_from_are_rejected(stage: Stage, node: Node) -> None:
    served = stage.serve({"a": node.port}, allow_from=["127.0.0.0/30", "127.0.0.9"])
    answers = {source: visit(served.port, source=f"127.0.0.{source}") for source in (1, 3, 4, 9, 10)}
    assert answers == {1: ACCEPTED, 3: ACCEPTED, 4: NO_REASON, 9: ACCEPTED, 10: NO_REASON}
    assert len(node.seen) == 3


# Addresses


def test_nodes_are_called_from_source_address(stage: Stage, node: Node) -> None:
    served = stage.serve({"a": node.port}, source_address="127.0.0.2")
    assert visit(served.port) == ACCEPTED
    assert [seen.address for seen in node.seen] == ["127.0.0.2"]


def test_a_node_without_a_port_gets_the_port_that_the_client_came_to(stage: Stage) -> None:
    first, second = free_port(), free_port()
    with Node("127.0.0.2", first) as one, Node("127.0.0.2", second) as other:
        served = stage.serve({"a": "127.0.0.2"}, listen="127.0.0.1", ports=[first, second])
        assert visit(first, calling="TO_FIRST") == ACCEPTED
        assert visit(second, calling="TO_SECOND") == ACCEPTED
        assert [seen.calling for seen in one.seen] == ["TO_FIRST"]
        assert [seen.calling for seen in other.seen] == ["TO_SECOND"]
        assert served.status()["listen"] == [f"127.0.0.1:{first}", f"127.0.0.1:{second}"]


def test_every_address_and_port_of_a_service_leads_to_its_nodes(stage: Stage, node: Node) -> None:
    first, second = free_port(), free_port()
    served = stage.serve({"a": node.port}, listen=["127.0.0.1", f"127.0.0.3:{second}"], ports=[first, second])
    for number, (host, port) in enumerate([("127.0.0.1", first), ("127.0.0.1", second), ("127.0.0.3", second)]):
        assert visit(port, host=host, calling=f"CLIENT{number}") == ACCEPTED
    assert [seen.calling for seen in node.seen] == ["CLIENT0", "CLIENT1", "CLIENT2"]
    assert {event["service"] for event in served.ended(3)} == {served.name}


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_ipv6_on_both_sides(stage: Stage) -> None:
    port = free_port()
    with Node("::1") as node:
        served = stage.serve({"a": f"[::1]:{node.port}"}, listen=f"[::1]:{port}", allow_from="::1")
        pynet.visit(port, host="::1")
        assert [seen.address for seen in node.seen] == ["::1"]
        (event,) = served.ended(1)
    assert event["client"].startswith("[::1]:")


# Set-up retry: the first node fails, the second one takes the association


@contextmanager
def dead(_folder: Path) -> Iterator[int]:
    yield free_port()


def raw(manners: Callable[[NodeSide], None]) -> Callable[[Path], Any]:
    @contextmanager
    def listening(_folder: Path) -> Iterator[int]:
        peer = RawNode({"PACS": manners})
        try:
            yield peer.port
        finally:
            peer.close()

    return listening


@contextmanager
def refusing(folder: Path) -> Iterator[int]:
    with storescp(free_port(), folder / "refusing", "--refuse") as peer:
        yield peer.port


BAD_NODES = {
    "dead": dead,
    "aborts": raw(lambda side: side.send(abort(2, 0).encode())),
    "hangs up": raw(lambda side: None),
    "says nothing": raw(NodeSide.hold),
    "rejects as transient": raw(lambda side: side.send(reject(*CONGESTION).encode())),
    "storescp --refuse": refusing,
}


@pytest.mark.parametrize("bad", BAD_NODES)
def test_clients_do_not_notice_a_first_node_that(stage: Stage, node: Node, bad: str, tmp_path: Path) -> None:
    (file,) = named("CT_small.dcm")
    with BAD_NODES[bad](tmp_path) as port:
        settings = {"health": checked_elsewhere(node.port), "dicom": {"setup_timeout": "2s"}}
        served = stage.serve({"bad": port, "good": node.port}, **settings)
        began_s = time.monotonic()
        done = run("storescu", "-aec", "PACS", "127.0.0.1", str(served.port), str(file.path))
        assert done.returncode == 0, done.stderr
        pynet.visit(served.port)
        assert time.monotonic() - began_s < 10
        assert len(node.seen) == 2
        for event in served.ended(2):
            assert (event["node"], event["tried"], event["ended"]) == ("good", ["bad", "good"], "released")
        assert served.connections() == {"bad": 0, "good": 0}


def test_a_permanent_reject_is_the_nodes_own_and_goes_to_the_client(stage: Stage, node: Node, tmp_path: Path) -> None:
    with raw(lambda side: side.send(reject(*CALLED_UNKNOWN).encode()))(tmp_path) as port:
        served = stage.serve({"strict": port, "good": node.port}, health=checked_elsewhere(node.port))
        assert visit(served.port) == CALLED_UNKNOWN
        assert node.seen == []
        (event,) = served.ended(1)
    assert (event["node"], event["tried"], event["ended"]) == ("strict", ["strict"], "rejected")


def test_a_reject_without_a_reason_is_tried_at_one_other_node_and_no_more(
    stage: Stage, node: Node, tmp_path: Path
) -> None:
    with refusing(tmp_path) as one, refusing(tmp_path) as two:
        served = stage.serve({"one": one, "two": two, "good": node.port}, health=checked_elsewhere(node.port))
        assert visit(served.port) == NO_REASON
        assert node.seen == []
        (event,) = served.ended(1)
    assert event["tried"] == ["one", "two"]


def test_with_all_nodes_dead_the_client_may_try_again_later(stage: Stage, node: Node) -> None:
    served = stage.serve({"a": free_port(), "b": free_port()}, health=checked_elsewhere(node.port))
    assert visit(served.port) == CONGESTION
    assert [event["tried"] for event in served.ended(1)] == [["a", "b"]]


def test_with_all_nodes_down_the_client_may_try_again_later(stage: Stage) -> None:
    served = stage.serve({"a": free_port(), "b": free_port()}, health=QUICK_CHECK)
    for name in ("a", "b"):
        served.wait_state(name, "down")
    assert visit(served.port) == CONGESTION
    (event,) = served.ended(1)
    assert (event["tried"], event["node"], event["ended"]) == ([], None, "no_node")
    assert served.status()["state"] == "down"


def test_the_last_transient_reject_goes_to_the_client(stage: Stage, node: Node, tmp_path: Path) -> None:
    """All tried: the node's own words, not ours."""
    limit = (2, 3, 2)
    with raw(lambda side: side.send(reject(*limit).encode()))(tmp_path) as port:
        served = stage.serve({"dead": free_port(), "full": port}, health=checked_elsewhere(node.port))
        assert visit(served.port) == limit
    eventually(lambda: served.connections() == {"dead": 0, "full": 0}, what="no open connections")

"""A user of the portal: what it notices of nodes that come and go, and what it counts as a failure."""

import socket
import threading
from collections.abc import Iterator

import pytest

from equipoise.base.clock import SystemClock
from equipoise.sim.browser import Browser
from equipoise.sim.ledger import Ledger
from equipoise.sim.peers import Peer
from equipoise.sim.portal import Portal
from tests.unit.sim.nodes import RunningNode


@pytest.fixture
def portal() -> Iterator[RunningNode]:
    node = RunningNode(Portal("a", {}).handle)
    yield node
    node.close()


def browser(port: int, ledger: Ledger, never: threading.Event) -> Browser:
    peer = Peer("", "127.0.0.1", port)
    return Browser(peer, clock=SystemClock(), ledger=ledger, stop=never, pause_s=0, source="127.0.1.9")


def test_it_logs_in_once_and_stays(portal: RunningNode, ledger: Ledger, never: threading.Event) -> None:
    user = browser(portal.port, ledger, never)
    for _ in range(4):
        user.visit()
    tally = ledger.tally()
    assert (tally.log_ins, tally.pages, tally.failed_pages, tally.lost_sessions) == (1, 3, (), ())


def test_a_node_that_does_not_know_it_has_lost_its_session(ledger: Ledger, never: threading.Event) -> None:
    first = RunningNode(Portal("a", {}).handle)
    user = browser(first.port, ledger, never)
    user.visit()
    user.visit()
    first.close()
    second = RunningNode(Portal("b", {}).handle, port=first.port)
    for _ in range(3):  # the kept connection is gone, which is no failure; then a log-in, then a page
        user.visit()
    second.close()
    tally = ledger.tally()
    assert (tally.log_ins, tally.pages, tally.failed_pages) == (2, 2, ())
    assert [(mishap.node, mishap.text) for mishap in tally.lost_sessions] == [("a", "a → b")]


def test_a_page_that_is_no_page_is_a_failure(portal: RunningNode, ledger: Ledger, never: threading.Event) -> None:
    user = browser(portal.port, ledger, never)
    user.visit()
    portal_port = portal.port
    portal.close()
    user.visit()
    (failed,) = ledger.tally().failed_pages
    assert (failed.node, "refused" in failed.text) == ("a", True)
    with socket.create_server(("127.0.0.1", portal_port)) as busy:
        threading.Thread(target=_answer_503, args=(busy,), daemon=True).start()
        user.visit()
    assert ledger.tally().failed_pages[1].text == "answered 503 Service Unavailable"


def _answer_503(listener: socket.socket) -> None:
    client, _ = listener.accept()
    client.recv(1 << 16)
    client.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    client.close()

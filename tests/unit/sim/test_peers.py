"""How requests and the thread of an association take turns, with a thread that is late just where pynetdicom minds."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from pynetdicom import AE, build_context

from equipoise.sim.peers import Checkpoint

VERIFICATION = "1.2.840.10008.1.1"
LATE_S = 0.05


class Late(Checkpoint):
    """A checkpoint behind which the thread loses some time."""

    def wait(self) -> None:
        super().wait()
        time.sleep(LATE_S)


@pytest.mark.parametrize(("made", "holds"), [(Checkpoint, True), (lambda _: threading.Event(), False)])
def test_a_thread_that_said_it_stands_still_has_not_gone_on(made: Any, holds: bool) -> None:
    """As pynetdicom's own checkpoint, an Event, does not hold."""
    association = SimpleNamespace(_is_paused=False)
    checkpoint, gone_on = made(association), threading.Event()
    checkpoint.clear()

    def run() -> None:
        association._is_paused = True
        checkpoint.wait()
        gone_on.set()
        time.sleep(LATE_S * 10)
        association._is_paused = False

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(LATE_S)  # it stands there now
    checkpoint.set()  # an answer came
    checkpoint.clear()  # and the next request is made at once
    time.sleep(LATE_S)
    assert (gone_on.is_set() and association._is_paused) is not holds
    checkpoint.set()
    thread.join()


def test_each_request_of_an_association_gets_its_answer() -> None:
    node = AE("NODE")
    node.add_supported_context(VERIFICATION)
    server = node.start_server(("127.0.0.1", 0), block=False)
    client = AE("CLIENT")
    client.dimse_timeout = 5
    opened = client.associate(*server.server_address[:2], contexts=[build_context(VERIFICATION)])
    try:
        opened._reactor_checkpoint = Late(opened)
        assert all(opened.send_c_echo() for _ in range(20))
    finally:
        opened.abort()
        server.shutdown()

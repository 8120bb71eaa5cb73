"""Ports that tests and demonstrations give away before their programs listen."""

import socket
import subprocess
import sys

from equipoise.sim.ports import free_port

_ANOTHER = "from equipoise.sim.ports import free_port; print(*(free_port() for _ in range(20))); input()"


def test_a_port_is_free_at_every_address_that_is_named() -> None:
    for _ in range(600):  # more than a block has
        port = free_port("127.0.0.1", "127.0.0.2")
        with socket.create_server(("127.0.0.2", port)), socket.create_server(("127.0.0.1", port)):
            pass
    with socket.create_server(("127.0.0.2", free_port("127.0.0.2"))) as taken:
        assert taken.getsockname()[1] not in {free_port("127.0.0.1", "127.0.0.2") for _ in range(600)}


def test_what_was_given_away_is_not_given_again_while_others_are_left() -> None:
    assert len({free_port() for _ in range(300)}) == 300


def test_two_processes_give_away_different_ports() -> None:
    command = [sys.executable, "-c", _ANOTHER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        theirs = {int(port) for port in other.stdout.readline().split()}
        assert len(theirs) == 20
        assert theirs.isdisjoint(free_port() for _ in range(600))
        other.stdin.write("\n")

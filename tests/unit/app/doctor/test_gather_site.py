"""Sockets and names as they are on this machine, and a resolver that does not answer."""

import socket
import threading
import time
from pathlib import Path

import pytest

from equipoise.app.doctor.deadline import answers_within
from equipoise.app.doctor.facts import Running
from equipoise.app.doctor.gather_site import gather_site, host_names, look_up
from equipoise.base.clock import SystemClock
from equipoise.engines.haproxy.program import PROGRAM_VARIABLE
from equipoise.sim.ports import free_port
from tests.unit.app.doctor.healthy import plan

SITE = """\
site: here
services:
  ct:
    protocol: dicom
    listen: ['127.0.0.1:{free}', '127.0.0.1:{taken}', '192.0.2.7:{free}']
    source_address: 192.0.2.8
    health: {{check: tcp, source_address: 127.0.0.1}}
    nodes:
      a: {{address: 'localhost:104'}}
      b: {{address: '127.0.0.2:104'}}
"""


def test_ports_addresses_and_sources() -> None:
    free = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        site = plan(SITE.format(free=free, taken=taken))
        found = gather_site(site, None, SystemClock(), orphaned=False)
        by_name = {str(listener.endpoint): listener for listener in found.listeners}
        assert by_name[f"127.0.0.1:{free}"].refused is None
        assert "another program has the port" in (by_name[f"127.0.0.1:{taken}"].refused or "")
        assert by_name[f"192.0.2.7:{free}"].refused is None, "it may be bound before it is here"
        assert [listener.local for listener in found.listeners] == [True, True, False]
        assert {(source.address, source.local) for source in found.sources} == {
            ("192.0.2.8", False),
            ("127.0.0.1", True),
        }
        held = gather_site(
            site, Running(1, "0.1.0", "here", frozenset({f"127.0.0.1:{taken}"})), SystemClock(), orphaned=False
        )
        assert [listener.held for listener in held.listeners] == [
            str(listener.endpoint) == f"127.0.0.1:{taken}" for listener in held.listeners
        ]
        assert all(listener.refused is None for listener in held.listeners)
        orphaned = gather_site(site, None, SystemClock(), orphaned=True)
        assert sum(listener.held for listener in orphaned.listeners) == 1
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", free))  # what was tried was given back


def test_a_haproxy_that_cannot_be_used_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROGRAM_VARIABLE, str(tmp_path / "none"))
    web = "site: here\nservices: {web: {protocol: tcp, listen: '127.0.0.1:1', nodes: {a: {address: '127.0.0.2:80'}}}}"
    found = gather_site(plan(web), None, SystemClock(), orphaned=False).haproxy
    assert found is not None
    assert found.missing == f"{tmp_path}/none cannot be started: No such file or directory"
    assert found.advice.endswith(f"in {PROGRAM_VARIABLE}, or unset it")


def test_names_that_resolve_and_names_that_do_not(tmp_path: Path) -> None:
    assert host_names(plan(SITE.format(free=1, taken=2))) == ["localhost"]
    good, bad = look_up(["localhost", "pacs-b.invalid"], SystemClock())  # RFC 2606: never resolves
    assert "127.0.0.1" in good.addresses or "::1" in good.addresses
    assert good.took_s is not None
    assert bad.addresses == ()
    assert bad.reason


def test_a_question_without_an_answer_keeps_nobody_waiting() -> None:
    release = threading.Event()
    began = time.monotonic()
    answers = answers_within(0.2, {"quick": lambda: 1, "hangs": lambda: release.wait(20) and 2}, SystemClock())
    assert time.monotonic() - began < 10  # the one that hangs would for 20 s
    release.set()
    assert {name: answer.value for name, answer in answers.items()} == {"quick": 1}


def test_more_questions_than_are_asked_at_once() -> None:
    answers = answers_within(5, {str(number): lambda: time.sleep(0.01) for number in range(150)}, SystemClock())
    assert len(answers) == 150

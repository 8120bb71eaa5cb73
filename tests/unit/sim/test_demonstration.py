"""A whole demonstration in small, with real archives and devices; a plain TCP relay stands where the balancer will."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from equipoise.app.wiring import catalogue
from equipoise.base.clock import SystemClock
from equipoise.base.errors import EquipoiseError
from equipoise.config.fields import split_port
from equipoise.config.loading import load
from equipoise.sim.demonstration import Demonstration
from equipoise.sim.modality import Pace
from equipoise.sim.outcome import Outcome
from equipoise.sim.site import HL7_SERVICE, SERVICE, Places, Site, processes_of
from equipoise.sim.story import Beat, Deed
from equipoise.sim.studies import Kind
from equipoise.sim.workload import Department
from tests.unit.sim.relaying import accept_all, connect_through

DEPARTMENT = Department(
    modalities=(("MR1", Kind.MR), ("MR2", Kind.MR)),
    readers=("VIEWER1",),
    pace=Pace(between_objects_s=0.02, between_studies_s=0.05, before_retry_s=0.2),
    reader_pause_s=0.1,
)
STORY = (Beat(1.0, Deed.KILL, ("b",)), Beat(2.0, Deed.DRAIN, ("c",)), Beat(3.0, Deed.RETURN, ("b", "c")))


class RelayInPlaceOfBalancer:
    """Relays each connection to the next node that takes it, leaving out drained ones."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._drained: set[str] = set()
        self._turn = 0
        self._listeners = []
        for service in load(site.scene.document(), "site.yaml", catalogue()).site.services.values():
            listener = socket.create_server(service.listeners[0][:2])
            self._listeners.append(listener)
            ports = {name: split_port(node.address)[1] or 0 for name, node in service.nodes.items()}
            threading.Thread(target=accept_all, args=(listener, partial(self._relay, ports)), daemon=True).start()

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()

    def status(self) -> dict[str, Any]:
        nodes = {name: self._node(name) for name in self._site.ports}
        return {"services": {service: {"nodes": nodes} for service in (SERVICE, HL7_SERVICE)}}

    def override(self, pattern: str, action: str, weight: int | None = None) -> list[str]:
        change = self._drained.add if action == "drain" else self._drained.discard
        change(pattern.removeprefix("*/"))
        return [pattern]

    def _node(self, name: str) -> dict[str, Any]:
        state = "drain" if name in self._drained else "up" if self._site.is_running(name) else "down"
        check = {"ok": state != "down", "reason": "connection refused"}
        return {"state": state, "connections": 0, "bytes_in": 0, "bytes_out": 0, "check": check}

    def _relay(self, ports: Mapping[str, int], client: socket.socket, _: str) -> None:
        names = [name for name in sorted(ports) if name not in self._drained]
        self._turn += 1
        connect_through(client, [ports[name] for name in names[self._turn % len(names) :] + names])


@pytest.fixture
def site(tmp_path: Path, idle_program: Path) -> Iterator[Site]:
    places = Places(work=tmp_path, short=tmp_path)
    site = Site(places, nodes=("a", "b", "c"), balancer=(str(idle_program),))
    yield site
    site.close()
    assert processes_of(places) == []


def perform(site: Site, lasts_s: float, meanwhile: Callable[[], None] = lambda: None) -> Outcome:
    relay = RelayInPlaceOfBalancer(site)
    demonstration = Demonstration(site, relay, SystemClock(), story=STORY, seed=1, department=DEPARTMENT)
    try:
        demonstration.start()
        while demonstration.elapsed_s < lasts_s and not demonstration.failed:
            demonstration.step()
            time.sleep(0.05)
        meanwhile()
        return demonstration.finish(expect_whole_story=True)
    finally:
        demonstration.stop()
        relay.close()


def test_a_node_is_killed_another_drained_and_nothing_that_was_acknowledged_is_lost(site: Site) -> None:
    outcome = perform(site, lasts_s=8.0)
    assert outcome.problems() == []
    assert [phase.title for phase in outcome.phases] == [
        "at the beginning",
        "after b was killed with SIGKILL",
        "after c was drained",
        "after b and c returned",
    ]
    assert all(phase.acknowledged for phase in outcome.phases)
    assert outcome.tally.acknowledged == len(outcome.audit.unharmed) > 50
    assert set(outcome.audit.by_archive) == {"a", "b", "c"}
    assert outcome.tally.studies_retrieved > 0
    assert outcome.messages is not None
    tally, audit = outcome.messages.tally, outcome.messages.audit
    assert tally.acknowledged == len(audit.unharmed) > 50
    senders = 5
    assert tally.sent - tally.acknowledged <= senders, "none but what was under way at the end is left"
    assert len(audit.by_receiver) > 1
    in_phases = sum(phase.messages or 0 for phase in outcome.phases)
    assert tally.acknowledged - 2 * senders <= in_phases <= tally.acknowledged, "a few come behind the last phase"


def test_what_is_lost_is_told_and_so_is_a_story_that_was_cut_short(site: Site) -> None:
    def lose_two() -> None:
        for path in site.store.paths()[:2]:
            path.unlink()
        for path in site.ledgers():
            path.write_bytes(b"")

    problems = perform(site, lasts_s=1.5, meanwhile=lose_two).problems()
    assert any(text.startswith("2 acknowledged objects are in no archive: 2.25.") for text in problems)
    assert any(text.endswith("…") and "acknowledged messages are at no receiver: " in text for text in problems)
    assert "not done, for the work ended before: c was drained" in problems


def test_a_balancer_that_does_not_start_is_told_with_its_last_words(tmp_path: Path, site: Site) -> None:
    (tmp_path / "idle.py").write_text("raise SystemExit('site.yaml:3:1: unknown key')")
    with pytest.raises(EquipoiseError, match=r"balancer ended with exit code 1: site\.yaml:3:1: unknown key"):
        perform_without_relay(site)


def perform_without_relay(site: Site) -> None:
    class NoSupervisor:
        def status(self) -> dict[str, Any]:
            raise EquipoiseError("no supervisor answers")

        def override(self, pattern: str, action: str, weight: int | None = None) -> list[str]:
            raise EquipoiseError("no supervisor answers")

    Demonstration(site, NoSupervisor(), SystemClock(), story=(), seed=1).start()

"""The scene of a template, played whole with real nodes; a relay for each service is the balancer."""

import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from equipoise.app.wiring import catalogue
from equipoise.base.clock import SystemClock
from equipoise.base.errors import EquipoiseError
from equipoise.config.fields import split_port
from equipoise.config.loading import load
from equipoise.sim.demonstration import Demonstration, NodeView, changes
from equipoise.sim.modality import Pace
from equipoise.sim.scene import TemplateScene, playable
from equipoise.sim.site import Places, Site, processes_of
from equipoise.sim.story import Beat, Deed
from equipoise.sim.studies import Kind
from equipoise.sim.workload import Department
from equipoise.templates.reader import names
from tests.unit.sim.relaying import accept_all, connect_through

DEPARTMENT = Department(
    modalities=(("MR1", Kind.MR), ("CR1", Kind.RADIOGRAPHY)),
    readers=("VIEWER1",),
    pace=Pace(between_objects_s=0.02, between_studies_s=0.05, before_retry_s=0.2),
    reader_pause_s=0.1,
    worklist_pause_s=0.2,
    browsers=4,
    browser_pause_s=0.05,
)
STORY = (Beat(1.5, Deed.KILL, ("b",)), Beat(3.0, Deed.RETURN, ("b",)))


class Relays:
    """One relay a service: a client address stays at its node while that is there."""

    def __init__(self, site: Site, scene: TemplateScene) -> None:
        self._site = site
        self._listeners = []
        for service in load(scene.document(), "site.yaml", catalogue()).site.services.values():
            listener = socket.create_server(service.listeners[0][:2])
            self._listeners.append(listener)
            ports = [split_port(node.address)[1] or 0 for node in service.nodes.values()]
            threading.Thread(target=accept_all, args=(listener, partial(_relay, ports)), daemon=True).start()
        self._scene = scene

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()

    def status(self) -> dict[str, Any]:
        node = {"connections": 0, "bytes_in": 0, "bytes_out": 0, "check": {"ok": True, "reason": "connected"}}
        nodes = {name: {**node, "state": "up" if self._site.is_running(name) else "down"} for name in self._site.ports}
        return {"services": {service: {"nodes": nodes} for service in self._scene.services}}

    def override(self, pattern: str, action: str, weight: int | None = None) -> list[str]:
        raise AssertionError(f"{pattern} {action}: nobody is drained in this story")


def _relay(ports: list[int], client: socket.socket, host: str) -> None:
    first = int(host.rpartition(".")[2]) % len(ports)
    connect_through(client, [*ports[first:], *ports])


@pytest.fixture
def scene() -> TemplateScene:
    return TemplateScene("infinitt_pacs", ("a", "b"))


@pytest.fixture
def site(tmp_path: Path, idle_program: Path, scene: TemplateScene) -> Iterator[Site]:
    places = Places(work=tmp_path, short=tmp_path)
    site = Site(places, balancer=(str(idle_program),), scene=scene)
    yield site
    site.close()
    assert processes_of(places) == []


def test_a_killed_server_takes_its_sessions_with_it_and_nothing_else(site: Site, scene: TemplateScene) -> None:
    relays = Relays(site, scene)
    demonstration = Demonstration(site, relays, SystemClock(), story=STORY, seed=1, department=DEPARTMENT)
    try:
        demonstration.start()
        while demonstration.elapsed_s < 5 and not demonstration.failed:
            demonstration.step()
            time.sleep(0.05)
        outcome = demonstration.finish(expect_whole_story=True)
    finally:
        demonstration.stop()
        relays.close()
    assert outcome.problems() == []
    assert outcome.tally.acknowledged == len(outcome.audit.unharmed) > 20
    assert set(outcome.audit.by_archive) == {"a", "b"}
    assert outcome.tally.worklists > 0
    assert outcome.tally.pages > 50
    assert outcome.tally.lost_sessions == outcome.sessions_moved
    assert {mishap.node for mishap in outcome.sessions_moved} >= {"b"}
    told = " ".join(demonstration.progress().told)
    assert "b up → down (ok) in pacs-web, pacs-dicom, pacs-query, pacs-mwl" in told


@pytest.mark.parametrize("name", playable())
def test_the_configuration_of_a_scene_is_good(name: str) -> None:
    scene = TemplateScene(name, ("a", "b"))
    document = load(scene.document(), "site.yaml", catalogue())
    assert sorted(document.site.services) == sorted(scene.services)


@pytest.mark.parametrize("name", sorted(set(names()) - set(playable())))
def test_a_template_that_cannot_be_played_says_which_ones_can(name: str) -> None:
    with pytest.raises(EquipoiseError, match=rf"template {name} has no DICOM service .* try .*infinitt_pacs"):
        TemplateScene(name, ("a",))


def test_what_becomes_of_a_machine_is_told_once() -> None:
    before = tuple(NodeView(f"{service}/{node}", "up", 0, 0, 0, "ok") for service in "xy" for node in "ab")
    now = tuple(NodeView(node.name, "down" if node.name != "x/a" else "up", 0, 0, 0, "refused") for node in before)
    assert changes(before, now) == ["b up → down (refused) in x, y", "a up → down (refused) in y"]
    assert changes((NodeView("a", "up", 0, 0, 0, ""),), (NodeView("a", "drain", 0, 0, 0, ""),)) == ["a up → drain"]

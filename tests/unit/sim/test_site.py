"""The processes of a simulated site: they start, die, return to the same port, and none is left."""

import subprocess
import sys
from pathlib import Path

import pytest

from equipoise.base.errors import EquipoiseError
from equipoise.base.processes import start_ready
from equipoise.sim.peers import AssociationError, Peer, application_entity, open_association
from equipoise.sim.site import Places, Site, environment, processes_of, site_yaml


def is_served(port: int) -> bool:
    entity = application_entity("ME")
    entity.add_requested_context("1.2.840.10008.1.1")
    try:
        association = open_association(Peer("PACS", "127.0.0.1", port), "ME", entity.requested_contexts)
    except AssociationError:
        return False
    association.release()
    return True


def test_a_killed_node_returns_to_its_port_and_close_leaves_none(tmp_path: Path) -> None:
    places = Places(work=tmp_path, short=tmp_path)
    site = Site(places, nodes=("a", "b"))
    try:
        site.start_nodes()
        port = site.ports["a"]
        assert is_served(port)
        site.kill_node("a")
        assert not site.is_running("a")
        assert not is_served(port)
        assert site.dead() == [], "a node that was killed on purpose is no finding"
        site.start_node("a")
        assert site.ports["a"] == port
        assert is_served(port)
    finally:
        assert site.close() == []
    assert processes_of(places) == []


def test_a_process_that_ends_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    program = tmp_path / "balancer.py"
    program.write_text("raise SystemExit('port 104 is taken')")
    places = Places(work=tmp_path, short=tmp_path)
    site = Site(places, nodes=(), balancer=(str(program),))
    site.start_balancer()
    assert site.balancer is not None
    site.balancer.wait(timeout=10)
    assert site.dead() == ["balancer ended with exit code 1: port 104 is taken"]
    site.close()


def test_what_a_killed_supervisor_left_is_ended_and_told(tmp_path: Path) -> None:
    """An engine has a session of its own; its environment carries the site's mark."""
    program = tmp_path / "balancer.py"
    program.write_text(
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
    )
    places = Places(work=tmp_path, short=tmp_path)
    site = Site(places, nodes=(), balancer=(str(program),))
    site.start_balancer()
    assert site.balancer is not None
    site.balancer.wait(timeout=10)
    (left,) = processes_of(places)
    assert site.close() == [f"process {left} was left over and was killed"]
    assert processes_of(places) == []


def test_a_process_that_only_names_the_directory_is_left_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('ready', flush=True); sys.stdin.read()", str(tmp_path)]
    onlooker, _ = start_ready(command, tmp_path / "log", timeout_s=10)
    try:
        Site(Places(work=tmp_path, short=tmp_path), nodes=()).close()
        assert onlooker.poll() is None
    finally:
        onlooker.kill()
        onlooker.wait()


def test_the_configuration_is_what_an_operator_would_write() -> None:
    text = site_yaml(Peer("PACS", "127.0.0.1", 11112), {"pacs-a": 1041})
    assert "    listen: '127.0.0.1:11112'\n" in text
    assert "      pacs-a: {address: '127.0.0.1:1041'}\n" in text


@pytest.mark.parametrize("program", ["import time; time.sleep(60)", "raise SystemExit(3)"])
def test_a_process_that_does_not_say_it_is_ready_is_ended(tmp_path: Path, program: str) -> None:
    places = Places(work=tmp_path, short=tmp_path)
    with pytest.raises(EquipoiseError, match=r"did not say within 0\.5 s that it is ready; see"):
        start_ready([sys.executable, "-c", program], tmp_path / "log", timeout_s=0.5, environment=environment(places))
    assert processes_of(places) == []


def test_an_archive_that_cannot_listen_says_why(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "equipoise.sim.archive", "--store", str(tmp_path), "--host", "192.0.2.1"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode != 0
    assert "Cannot assign requested address" in done.stderr

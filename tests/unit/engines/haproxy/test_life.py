"""How the real HAProxy lives: taken over, lost, hung, mended, drained, stopped."""

import asyncio
import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from equipoise.base.errors import EngineError
from equipoise.base.paths import Directories
from equipoise.base.processes import is_alive
from equipoise.engines.haproxy.files import Files
from equipoise.engines.haproxy.master import is_ours, members_of, ours
from equipoise.plan.states import NodeState
from equipoise.state.events import HaproxyLost, HaproxyStarted
from tests.unit.engines.haproxy.served import Site, asking, eventually, is_refused, names, node_states, play

pytestmark = pytest.mark.usefixtures("program")
once = pytest.mark.parametrize("program", ["wheel"], indirect=True)  # slow, and the program has no part in it


def test_the_next_supervisor_takes_it_over_without_a_reload(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a", "b", "c", "d")
        artifact = site.artifact("a", "b", "c", "d", top={"drain_timeout": "100ms"})
        await site.engine.apply(artifact)
        states = node_states(a="down", b="drain", c="up", d="disabled") | {"web/c": NodeState("up", 7)}
        await site.engine.set_nodes(states)
        family = await site.family()
        await asyncio.sleep(0.5)  # the drain is over
        site.engine.leave()
        site.events.clear()

        second = site.engine = site.another()
        found = await second.adopt()
        assert {key: state.state for key, state in found.items()} == {
            "web/a": "down",
            "web/b": "down",
            "web/c": "up",
            "web/d": "down",
        }
        assert found["web/c"].weight == 7
        assert second.adopted == 1
        second.prepare(states)
        assert await second.check(artifact) == []
        assert await second.check(site.artifact("c", "d")) == [], "its ports are its own, whatever it is to serve"
        await second.apply(artifact)
        assert await site.family() == family
        assert site.events == []
        assert await site.answers(4) == {"c"}
        text = site.files.configuration.read_text()
        assert " disabled" in next(line for line in text.splitlines() if "server b " in line), "it stays over"
        await second.undo_start()
        assert await site.family() == family, "what was found is left alone"

    play(directory, scene)


def test_a_drain_that_goes_on_is_found_as_one(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a", "b")
        await site.engine.apply(site.artifact("a", "b"))
        await site.put(a="drain", b="up")
        site.engine.leave()
        site.engine = site.another()
        assert (await site.engine.adopt())["web/a"].state == "drain"

    play(directory, scene)


def test_what_was_taken_over_is_changed_without_a_new_start(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a", "b")
        kept = {"persistence": {"by": "source_ip"}}
        await site.engine.apply(site.artifact("b", **kept))
        assert await site.answers(1) == {"b"}
        site.engine.leave()
        site.events.clear()
        site.engine = site.another()
        await site.engine.adopt()
        await site.engine.apply(site.artifact("a", "b", **kept))
        assert names(site.events) == ["haproxy.reloaded"]
        assert await site.answers() == {"b"}, "clients keep their node"
        await site.engine.stop(5)
        assert not ours(site.files)

    play(directory, scene)


def test_a_start_that_is_undone_leaves_nothing(directory: Path) -> None:
    async def scene(site: Site) -> None:
        assert await site.engine.adopt() == {}
        await site.nodes("a")
        await site.engine.apply(site.artifact("a"))
        assert site.engine.adopted == 0
        await site.engine.undo_start()
        assert not ours(site.files)
        assert await is_refused(site.port)

    play(directory, scene)


@once
def test_stale_sockets_are_no_hindrance(directory: Path) -> None:
    async def scene(site: Site) -> None:
        site.files.create()
        for path in (site.files.master_socket, site.files.worker_socket):
            with socket.socket(socket.AF_UNIX) as stale:
                stale.bind(str(path))
        assert await site.engine.adopt() == {}
        await site.nodes("a")
        await site.engine.apply(site.artifact("a"))
        assert await site.answers(1) == {"a"}

    play(directory, scene)


@once
def test_one_that_hangs_is_ended_by_the_next_supervisor(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a")
        artifact = site.artifact("a")
        await site.engine.apply(artifact)
        old = (await site.family()).master
        site.engine.leave()
        for pid in members_of(site.files, old):
            os.kill(pid, signal.SIGSTOP)
        site.engine = site.another()
        assert await site.engine.adopt() == {}
        (lost,) = site.heard(HaproxyLost)
        assert lost.pid == old
        assert "did not answer" in lost.reason
        await site.engine.apply(artifact)
        assert await site.answers(1) == {"a"}
        assert (await site.family()).master != old

    play(directory, scene)


@pytest.mark.parametrize("who", ["master", "worker"])
def test_one_that_dies_is_started_again(directory: Path, who: str) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a", "b")
        await site.engine.apply(site.artifact("a", "b"))
        await site.put(a="up", b="down")
        await site.engine.watch()
        family = await site.family()
        victim = family.master if who == "master" else family.workers[0]
        os.kill(victim, signal.SIGKILL)

        async def serves_again() -> bool:
            await site.engine.watch()
            return len(site.heard(HaproxyStarted)) == 2

        await eventually(serves_again, "another HAProxy")
        assert await site.answers() == {"a"}, "with the states that nodes had"
        assert "haproxy.lost" in names(site.events)
        assert (await site.family()).master != family.master
        assert not any(is_ours(site.files, pid) for pid in (family.master, *family.workers))

    play(directory, scene)


@once
def test_one_that_hangs_is_replaced_after_some_looks(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a")
        await site.engine.apply(site.artifact("a"))
        (worker,) = (await site.family()).workers
        os.kill(worker, signal.SIGSTOP)
        await asyncio.sleep(0.2)  # both its threads have stopped
        await site.engine.watch()
        observed = await site.engine.observe()
        assert "did not answer" in observed.problems["web"]
        await site.engine.watch()
        assert not site.heard(HaproxyLost), "two looks are no proof"
        await site.engine.watch()
        (lost,) = site.heard(HaproxyLost)
        assert "did not answer" in lost.reason

        async def serves_again() -> bool:
            return len(site.heard(HaproxyStarted)) == 2

        await eventually(serves_again, "another HAProxy")
        await site.put(a="up")
        assert await site.answers(1) == {"a"}
        assert not is_alive(worker)

    play(directory, scene)


def test_what_was_not_told_is_told_later(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a", "b")
        await site.engine.apply(site.artifact("a", "b"))
        away = site.files.worker_socket.with_suffix(".away")
        site.files.worker_socket.rename(away)
        with pytest.raises(EngineError, match="no HAProxy answers on"):
            await site.put(a="down", b="up")
        assert await site.answers() == {"a", "b"}
        away.rename(site.files.worker_socket)
        await site.engine.watch()
        assert await site.answers() == {"b"}

    play(directory, scene)


def test_somebody_elses_reload_keeps_the_states(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a", "b")
        await site.engine.apply(site.artifact("a", "b"))
        await site.put(a="down", b="up")
        family = await site.family()
        os.kill(family.master, signal.SIGUSR2)

        async def is_another() -> bool:
            try:
                return (await site.family()).workers not in ((), family.workers)
            except EngineError:
                return False

        await eventually(is_another, "another worker")
        assert await site.answers() == {"b"}
        await site.engine.watch()
        await site.put(a="up", b="up")
        assert await site.answers() == {"a", "b"}

    play(directory, scene)


@pytest.mark.parametrize("how", ["ends", "is cut", "is hurried"])
def test_a_stop_lets_open_work_end(directory: Path, how: str) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a")
        await site.engine.apply(site.artifact("a"))
        asked = await asking(site.port, site.webs["a"])
        stopping = asyncio.ensure_future(site.engine.stop(0.5 if how == "is cut" else 60))
        await eventually(lambda: is_refused(site.port))
        if how == "is hurried":
            site.engine.hurry()
        if how == "ends":
            assert not stopping.done()
            site.webs["a"].may_answer.set()
            assert await asked == "a"
        await stopping
        if how != "ends":
            with pytest.raises((ConnectionError, IndexError)):  # no status line
                await asked
        assert not ours(site.files)
        assert not any(stat.S_ISSOCK(path.stat().st_mode) for path in site.files.directory.rglob("*"))
        with pytest.raises(EngineError, match="is being stopped"):
            await site.engine.apply(site.artifact("a"))

    play(directory, scene)


@once
def test_a_number_that_another_program_has_is_not_ours(directory: Path) -> None:
    files = Files(Directories(directory, directory))
    assert not is_ours(files, os.getpid())
    assert not is_ours(files, 1)
    assert not is_ours(files, 2**22 - 1)


@once
def test_a_directory_that_cannot_be_is_said(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a")
        (directory / "haproxy").write_text("in the way")
        (refusal,) = await site.engine.check(site.artifact("a"))
        assert "cannot make the directory" in refusal.message
        with pytest.raises(EngineError, match="cannot make the directory"):
            await site.engine.apply(site.artifact("a"))

    play(directory, scene)


@once
def test_a_socket_path_that_is_too_long_is_said(directory: Path) -> None:
    deep = directory / ("d" * 90)
    deep.mkdir()

    async def scene(site: Site) -> None:
        await site.nodes("a")
        (refusal,) = await site.engine.check(site.artifact("a"))
        assert "set EQUIPOISE_RUNTIME_DIR to a shorter directory" in refusal.message

    play(deep, scene)

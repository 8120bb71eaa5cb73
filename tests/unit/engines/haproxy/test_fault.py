"""When a real HAProxy that hangs, dies and loads anew is a fault that another machine should know."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from equipoise.engines.haproxy.artifact import Artifact
from equipoise.engines.haproxy.statistics import Counting
from equipoise.state.events import HaproxyLost
from tests.unit.engines.haproxy.served import Site, get, play
from tests.unit.engines.running import eventually

pytestmark = pytest.mark.usefixtures("program")
once = pytest.mark.parametrize("program", ["wheel"], indirect=True)  # slow, and the program has no part in it


@once
def test_a_worker_that_stands_still_is_a_fault_until_it_goes_on(directory: Path) -> None:
    async def scene(site: Site) -> None:
        assert await site.engine.fault() is None, "nothing is needed yet"
        await site.nodes("a")
        await site.engine.apply(site.artifact("a"))
        assert await site.engine.fault() is None
        (worker,) = (await site.family()).workers
        os.kill(worker, signal.SIGSTOP)
        try:
            said = await asyncio.wait_for(site.engine.fault(), 30)
        finally:
            os.kill(worker, signal.SIGCONT)
        assert said is not None
        assert "did not answer" in said
        assert await get(site.port) == "a"
        assert await site.engine.fault() is None

    play(directory, scene)


@pytest.mark.parametrize("whom", ["master", "worker"])
def test_a_dead_one_is_a_fault_until_another_one_serves(directory: Path, whom: str) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a")
        await site.engine.apply(site.artifact("a"))
        family = await site.family()
        os.kill(family.master if whom == "master" else family.workers[0], signal.SIGKILL)
        deadline_s = asyncio.get_running_loop().time() + 20
        while (said := await site.engine.fault()) is None:  # the kernel may not have said so yet
            assert asyncio.get_running_loop().time() < deadline_s
            await asyncio.sleep(0.01)
        assert said == "HAProxy does not run; it is started again"
        while await site.engine.fault() is not None:
            assert asyncio.get_running_loop().time() < deadline_s
            await asyncio.sleep(0.02)
        assert await get(site.port) == "a"

    play(directory, scene)


def test_loading_anew_is_none(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a", "b")
        await site.engine.apply(site.artifact("a"))
        loading = asyncio.ensure_future(site.engine.apply(site.artifact("a", "b")))
        while not loading.done():
            assert await site.engine.fault() is None
            await asyncio.sleep(0.005)
        await loading
        assert await site.engine.fault() is None
        await site.engine.apply(Artifact())
        assert await site.engine.fault() is None, "nothing is needed any more"

    play(directory, scene)


@once
def test_a_dead_master_is_a_loss_though_its_worker_answers_for_a_moment_more(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(_: Counting) -> dict[str, str]:
        await asyncio.sleep(0.05)  # in which others look, too
        return {}

    async def scene(site: Site) -> None:
        await site.nodes("a")
        await site.engine.apply(site.artifact("a"))
        monkeypatch.setattr(Counting, "refused", answer)
        os.kill((await site.family()).master, signal.SIGKILL)
        await asyncio.gather(*(site.engine.watch() for _ in range(3)))
        await eventually(lambda: site.heard(HaproxyLost), "word of the loss")
        deadline_s = asyncio.get_running_loop().time() + 20
        while await site.engine.fault() is not None:
            assert asyncio.get_running_loop().time() < deadline_s
            await asyncio.sleep(0.02)
        assert await get(site.port) == "a"
        assert len(site.heard(HaproxyLost)) == 1

    play(directory, scene)

"""When gateways that really run, hang, die and are replaced are a fault that another machine should know."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from equipoise.engines.gateway.render import Artifact
from tests.unit.engines.running import eventually
from tests.unit.engines.test_runner import Engine, run


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    assert len(str(tmp_path)) < 80
    return tmp_path


def test_a_gateway_that_stands_still_is_a_fault_until_it_goes_on(directory: Path) -> None:
    async def scene(engine: Engine) -> None:
        assert await engine.engine.fault() is None
        (pid,) = engine.pids()
        os.kill(pid, signal.SIGSTOP)
        try:
            said = await asyncio.wait_for(engine.engine.fault(), 30)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert said == f"gateway process {pid}: the gateway did not answer within 3 s"
        await engine.engine.observe()
        assert await engine.engine.fault() is None

    run(directory, scene)


def test_a_gateway_that_died_is_a_fault_until_another_one_serves(directory: Path) -> None:
    async def scene(engine: Engine) -> None:
        (pid,) = engine.pids()
        os.kill(pid, signal.SIGSTOP)
        asked = asyncio.ensure_future(engine.engine.fault())
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        assert "control connection ended" in str(await asked), "who had asked does not wait until the end"
        assert await engine.engine.fault() == "a gateway process ended and is being started again"
        faults = [await engine.engine.fault()]
        while faults[-1] is not None:
            await asyncio.sleep(0.02)
            faults.append(await engine.engine.fault())
        await (await engine.associated("CT")).release()

    run(directory, scene)


def test_a_successor_beside_a_living_gateway_is_none(directory: Path) -> None:
    async def scene(engine: Engine) -> None:
        replacing = asyncio.ensure_future(engine.engine.replace("a test asks for it"))
        while not replacing.done():
            assert await engine.engine.fault() is None
            await asyncio.sleep(0.01)
        await replacing
        assert await engine.engine.fault() is None
        await eventually(lambda: len(engine.pids()) == 1, "the end of the old one")
        assert await engine.engine.fault() is None

    run(directory, scene)


def test_without_services_nothing_is_at_fault(directory: Path) -> None:
    async def scene(engine: Engine) -> None:
        await engine.engine.apply(Artifact("", ()))
        await eventually(lambda: not engine.pids(), "the end of the last one")
        assert await engine.engine.fault() is None

    run(directory, scene)

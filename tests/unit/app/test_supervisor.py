"""The supervisor in this process, with a real gateway: it follows files, speaks once, and keeps what was learned."""

import asyncio
import json
import os
import signal
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from equipoise.__main__ import Servers
from equipoise.app import converge as converging
from equipoise.app import supervisor as module
from equipoise.app.converge import checked, converge
from equipoise.app.document import DocumentStore
from equipoise.app.inputs import Inputs, look_again
from equipoise.app.supervisor import Supervisor
from equipoise.base.clock import SystemClock
from equipoise.base.errors import ConfigError, EngineError
from equipoise.base.paths import Directories
from equipoise.engines.addresses.runner import AddressesEngine
from equipoise.engines.base import Engine
from equipoise.engines.layer4.runner import Layer4Engine
from equipoise.plan.model import Plan
from equipoise.proto.dicom.association import encode_request
from equipoise.sim.ports import free_port
from equipoise.state.journal import Journal
from tests.system.certificates import Authority, Issued
from tests.system.rawpeer import CONTEXTS
from tests.unit.engines.running import Archive, dial, eventually

OFTEN_S = 0.1


class Instance:
    """One instance whose document names a certificate."""

    def __init__(self, directory: Path, own: Issued) -> None:
        self.port = free_port()
        service = {
            "protocol": "dicom",
            "listen": f"127.0.0.1:{self.port}",
            "tls": {"cert": str(own.cert), "key": str(own.key)},
            "health": {"check": "tcp", "interval": "1h"},
            "nodes": {"a": {"address": "127.0.0.1:1"}},
        }
        self.archive = Archive()
        self.plain_port = free_port()
        plain = {
            "protocol": "dicom",
            "listen": f"127.0.0.1:{self.plain_port}",
            "balance": "least_work",
            "health": {"check": "tcp", "interval": "1h"},
            "nodes": {"a": {"address": f"127.0.0.1:{self.archive.port}"}},
        }
        self.site = directory / "site.yaml"
        self.site.write_text(json.dumps({"site": "x", "services": {"pacs": service, "plain": plain}}))
        self.directories = Directories(directory, directory)
        self.journal = Journal(directory / "events.jsonl", SystemClock())
        store = DocumentStore(self.site, directory, SystemClock())
        self.supervisor = Supervisor(
            store, self.directories, SystemClock(), self.journal, lambda fields: None, serving=Servers()
        )

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        return [event for event in self.journal.recent(1000) if event["kind"] in kinds]

    async def shown(self) -> bytes:
        """Return the certificate that a client is shown."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname="localhost")
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        assert isinstance(found, bytes)
        return found


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def own(authority: Authority) -> Issued:
    return authority.issue("balancer")


def run(instance: Callable[[], Instance], scene: Callable[[Instance], Awaitable[None]]) -> None:
    async def play() -> None:
        made = instance()
        try:
            async with asyncio.timeout(60):
                await made.archive.start()
                await made.supervisor.start()
                await scene(made)
        finally:
            await made.supervisor.stop("a test is over", 0)
            made.journal.close()
            made.archive.close()
        assert made.events("task.failed") == []

    uvloop.run(play())


def test_files_are_followed_and_what_is_wrong_is_said_once(
    tmp_path: Path, own: Issued, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_AT_FACTS_EVERY_S", OFTEN_S)
    looks: list[Inputs] = []

    async def counted(inputs: Inputs, now_s: float) -> tuple[Inputs, ConfigError | None]:
        looks.append(inputs)
        return await look_again(inputs, now_s)

    monkeypatch.setattr(module, "look_again", counted)

    async def scene(instance: Instance) -> None:
        first = await instance.shown()
        good = own.key.read_bytes()
        own.key.write_text("rubbish")
        await eventually(lambda: instance.events("task.hindered"), "the event")
        seen = len(looks)
        await eventually(lambda: len(looks) > seen + 3, "more looks at the same")
        (event,) = instance.events("task.hindered")
        assert event["task"] == "renewed files of TLS"
        assert str(own.key) in event["reason"]
        assert event["reason"].endswith("they are not taken up")
        assert await instance.shown() == first
        assert len(instance.events("plan.applied")) == 1

        own.key.unlink()  # something else is wrong now
        await eventually(lambda: len(instance.events("task.hindered")) == 2, "the other event")
        own.key.write_bytes(good)
        seen = len(looks)
        await eventually(lambda: len(looks) > seen + 2, "a look at what is well again")
        assert len(instance.events("plan.applied")) == 1
        own.key.write_text("rubbish")
        await eventually(lambda: len(instance.events("task.hindered")) == 3, "the same again, after it was well")

        authority.issue("balancer")
        await eventually(lambda: len(instance.events("plan.applied")) > 1, "the renewed plan")
        assert await instance.shown() != first
        assert len(instance.events("task.hindered")) <= 4  # a look may have come between the two files

    run(lambda: Instance(tmp_path, own), scene)


def test_a_gateway_that_dies_while_a_file_is_spoiled_has_it_again_when_it_is_whole(
    tmp_path: Path, own: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same content comes back, so the plan is the same, and still the gateway needs to be told."""
    monkeypatch.setattr(module, "_LOOK_AT_FACTS_EVERY_S", OFTEN_S)

    async def scene(instance: Instance) -> None:
        first = await instance.shown()
        good = own.key.read_bytes()
        own.key.write_text("rubbish")
        with pytest.raises(EngineError, match="so the old one stays"):
            await instance.supervisor.replace_gateways()
        assert await instance.shown() == first
        os.kill(instance.events("gateway.started")[-1]["pid"], signal.SIGKILL)
        await eventually(lambda: len(instance.events("gateway.started")) == 2, "another gateway")
        with pytest.raises(OSError):  # noqa: PT011 whatever TLS says of a server that has nothing to show
            await instance.shown()
        shown = (await instance.supervisor.status())["services"]["pacs"]
        assert shown["state"] != "up"
        assert "its clients of TLS are turned away" in shown["reason"]
        own.key.write_bytes(good)
        found: list[bytes] = []

        async def look() -> None:
            while not found:
                try:
                    found.append(await instance.shown())
                except OSError:
                    await asyncio.sleep(OFTEN_S)

        await asyncio.wait_for(look(), 20)
        assert found == [first]

    run(lambda: Instance(tmp_path, own), scene)


@pytest.mark.parametrize("content", [b"\xff\xff", b'{"pacs": 5}', b'{"pacs": {"CT": 1e7}}'])
def test_whatever_is_in_the_file_of_what_was_learned_it_starts(tmp_path: Path, own: Issued, content: bytes) -> None:
    (tmp_path / "learned.json").write_bytes(content)

    async def scene(instance: Instance) -> None:
        await instance.shown()

    run(lambda: Instance(tmp_path, own), scene)
    kept = json.loads((tmp_path / "learned.json").read_bytes())
    assert kept == ({"pacs": {"CT": 1e7}} if b"CT" in content else {})


def test_what_a_gateway_learned_is_kept_when_it_is_stopped(tmp_path: Path, own: Issued) -> None:
    """Its last words are heard, and add to those of an earlier life."""
    path = tmp_path / "learned.json"
    path.write_bytes(b'{"plain": {"CT": 1e7, "MR": 5.0}, "gone": {"CT": 1.0}}')

    async def scene(instance: Instance) -> None:
        for calling in ("MR", "US"):
            line = await dial(instance.plain_port)
            await (await line.associate(encode_request("PACS", calling, CONTEXTS))).release()

    run(lambda: Instance(tmp_path, own), scene)
    kept = json.loads(path.read_bytes())
    assert kept.keys() == {"plain"}, "of services that there still are"
    assert kept["plain"].keys() == {"CT", "MR", "US"}
    assert kept["plain"]["CT"] == 1e7
    assert 5.0 < kept["plain"]["MR"] < kept["plain"]["US"] < 1000, "a mean of what was known and what came"


def test_a_file_that_is_spoiled_at_the_start_stops_its_service_alone(
    tmp_path: Path, own: Issued, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart of the machine nothing that runs has the old files any more."""
    monkeypatch.setattr(module, "_LOOK_AT_FACTS_EVERY_S", OFTEN_S)
    good = own.key.read_bytes()
    own.key.write_text("rubbish")

    async def scene(instance: Instance) -> None:
        (event, *_) = instance.events("task.hindered")
        assert event["task"] == "files of TLS"
        assert "services.pacs.tls.key" in event["reason"]
        await (await dial(instance.plain_port)).associate()
        with pytest.raises(OSError):  # noqa: PT011 the connection ends, in whatever way
            await instance.shown()
        own.key.write_bytes(good)
        await eventually(lambda: len(instance.events("plan.applied")) == 2, "better files")
        assert await instance.shown()

    run(lambda: Instance(tmp_path, own), scene)


@pytest.mark.parametrize("again", [Supervisor.reload, Supervisor.read_again], ids=["SIGHUP", "a pair that parts"])
def test_a_document_that_is_put_into_force_is_not_undone_by_who_reads_it_again_meanwhile(
    tmp_path: Path, own: Issued, monkeypatch: pytest.MonkeyPatch, again: Callable[[Supervisor], Awaitable[None]]
) -> None:
    async def scene(instance: Instance) -> None:
        supervisor, is_begun, may_end = instance.supervisor, asyncio.Event(), asyncio.Event()

        async def slowly(*given: Any) -> None:
            is_begun.set()
            await may_end.wait()
            await converge(*given)

        newer = instance.site.read_text().replace('"site": "x"', '"site": "newer"')
        with monkeypatch.context() as patch:
            patch.setattr(module, "converge", slowly)
            applied = asyncio.ensure_future(supervisor.apply(newer, force=False))
            await is_begun.wait()
            read = asyncio.ensure_future(again(supervisor))
            await asyncio.sleep(OFTEN_S)
            may_end.set()
            await asyncio.gather(applied, read)
        assert instance.site.read_text() == newer
        assert (supervisor.document, supervisor.plan.site) == (newer, "newer")
        assert instance.events("plan.refused") == []

    run(lambda: Instance(tmp_path, own), scene)


def test_rules_that_were_flushed_keep_nobody_from_an_end_in_order(
    tmp_path: Path, own: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    async def fails(engine: Layer4Engine, drain_s: float) -> None:
        raise EngineError("no such table")

    async def ends(engine: AddressesEngine, drain_s: float) -> None:
        ended.append(engine.name)

    monkeypatch.setattr(Layer4Engine, "stop", fails)
    monkeypatch.setattr(AddressesEngine, "stop", ends)
    instances: list[Instance] = []

    async def scene(instance: Instance) -> None:
        instances.append(instance)

    run(lambda: Instance(tmp_path, own), scene)
    assert ended == ["addresses"]
    (event,) = instances[0].events("task.hindered")
    assert (event["task"], event["reason"]) == ("stop", "no such table")


def test_what_the_peer_asks_waits_until_a_document_is_in_force(
    tmp_path: Path, own: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ask HAProxy by the same file: each would be told what is wrong with the document of the other."""
    under_way: list[str] = []

    async def scene(instance: Instance) -> None:
        async def slowly(plan: Plan, *given: Any) -> list[tuple[Engine[Any], Any]]:
            under_way.append(plan.site)
            await asyncio.sleep(OFTEN_S)
            assert under_way == [plan.site]
            under_way.clear()
            return await checked(plan, *given)

        monkeypatch.setattr(converging, "checked", slowly)
        monkeypatch.setattr(module, "checked", slowly)
        newer, other = (instance.site.read_text().replace('"site": "x"', f'"site": "{name}"') for name in "yz")
        supervisor = instance.supervisor
        await asyncio.gather(supervisor.apply(newer, force=False), supervisor.would_change(other))
        assert supervisor.plan.site == "y"

    run(lambda: Instance(tmp_path, own), scene)

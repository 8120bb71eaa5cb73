"""The engine with the real HAProxy, the system's and the wheel's: what it does at each word of its protocol."""

import asyncio
import ssl
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from equipoise.base.errors import EngineError
from equipoise.engines.haproxy import master
from equipoise.engines.haproxy.artifact import Artifact, Bundle, Line
from equipoise.engines.haproxy.master import ours
from equipoise.engines.haproxy.runtime import Worker
from equipoise.plan.model import Endpoint
from equipoise.plan.states import StateName
from equipoise.state.events import HaproxyReloaded, HaproxyStarted
from tests.system.certificates import Authority
from tests.unit.engines.haproxy.served import (
    Site,
    asking,
    eventually,
    get,
    held_port,
    is_refused,
    names,
    node_states,
    play,
)

pytestmark = pytest.mark.usefixtures("program")


def test_it_serves_what_is_applied_and_a_second_time_does_nothing(directory: Path, program: str) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a", "b")
        artifact = site.artifact("a", "b")
        assert await site.engine.check(artifact) == []
        assert not ours(site.files)
        await site.engine.apply(artifact)
        assert await site.answers() == {"a", "b"}
        family = await site.family()
        await site.engine.apply(artifact)
        assert await site.family() == family
        (started,) = site.heard(HaproxyStarted)
        assert (started.pid, started.program) == (family.master, program)
        assert started.version.startswith("2.")
        assert names(site.events) == ["haproxy.started"]
        modes = {path.name: path.stat().st_mode & 0o777 for path in site.files.directory.iterdir() if path.is_file()}
        assert set(modes.values()) == {0o600}
        assert site.files.directory.stat().st_mode & 0o777 == 0o700
        assert "candidate.cfg" not in modes

    play(directory, scene)


def test_a_change_that_was_taken_back_does_not_stay_where_it_comes_into_force_too_late(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that is busy a new worker may serve only after it was given up."""

    async def impatient(*given: object, **more: object) -> Worker:
        raise EngineError("HAProxy does not serve the new configuration after 10 s")

    async def scene(site: Site) -> None:
        await site.nodes("a", "b", "c")
        before = site.artifact("a", "b")
        await site.engine.apply(before)
        with monkeypatch.context() as patch:
            patch.setattr(master, "_serving", impatient)
            with pytest.raises(EngineError, match="does not serve the new configuration"):
                await site.engine.apply(site.artifact("c"))
        with suppress(EngineError):
            await site.engine.apply(before)  # as everything is taken back

        async def answer(*nodes: str) -> bool:
            await site.engine.watch()
            return await site.answers() == set(nodes)

        await eventually(partial(answer, "a", "b"), "what served before")
        await site.put(a="down", b="up")
        await eventually(partial(answer, "b"), "a node taken out")  # also of a worker that comes only now
        reloads = len(site.heard(HaproxyReloaded))
        await site.engine.watch()
        assert len(site.heard(HaproxyReloaded)) == reloads, "once is enough"

    play(directory, scene)


def test_nothing_is_lost_by_reloads(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a", "b", "c")
        await site.engine.apply(site.artifact("a", "b"))
        told: Counter[str] = Counter()
        is_over = False

        async def client() -> None:
            while not is_over:
                told[await get(site.port)] += 1

        clients = [asyncio.ensure_future(client()) for _ in range(8)]
        for number in range(10):
            await site.engine.apply(site.artifact(*("c", "a", "b")[number % 2 :]))
            await asyncio.sleep(0.1)
        is_over = True
        await asyncio.gather(*clients)
        assert set(told) == {"a", "b", "c"}, "every answer came from a node"
        assert told.total() > 300
        assert len(site.heard(HaproxyReloaded)) == 10

    play(directory, scene)


def test_clients_keep_their_nodes_over_a_reload_that_puts_a_node_in_front(directory: Path) -> None:
    sources = [f"127.0.0.{number}" for number in range(2, 12)]

    async def scene(site: Site) -> None:
        await site.nodes("first", "a", "b")
        kept = {"persistence": {"by": "source_ip"}}
        await site.engine.apply(site.artifact("a", "b", **kept))
        before = {source: await get(site.port, source) for source in sources}
        assert set(before.values()) == {"a", "b"}
        await site.engine.apply(site.artifact("first", "a", "b", **kept))
        assert {source: await get(site.port, source) for source in sources} == before
        await site.engine.apply(site.artifact("first", "b", **kept))  # who was at `a` goes elsewhere, the rest stays
        after = {source: await get(site.port, source) for source in sources}
        assert {source for source in sources if before[source] == "b"} <= {s for s in sources if after[s] == "b"}
        assert "a" not in after.values()
        assert names(site.events) == ["haproxy.started", "haproxy.reloaded", "haproxy.reloaded"]

    play(directory, scene)


def test_nodes_go_out_and_come_back_at_once(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a", "b")
        await site.engine.apply(site.artifact("a", "b"))
        pids = await site.family()
        for word in ("down", "disabled", "drain"):
            await site.put(a=word, b="up")
            assert await site.answers() == {"b"}, word
            await site.put(a="up", b="up")
            assert await site.answers() == {"a", "b"}, word
        await asyncio.gather(site.put(a="up", b="down"), site.put(a="down", b="down"), site.put(a="down", b="up"))
        assert await site.answers() == {"b"}, "the last word counts"
        assert await site.family() == pids, "and no reload"
        text = site.files.configuration.read_text()
        assert next(line for line in text.splitlines() if line.strip().startswith("server a ")).endswith(" disabled")

    play(directory, scene)


def test_a_node_that_is_not_there_is_named(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a", "b")
        artifact = site.artifact("a", "b")
        pool = replace(artifact.pools[0], nodes={"a": 1, "b": 2, "ghost": 3})
        await site.engine.apply(replace(artifact, pools=(pool,)))
        with pytest.raises(EngineError, match=r"HAProxy did not take `set server web/ghost .*No such server"):
            await site.put(a="up", b="down", ghost="down")
        assert await site.answers() == {"a"}, "the others were told"

    play(directory, scene)


def test_nodes_go_out_and_come_back_while_nothing_can_be_written(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a", "b")
        await site.engine.apply(site.artifact("a", "b"))
        await site.put(a="up", b="up")
        site.files.configuration.unlink()
        site.files.configuration.mkdir()  # refuses to be written, as a full disk does
        expected: dict[StateName, set[str]] = {"down": {"b"}, "up": {"a", "b"}, "disabled": {"b"}}
        for word, answers in expected.items():
            with pytest.raises(EngineError, match="cannot be written"):
                await site.put(a=word, b="up")
            assert await site.answers() == answers, word
        site.files.configuration.rmdir()
        await site.engine.watch()
        assert site.files.configuration.read_text().count(" disabled") == 1, "written down as soon as there is room"

    play(directory, scene)


def test_a_drain_ends(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a", "b")
        cookie = {"persistence": {"by": "cookie", "fallback": "none"}}
        await site.engine.apply(site.artifact("a", "b", top={"drain_timeout": "2s"}, **cookie))
        await site.put(a="drain", b="up")
        assert site.files.configuration.read_text().count(" disabled") == 0
        await site.engine.apply(site.artifact("a", "b", top={"drain_timeout": "1500ms"}, **cookie))  # no reload

        async def is_out() -> bool:
            return site.files.configuration.read_text().count(" disabled") == 1

        await eventually(is_out, "the end of the drain")
        await site.put(a="up", b="up")
        await asyncio.sleep(2)
        assert await site.answers() == {"a", "b"}, "it is not taken out again"

    play(directory, scene)


def test_check_says_what_would_be_refused(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a")
        artifact = site.artifact("a")
        wrong = replace(
            artifact, lines=(*artifact.lines, Line("    balanse roundrobin", ("services", "web", "balance")))
        )
        (refusal,) = await site.engine.check(wrong)
        assert refusal.path == ("services", "web", "balance")
        assert "HAProxy" in refusal.message
        assert "balanse" in refusal.message
        missing = Bundle("certs/x.pem", (str(directory / "none.pem"),), ("services", "web", "tls", "cert"))
        (refusal,) = await site.engine.check(replace(artifact, bundles=(missing,)))
        assert str(refusal).startswith(f"services.web.tls.cert: {directory}/none.pem cannot be read")
        (refusal,) = await site.engine.check(replace(artifact, listen=(Endpoint("127.0.0.1", site.webs["a"].port),)))
        assert "another program has the port" in refusal.message
        assert await site.engine.check(Artifact()) == []
        await site.engine.apply(artifact)
        assert await site.engine.check(site.artifact("a", balance="least_connections")) == [], (
            "its own port is no clash"
        )

    play(directory, scene)


def test_what_cannot_be_loaded_leaves_the_old_in_force(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a")
        artifact = site.artifact("a")
        wrong = replace(artifact, lines=(*artifact.lines, Line("nonsense")))
        with pytest.raises(EngineError, match=r"ended at once: .*nonsense"):
            await site.engine.apply(wrong)
        assert not ours(site.files)
        await site.engine.apply(artifact)
        text = site.files.configuration.read_text()
        for _ in range(2):
            with pytest.raises(EngineError, match=r"did not load its configuration: .*nonsense"):
                await site.engine.apply(wrong)
            assert await site.answers() == {"a"}
            assert site.files.configuration.read_text() == text
        await site.engine.apply(artifact)
        await site.nodes("b")
        await site.engine.apply(site.artifact("b"))
        assert await site.answers() == {"b"}

    play(directory, scene)


def test_a_service_more_and_none_at_all(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a")
        await site.engine.apply(site.artifact("a"))
        held, other = held_port()
        await site.engine.apply(site.artifact("a", listen=[f"127.0.0.1:{site.port}", f"127.0.0.1:{other}"]))
        assert await get(other) == "a"
        asked = await asking(other, site.webs["a"])
        await site.engine.apply(Artifact())
        await eventually(lambda: is_refused(other))
        site.webs["a"].may_answer.set()
        assert await asked == "a", "what was open went on to its end"

        async def is_gone() -> bool:
            return not ours(site.files)

        await eventually(is_gone, "the end")
        await site.engine.set_nodes(node_states(a="down"))
        assert not (await site.engine.observe()).nodes
        held.close()

    play(directory, scene)


def test_a_renewed_certificate_is_shown_without_loss(directory: Path) -> None:
    authority = Authority(directory / "ca")

    def secured(site: Site, content: str) -> Artifact:
        tls = {"cert": str(directory / "web.pem"), "key": str(directory / "web.key")}
        return site.artifact("a", files={tls["cert"]: content}, protocol="https", tls=tls)

    async def scene(site: Site) -> None:
        await site.nodes("a")

        async def serve(name: str) -> None:
            issued = authority.issue(name)
            (directory / "web.pem").write_bytes(issued.cert.read_bytes())
            (directory / "web.key").write_bytes(issued.key.read_bytes())
            artifact = secured(site, name)
            assert await site.engine.check(artifact) == []
            await site.engine.apply(artifact)
            assert await asyncio.to_thread(certificate_at, site.port) == issued.cert.read_text()

        for name in ("first", "second", "third"):
            await serve(name)
        assert names(site.events) == ["haproxy.started", "haproxy.reloaded", "haproxy.reloaded"]
        assert len(list((site.files.directory / "certs").iterdir())) == 2, "this and the one before"
        (directory / "web.key").write_text("no key")
        (refusal, *_) = await site.engine.check(secured(site, "x"))
        assert refusal.path[:3] == ("services", "web", "tls")

    play(directory, scene)


def certificate_at(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port))

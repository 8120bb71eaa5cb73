"""What the real HAProxy counts and what its own checks say, over reloads and while old workers drain."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from equipoise.state.events import NodeAccepted, NodeRefused
from tests.unit.engines.haproxy.served import Site, asking, eventually, get, play

pytestmark = pytest.mark.usefixtures("program")


def test_bytes_grow_over_reloads_and_old_connections_count(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a", "b")
        await site.engine.apply(site.artifact("a"))
        await get(site.port)

        async def is_counted() -> bool:
            return (await site.engine.observe()).nodes["web/a"].connections == 0

        await eventually(is_counted, "the end of the request")
        first = (await site.engine.observe()).nodes["web/a"]
        assert first.bytes_in > 20
        assert first.bytes_out > 20
        assert first.connections == 0
        asked = await asking(site.port, site.webs["a"])
        assert (await site.engine.observe()).nodes["web/a"].connections == 1
        await site.engine.apply(site.artifact("a", "b"))
        observed = await site.engine.observe()
        assert observed.nodes["web/a"].connections == 1, "at the old worker"
        assert observed.connections == {"web": 1}
        assert observed.nodes["web/a"].bytes_in >= first.bytes_in
        assert len((await site.family()).old) == 1
        site.webs["a"].may_answer.set()
        assert await asked == "a"

        async def is_gone() -> bool:
            return not (await site.family()).old

        await eventually(is_gone, "the end of the old worker")
        last = (await site.engine.observe()).nodes["web/a"]
        assert last.connections == 0
        assert last.bytes_out >= first.bytes_out

    play(directory, scene)


def test_a_cut_reaches_old_workers(directory: Path) -> None:
    async def scene(site: Site) -> None:
        await site.nodes("a", "b")
        await site.engine.apply(site.artifact("a", on_down="cut"))
        await site.put(a="up")
        asked = await asking(site.port, site.webs["a"])
        await site.engine.apply(site.artifact("a", "b", on_down="cut"))
        await site.put(a="down", b="up")
        assert await asked in ("502", "503"), "the client need not wait for a node that is gone"

    play(directory, scene)


def test_a_node_that_haproxy_cannot_reach_is_refused(directory: Path) -> None:
    health: dict[str, Any] = {"health": {"check": "tcp", "interval": "1s", "rise": 1, "fall": 1}}

    async def scene(site: Site) -> None:
        await site.nodes("a", "b")
        await site.engine.apply(site.artifact("a", "b", **health))
        await site.put(a="up", b="up")
        site.webs["a"].close()

        async def has_refused() -> bool:
            await site.engine.watch()
            return bool(site.heard(NodeRefused))

        await eventually(has_refused, "a refusal")
        assert [(e.service, e.node, e.reason) for e in site.heard(NodeRefused)] == [("web", "a", "connection refused")]
        observed = await site.engine.observe()
        assert observed.nodes["web/a"].refused == "connection refused"
        assert observed.nodes["web/b"].refused is None
        assert await site.answers(4) == {"b"}
        await site.webs["a"].open_again()

        async def has_accepted() -> bool:
            await site.engine.watch()
            return bool(site.heard(NodeAccepted))

        await eventually(has_accepted, "an acceptance")
        assert (await site.engine.observe()).nodes["web/a"].refused is None
        assert len(site.events) == 3, "each is said once"

    play(directory, scene)


def test_a_node_that_we_took_out_is_refused_by_nobody(directory: Path) -> None:
    health: dict[str, Any] = {"health": {"check": "tcp", "interval": "1s", "rise": 1, "fall": 1}}

    async def scene(site: Site) -> None:
        await site.nodes("a", "b")
        await site.engine.apply(site.artifact("a", "b", **health))
        site.webs["a"].close()
        await site.put(a="down", b="up")
        await asyncio.sleep(1.5)
        await site.engine.watch()
        assert (await site.engine.observe()).nodes["web/a"].refused is None
        assert not site.heard(NodeRefused)

    play(directory, scene)

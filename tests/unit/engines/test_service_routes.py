"""Associations that a route moves to another service: counted, blamed, disabled, drained and ended there."""

import asyncio
from typing import Any

import pytest

from equipoise.engines.gateway.messages import ServiceTask
from equipoise.plan.model import Endpoint, PassiveHealth, ProxyProtocol
from equipoise.plan.states import NodeState
from equipoise.proto.dicom.pdu import REJECT_CONGESTION, REJECT_LIMIT, REJECT_NO_REASON, Pdu, PduType
from equipoise.state.events import NodeRested
from tests.playbook.scene import ECHO_RQ, route
from tests.unit.engines.running import Archive, Line, Running, dial, eventually, nodes, play, task
from tests.unit.proto.captures import ECHOSCU_RQ

WL_RQ = ECHOSCU_RQ.replace(b"ARCHIVE ", b"WORKLIST")  # its called AE
TO_POOL = (route("pool", called_ae="WORKLIST"),)


def front(place: Endpoint, **settings: Any) -> ServiceTask:
    return task("front", **{"listen": (place,), "routes": TO_POOL, **settings})


async def two(running: Running, archive: Archive, **pool: Any) -> int:
    """Serve `front`, whose WORKLIST calls go to `pool`; return its port."""
    place = running.endpoint()
    await running.serve(front(place), task("pool", nodes=nodes({"a": archive.port}), **pool))
    return place.port


def open_at(running: Running, service: str) -> tuple[int, int]:
    """Return the clients of a service, and the associations at its node a."""
    observed = (running.services.get(service) or running.leaving[service]).observe()
    return observed.clients, observed.nodes["a"].connections if "a" in observed.nodes else 0


async def heard(line: Line) -> Pdu | None:
    found = await line.pdu()
    return Pdu(PduType(found[0]), found[6:]) if found else None


def test_it_is_counted_where_it_leads() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        port = await two(running, archive)
        line = await (await dial(port)).associate(WL_RQ)
        assert (open_at(running, "front"), open_at(running, "pool")) == ((0, 0), (1, 1))
        await line.echo()
        await line.release()
        (event,) = await running.all_ended(1)
        assert (event.service, event.routed_from, event.node, event.ended) == ("pool", "front", "a", "released")
        counts = running.services["pool"].observe().nodes["a"]
        assert (counts.associations, counts.bytes_in, counts.bytes_out) == (1, event.bytes_in, event.bytes_out)
        archive.close()

    play(scene)


def test_without_a_route_of_its_own_it_is_refused_where_it_came() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        port = await two(running, archive)
        line = await dial(port)
        line.send(ECHOSCU_RQ)
        assert await line.pdu() == REJECT_NO_REASON.encode()
        line.close()
        (event,) = await running.all_ended(1)
        assert (event.service, event.routed_from, event.ended) == ("front", None, "refused")
        assert "add a route, or nodes" in event.reason
        archive.close()

    play(scene)


def test_disabling_its_node_ends_it_after_its_message() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        archive.echoes = False
        port = await two(running, archive)
        line = await (await dial(port)).associate(WL_RQ)
        line.send(ECHO_RQ)
        await eventually(lambda: len(archive.heard) == 2, "the echo at the node")
        running.services["front"].set_state("a", NodeState("disabled", 100))  # that one has no such node
        running.services["pool"].set_state("a", NodeState("disabled", 100))
        late = await dial(port)
        late.send(WL_RQ)  # what comes after it is answered by then
        assert await late.pdu() == REJECT_CONGESTION.encode()
        late.close()
        await running.all_ended(1)
        assert open_at(running, "pool") == (1, 1), "a message is open"
        line.close()
        _, event = await running.all_ended(2)
        assert event.ended in ("client_closed", "disabled")
        archive.echoes = True
        running.services["pool"].set_state("a", NodeState("up", 100))
        idle = await (await dial(port)).associate(WL_RQ)
        running.services["pool"].set_state("a", NodeState("disabled", 100))
        found = await heard(idle)
        assert found is not None
        assert found.type is PduType.ABORT
        idle.close()
        *_, event = await running.all_ended(3)
        assert (event.service, event.routed_from, event.ended) == ("pool", "front", "disabled")
        assert event.reason == "a was disabled"
        archive.close()

    play(scene)


def test_draining_its_node_leaves_it_alone_and_takes_no_other() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        port = await two(running, archive)
        line = await (await dial(port)).associate(WL_RQ)
        running.services["pool"].set_state("a", NodeState("drain", 100))
        late = await dial(port)
        late.send(WL_RQ)
        assert await late.pdu() == REJECT_CONGESTION.encode()
        await line.echo()
        await line.release()
        late.close()
        refused, released = await running.all_ended(2)
        assert (refused.service, refused.ended, refused.routed_from) == ("pool", "no_node", "front")
        assert "a is drain" in refused.reason
        assert released.ended == "released"
        archive.close()

    play(scene)


def test_stopping_the_service_it_came_to_does_not_end_it_and_stopping_its_own_does() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        port = await two(running, archive)
        line = await (await dial(port)).associate(WL_RQ)
        running.services["front"].abort_all("front is stopped")
        await line.echo()
        running.services["pool"].abort_all("pool is stopped")
        found = await heard(line)
        assert found is not None
        assert found.type is PduType.ABORT
        line.close()
        (event,) = await running.all_ended(1)
        assert (event.service, event.ended, event.reason) == ("pool", "drained", "pool is stopped")
        archive.close()

    play(scene)


def test_failures_count_against_the_node_of_the_pool() -> None:
    async def scene(running: Running) -> None:
        good = await Archive().start()
        place = running.endpoint()
        passive = PassiveHealth(failures=2, within_s=30.0, rest_s=30.0)
        pool = task("pool", nodes=nodes({"dead": 1, "good": good.port}), passive_health=passive)
        await running.serve(front(place, nodes=nodes({"dead": 1})), pool)
        for number in range(4):
            line = await (await dial(place.port, source=f"127.0.0.{number + 1}")).associate(WL_RQ)
            await line.release()
        events = await running.all_ended(4)
        assert {event.node for event in events} == {"good"}
        rested = [event for event in running.events if isinstance(event, NodeRested)]
        assert [(event.service, event.node) for event in rested] == [("pool", "dead")]
        assert running.services["pool"].observe().nodes["dead"].rested
        assert not running.services["front"].observe().nodes["dead"].rested
        good.close()

    play(scene)


def test_it_waits_in_the_queue_of_the_pool_and_is_freed_there() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        port = await two(running, archive, max_connections=1, queue_wait_s=20.0)
        first = await (await dial(port)).associate(WL_RQ)
        second, third = [await dial(port, source=f"127.0.0.{number}") for number in (2, 3)]
        for line in (second, third):
            line.send(WL_RQ)
        await eventually(lambda: running.services["pool"].observe().waiting == 2, "two in the queue")
        assert running.services["front"].observe().waiting == 0
        third.reset()
        await eventually(lambda: running.services["pool"].observe().waiting == 1, "one in the queue")
        await first.release()
        assert (await second.pdu())[:1] == bytes([PduType.ASSOCIATE_AC])
        await second.release()
        events = await running.all_ended(3)
        assert {event.service for event in events} == {"pool"}
        archive.close()

    play(scene)


def test_the_pools_own_wait_counts() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        port = await two(running, archive, max_connections=1, queue_wait_s=0.2)
        first = await (await dial(port)).associate(WL_RQ)
        second = await dial(port)
        second.send(WL_RQ)
        assert await second.pdu() == REJECT_LIMIT.encode()
        second.close()
        await first.release()
        refused, _ = await running.all_ended(2)
        assert refused.reason.startswith("waited 0.2 s: the service is at its max_connections, 1")
        archive.close()

    play(scene)


def test_one_who_comes_by_a_route_and_one_who_comes_by_itself_share_the_pool() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        place, own = running.endpoint(), running.endpoint()
        pool = task("pool", listen=(own,), nodes=nodes({"a": archive.port}), max_connections=2, queue_wait_s=0.1)
        await running.serve(front(place), pool)
        lines = [await (await dial(port)).associate(WL_RQ) for port in (place.port, own.port)]
        assert open_at(running, "pool") == (2, 2)
        for port in (place.port, own.port):
            late = await dial(port)
            late.send(WL_RQ)
            assert await late.pdu() == REJECT_LIMIT.encode()
            late.close()
        for line in lines:
            await line.release()
        assert [event.routed_from for event in await running.all_ended(4)].count("front") == 2
        archive.close()

    play(scene)


def test_max_per_source_is_that_of_the_service_it_came_to_and_comes_back_to_it() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        place = running.endpoint()
        pool = task("pool", nodes=nodes({"a": archive.port}), max_per_source=1)
        await running.serve(front(place, max_per_source=2), pool)
        lines = [await (await dial(place.port)).associate(WL_RQ) for _ in range(2)]
        late = await dial(place.port)
        assert await late.pdu() == REJECT_LIMIT.encode()
        late.close()
        for line in lines:
            await line.release()
        await eventually(lambda: running.room.held == 0, "both gone")
        await (await (await dial(place.port)).associate(WL_RQ)).release()
        assert [event.service for event in await running.all_ended(4)] == ["front", "pool", "pool", "pool"]
        archive.close()

    play(scene)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_node_is_called_as_the_pool_says(version: str) -> None:
    async def scene(running: Running) -> None:
        first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            first.set_result(await reader.read(5))
            writer.close()

        node = await asyncio.start_server(note, "127.0.0.1", 0)
        pool = task(
            "pool",
            nodes=nodes({"a": node.sockets[0].getsockname()[1]}),
            proxy_protocol=ProxyProtocol(send=version),
        )
        place = running.endpoint()
        await running.serve(front(place), pool)
        line = await dial(place.port)
        line.send(WL_RQ)
        assert await asyncio.wait_for(first, 20) == {"v1": b"PROXY", "v2": b"\r\n\r\n\0"}[version]
        await line.pdu()
        line.close()
        await running.all_ended(1)
        node.close()

    play(scene)


# Services come and go


def test_an_association_goes_on_when_its_pool_is_taken_out() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        place = running.endpoint()
        pool = task("pool", nodes=nodes({"a": archive.port}))
        await running.serve(front(place), pool)
        line = await (await dial(place.port)).associate(WL_RQ)
        await running.serve(front(place, routes=(), nodes=nodes({"a": archive.port})))
        assert open_at(running, "pool") == (1, 1)
        await line.echo()
        direct = await (await dial(place.port)).associate(WL_RQ)
        assert open_at(running, "front") == (1, 1)
        await line.release()
        await direct.release()
        assert [event.service for event in await running.all_ended(2)] == ["pool", "front"]
        assert running.leaving["pool"].is_empty
        archive.close()

    play(scene)


def test_one_who_has_connected_before_a_route_went_is_led_as_it_was_then() -> None:
    """Its request comes after the change; the pool is still there while somebody has it, or the client is told."""

    async def scene(running: Running) -> None:
        archive = await Archive().start()
        place = running.endpoint()
        pool = task("pool", nodes=nodes({"a": archive.port}))
        await running.serve(front(place), pool)
        holding = await (await dial(place.port)).associate(WL_RQ)
        early, earlier = await dial(place.port), await dial(place.port)
        await eventually(lambda: running.services["front"].observe().clients == 2, "both connected")
        await running.serve(front(place, routes=(), nodes=nodes({"a": archive.port})))
        await (await early.associate(WL_RQ)).release()
        await holding.release()
        await eventually(lambda: running.leaving["pool"].is_empty, "an empty pool")
        del running.leaving["pool"]  # as the process does
        earlier.send(WL_RQ)
        assert await earlier.pdu() == REJECT_CONGESTION.encode()
        earlier.close()
        last = (await running.all_ended(3))[-1]
        assert (last.service, last.ended) == ("front", "no_node")
        assert "the service pool has been taken out" in last.reason
        archive.close()

    play(scene)


def test_one_who_waits_in_a_pool_that_is_taken_out_may_still_have_its_node() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        place = running.endpoint()
        pool = task("pool", nodes=nodes({"a": archive.port}), max_connections=1, queue_wait_s=20.0)
        await running.serve(front(place), pool)
        first = await (await dial(place.port)).associate(WL_RQ)
        second = await dial(place.port)
        second.send(WL_RQ)
        await eventually(lambda: running.services["pool"].observe().waiting == 1, "one in the queue")
        await running.serve(front(place, routes=(), nodes=nodes({"a": archive.port})))
        await first.release()
        assert (await second.pdu())[:1] == bytes([PduType.ASSOCIATE_AC])
        await second.release()
        await running.all_ended(2)
        archive.close()

    play(scene)


def test_one_goes_on_when_the_service_that_it_came_to_is_taken_out() -> None:
    async def scene(running: Running) -> None:
        archive = await Archive().start()
        place = running.endpoint()
        pool = task("pool", nodes=nodes({"a": archive.port}))
        await running.serve(front(place, max_per_source=1), pool)
        line = await (await dial(place.port)).associate(WL_RQ)
        await running.serve(pool)
        assert running.leaving["front"].is_empty
        await line.echo()
        await line.release()
        (event,) = await running.all_ended(1)
        assert (event.service, event.routed_from) == ("pool", "front")
        archive.close()

    play(scene)


def test_a_route_that_a_reload_adds_counts_for_who_comes_then() -> None:
    async def scene(running: Running) -> None:
        archive, other = await Archive().start(), await Archive().start()
        place = running.endpoint()
        own, pool = nodes({"b": other.port}), task("pool", nodes=nodes({"a": archive.port}))
        for routes, node in (((), "b"), (TO_POOL, "a"), ((), "b"), (TO_POOL, "a")):
            await running.serve(front(place, nodes=own, routes=routes), pool)
            line = await (await dial(place.port)).associate(WL_RQ)
            await line.release()
            assert running.ended()[-1].node == node
        await running.all_ended(4)
        archive.close()
        other.close()

    play(scene)

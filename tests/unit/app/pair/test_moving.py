"""The addresses: handed over on request, left to the peer in a fault, and a split that lasts is said."""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from equipoise.app.pair import moving, talking
from equipoise.app.pair.hearing import Hearing
from equipoise.base.errors import EngineError, EquipoiseError
from equipoise.cluster.messages import Hello
from equipoise.engines.addresses import questions
from equipoise.health.asking import Outcome
from equipoise.plan.model import Cluster, ManagedAddress, Plan
from equipoise.plan.soft import SoftEntry
from equipoise.sim.ports import free_port
from tests.unit.app.pair.halves import FIRST, SECOND, Two, document, joined, until_status
from tests.unit.engines.running import eventually

VIP = "192.0.2.100"


def holder(two: Two) -> list[bool]:
    return [half.keepalived.now["primary"].state == "master" for half in two.both]


async def ready(two: Two) -> None:
    """Wait until the peer is seen standing by."""
    await two.meet()
    for half in two.both:
        await until_status(half, lambda now: [group["there"] for group in now["groups"]] in (["backup"], ["master"]))


def test_handed_over_there_and_back(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await ready(two)
            assert holder(two) == [True, False]
            done = await two.first.pair.handover([], here=False)
            assert (done["groups"], done["to"]) == (["primary"], SECOND)
            assert holder(two) == [False, True]
            assert two.first.said("cluster.handover")[0]["to"] == SECOND
            now = await two.first.pair.status()
            assert [(group["holder"], group["here"]) for group in now["groups"]] == [("peer", "backup")]
            assert now["last_failover"]["to"] == "peer"
            with pytest.raises(EquipoiseError, match="add --here"):
                await two.first.pair.handover([], here=False)
            done = await two.first.pair.handover(["primary"], here=True)
            assert (done["groups"], done["to"]) == (["primary"], FIRST)
            assert holder(two) == [True, False]
            assert (await two.first.pair.handover([], here=True))["groups"] == []  # nothing to move
            with pytest.raises(EquipoiseError, match="'secondary' is no group"):
                await two.first.pair.handover(["secondary"], here=False)

    asyncio.run(scene())


def test_services_at_one_machines_own_addresses_alone_are_named(tmp_path: Path) -> None:
    listens = {"own": f"{SECOND}:105", "both": f"['{SECOND}:106', '192.0.2.100:106']", "any": "0.0.0.0:107"}
    listens["each"] = f"['{FIRST}:108', '{SECOND}:108']"
    further = "".join(
        f"  {name}: {{protocol: dicom, listen: {listen}, nodes: {{a: {{address: 192.0.2.97}}}}}}\n"
        for name, listen in listens.items()
    )
    port = free_port(FIRST, SECOND)

    async def scene() -> None:
        async with joined(tmp_path, document(port=port) + further) as two:
            for half in two.both:
                now = await half.pair.status()
                assert now["staying"] == [{"service": "own", "addresses": [SECOND]}]

    asyncio.run(scene())


def test_what_is_learned_is_told_before_addresses_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await ready(two)
            await until_status(two.first, lambda now: now["lag"]["behind_s"] == 0)
            monkeypatch.setattr(talking, "_PUSH_EVERY_S", 3600.0)
            await asyncio.sleep(0.1)
            two.first.engine.learn(SoftEntry("10.0.0.1", "a", 60.0))
            await two.first.pair.handover([], here=False)
            assert "10.0.0.1" in two.second.engine.known

    asyncio.run(scene())


def test_a_peer_that_does_not_take_them_leaves_them_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "_TAKEN_WITHIN_S", 0.3)

    async def scene() -> None:
        async with joined(tmp_path) as two:
            await ready(two)
            monkeypatch.setattr(two.second.keepalived, "can_have", lambda name: False)
            with pytest.raises(EquipoiseError, match="did not take the addresses"):
                await two.first.pair.handover([], here=False)
            assert holder(two) == [True, False]
            assert two.first.said("cluster.handover") == []

    asyncio.run(scene())


def test_a_peer_that_falls_silent_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "_TAKEN_WITHIN_S", 0.3)

    async def hang(said: Hello) -> Hello:
        await asyncio.sleep(3600)
        return said

    async def scene() -> None:
        async with joined(tmp_path) as two:
            await ready(two)
            monkeypatch.setattr(two.second.keepalived, "can_have", lambda name: False)
            give, loop, gone_s = two.first.keepalived.give, asyncio.get_running_loop(), []

            async def give_and_fall_silent(groups: Collection[str], reason: str = "") -> None:
                monkeypatch.setattr(two.second.pair, "hear_hello", hang)
                gone_s.append(loop.time())
                await give(groups, reason)

            monkeypatch.setattr(two.first.keepalived, "give", give_and_fall_silent)
            with pytest.raises(EquipoiseError, match="did not take the addresses"):
                await two.first.pair.handover([], here=False)
            assert holder(two) == [True, False]
            assert loop.time() - gone_s[0] < 1.9  # a greeting alone waits for 2 s

    asyncio.run(scene())


def test_a_peer_with_a_fault_gets_nothing_and_a_fault_here_gives_all(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await ready(two)
            two.second.engine.problem = "its gateway hangs"
            now = await until_status(two.first, lambda now: now["peer"]["fault"])
            assert now["peer"]["fault"] == "its gateway hangs"
            with pytest.raises(EquipoiseError, match="cannot carry traffic: its gateway hangs"):
                await two.first.pair.handover([], here=False)
            two.second.engine.problem = None
            await until_status(two.first, lambda now: now["peer"]["fault"] is None)
            two.first.engine.problem = "no gateway"
            await eventually(lambda: holder(two) == [False, True])
            assert (await two.first.pair.status())["fault"] == "no gateway"
            two.first.engine.problem = None
            await until_status(two.first, lambda now: now["fault"] is None)
            assert holder(two) == [False, True]  # they stay

    asyncio.run(scene())


def test_a_fault_that_cannot_be_told_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(reason: str | None) -> None:
        raise EngineError("no room")

    async def scene() -> None:
        async with joined(tmp_path) as two:
            monkeypatch.setattr(two.first.keepalived, "set_fault", refuse)
            await eventually(lambda: two.first.said("task.hindered"))
            await asyncio.sleep(0.3)
            assert [event["reason"] for event in two.first.said("task.hindered")] == ["no room"]

    asyncio.run(scene())


def test_a_machine_that_is_stopped_gives_its_addresses_away_first(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await ready(two)
            await two.first.pair.stop()
            assert holder(two) == [False, True]
            assert two.first.keepalived.is_stopped
            now = await until_status(two.second, lambda now: not now["peer"]["connected"])
            assert now["groups"][0]["holder"] == "here"
            await two.second.pair.stop()  # nobody is there to take them: they stay until all is drained
            assert not two.second.keepalived.is_stopped

    asyncio.run(scene())


def test_a_peer_that_is_being_stopped_gets_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await ready(two)
            await two.second.pair.stop()
            with pytest.raises(EquipoiseError, match="does not answer"):
                await two.first.pair.handover([], here=False)
            assert holder(two) == [True, False]

    asyncio.run(scene())


def test_with_preempt_home_is_where_addresses_stay(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path, more=", preempt: true") as two:
            await ready(two)
            with pytest.raises(EquipoiseError, match=r"cluster\.preempt"):
                await two.first.pair.handover([], here=False)

    asyncio.run(scene())


def test_a_split_is_said_when_it_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "_LASTS_S", 1.2)

    async def scene() -> None:
        async with joined(tmp_path) as two:
            await ready(two)
            standby = two.second.keepalived.now["primary"]
            for lasts_s in (0.2, 0.2):
                two.second.keepalived.now["primary"] = replace(standby, holds=(VIP,))
                await asyncio.sleep(lasts_s)
                two.second.keepalived.now["primary"] = standby
                await asyncio.sleep(0.2)
            assert two.first.said("cluster.split") == []
            two.second.keepalived.now["primary"] = replace(standby, state="master", holds=(VIP,))
            for half in two.both:
                await eventually(partial(half.said, "cluster.split"))
                now = await half.pair.status()
                assert now["split"]["addresses"] == [VIP]
                assert now["groups"][0]["holder"] == "both"
            two.second.keepalived.now["primary"] = standby
            for half in two.both:
                await until_status(half, lambda now: now["split"] is None)
                assert [event["addresses"] for event in half.said("cluster.split")] == [(VIP,), ()]

    asyncio.run(scene())


def test_an_answer_that_was_given_once_is_no_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def conflicts(held: frozenset[ManagedAddress]) -> dict[ManagedAddress, tuple[str, ...]]:
        asked.append(len(held))
        return {each: ("02:00:00:00:00:07",) if len(asked) % 2 else () for each in held}  # it gave them to us just then

    monkeypatch.setattr(moving, "_ASK_SEGMENT_EVERY_S", 0.05)
    monkeypatch.setattr(moving, "_ASK_AGAIN_S", 0.01)
    monkeypatch.setattr(questions, "conflicts", conflicts)

    async def scene() -> None:
        async with joined(tmp_path) as two:
            await ready(two)
            await eventually(lambda: len(asked) > 8)
            assert all(half.said("cluster.split") == [] for half in two.both)

    asyncio.run(scene())


def test_another_machine_that_answers_for_an_address_is_a_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[str] = ["02:00:00:00:00:07"]
    monkeypatch.setattr(moving, "_ASK_SEGMENT_EVERY_S", 0.05)
    monkeypatch.setattr(
        questions, "conflicts", lambda held: {each: tuple(answers) for each in held if isinstance(each, ManagedAddress)}
    )

    async def scene() -> None:
        async with joined(tmp_path) as two:
            now = await until_status(two.first, lambda now: now["split"])
            assert now["split"] == {
                "addresses": [VIP],
                "found": f"another machine (02:00:00:00:00:07) answers for {VIP}",
            }
            answers.clear()
            await until_status(two.first, lambda now: now["split"] is None)
            assert two.second.said("cluster.split") == []

    asyncio.run(scene())


def check(two: Two, *, first: bool, second: bool) -> None:
    """Have every check end so, on each machine."""
    for half, ok in zip(two.both, (first, second), strict=True):
        for key in half.book.states():
            for _ in range(3):
                half.book.heard(key, Outcome(ok=ok, reason="as the test says", at_wall_s=0.0, took_ms=1.0))


def test_a_machine_that_reaches_no_node_leaves_the_addresses_to_one_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "_BLIND_S", 0.5)

    async def scene() -> None:
        async with joined(tmp_path) as two:
            await ready(two)
            check(two, first=False, second=False)
            await asyncio.sleep(1.5)
            assert (holder(two), two.first.said("cluster.fault")) == ([True, False], []), "where both fail it stays"
            check(two, first=False, second=True)
            now = await until_status(two.first, lambda now: now["fault"] is not None)
            assert now["fault"].startswith("no node answers the checks of this machine, and ")
            await eventually(lambda: holder(two) == [False, True])
            check(two, first=True, second=True)
            await until_status(two.first, lambda now: now["fault"] is None)

    asyncio.run(scene())


def test_a_look_at_who_is_there_that_is_cancelled_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a plan brings another conversation; else this machine would never notice that it hears nothing."""
    begun: list[str] = []
    done: list[str] = []

    async def follow(ear: Hearing, plan: Plan, cluster: Cluster) -> None:
        begun.append(plan.digest)
        await asyncio.sleep(0.2)
        done.append(plan.digest)

    async def scene() -> None:
        async with joined(tmp_path) as two:
            await ready(two)
            await two.second.end()
            await two.first.pair.close()  # no more judging but ours
            monkeypatch.setattr(Hearing, "follow", follow)
            await two.first.change(document("newer", two.port), force=False)
            judging = asyncio.ensure_future(two.first.pair._moving.judge())
            await eventually(lambda: begun)
            judging.cancel()
            await asyncio.wait([judging])
            for _ in range(2):
                await two.first.pair._moving.judge()
            assert done == [two.first.plan.digest], "once"

    asyncio.run(scene())

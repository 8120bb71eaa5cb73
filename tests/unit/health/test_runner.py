"""The runner with real connections, in real but short time."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from statistics import fmean, median

import pytest

from equipoise.base.clock import SystemClock
from equipoise.base.errors import EquipoiseError
from equipoise.base.tasks import Tasks
from equipoise.config.base import CheckParams
from equipoise.health.asking import Outcome
from equipoise.health.base import Check, Link, Result
from equipoise.health.catalogue import checks
from equipoise.health.checks.dicom_echo import Params as EchoParams
from equipoise.health.question import Question
from equipoise.health.runner import HealthRunner, Target
from tests.unit.health.conftest import Run
from tests.unit.health.fake_peer import FakePeer, says_nothing, serving
from tests.unit.health.peers import dicom_echo as dicom_peers
from tests.unit.health.plans import node, service

INTERVAL_S = 0.1


class Watched:
    """A runner, and everything that it said."""

    def __init__(self, parallel: int = 64, more: Sequence[Check] = ()) -> None:
        self.results: list[tuple[float, Target, Outcome]] = []
        self.failures: list[tuple[str, BaseException]] = []
        self.on_result: Callable[[Target, Outcome], None] = lambda target, outcome: None
        self.tasks = Tasks(lambda name, failure: self.failures.append((name, failure)))
        catalogue = {**checks(), **{check.name: check for check in more}}
        self.runner = HealthRunner(
            catalogue, self.tasks, SystemClock(), self._took, random=Random(7), parallel=parallel
        )

    def _took(self, target: Target, outcome: Outcome) -> None:
        self.results.append((asyncio.get_running_loop().time(), target, outcome))
        self.on_result(target, outcome)

    def of(self, node: str) -> list[Outcome]:
        return [outcome for _, target, outcome in self.results if target.node == node]

    def times_of(self, node: str) -> list[float]:
        return [at_s for at_s, target, _ in self.results if target.node == node]

    async def until(self, enough: Callable[[], bool], within_s: float = 20.0) -> None:
        for _ in range(int(within_s / 0.005)):
            if enough():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"not within {within_s} s; seen: {self.results[-3:]}, {self.failures}")

    async def end(self) -> None:
        self.runner.stop()
        await self.tasks.cancel_all()


def target(
    node: str, port: int, check: str = "tcp", params: CheckParams | None = None, service: str = "ct", rise: int = 2
) -> Target:
    settings = params or CheckParams(interval=INTERVAL_S, timeout=5)
    return Target(service, node, Question.by_hand(check, settings, "127.0.0.1", port), rise, 3)


def test_asks_at_once_and_then_each_interval_with_a_jitter(run: Run) -> None:
    interval_s = 0.4

    async def body() -> None:
        watched = Watched()
        async with serving(says_nothing) as peer:
            began = asyncio.get_running_loop().time()
            watched.runner.set_targets([target("a", peer.port, params=CheckParams(interval=interval_s, timeout=5))])
            await watched.until(lambda: len(watched.results) >= 8)
            await watched.end()
        times = watched.times_of("a")
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert times[0] - began < interval_s * 0.8
        assert interval_s * 0.9 - 0.03 < median(pauses) < interval_s * 1.1 + 0.1
        assert max(pauses) - min(pauses) > interval_s * 0.03
        assert all(outcome.ok for outcome in watched.of("a"))

    run(body())


def test_the_same_question_is_asked_once_and_answered_to_all(run: Run) -> None:
    async def body() -> None:
        watched = Watched()
        async with serving(says_nothing) as peer:
            params = CheckParams(interval=5, timeout=0.2, port=peer.port, rise=9)
            same = CheckParams(interval=5, timeout=0.2)
            wanted = [
                target("a", 1, params=params, service="ct"),
                target("a", peer.port, params=same, service="mr"),
                target("b", peer.port, params=same, service="mr", rise=5),
            ]
            watched.runner.set_targets(wanted)
            await watched.until(lambda: len(watched.results) == 3)
            assert len(peer.heard) == 1
            assert [who for _, who, _ in watched.results] == wanted
            await watched.end()

    run(body())


def test_what_stays_is_not_disturbed_and_what_goes_is_not_asked(run: Run) -> None:
    async def body() -> None:
        watched = Watched()
        async with serving(says_nothing) as stays, serving(says_nothing) as goes, serving(says_nothing) as comes:
            slow = CheckParams(interval=30, timeout=0.2)
            kept = target("kept", stays.port, params=slow)
            watched.runner.set_targets([kept, target("gone", goes.port)])
            await watched.until(lambda: len(watched.of("gone")) >= 2)
            watched.runner.set_targets([target("new", comes.port), kept])
            asked = len(goes.heard)
            await watched.until(lambda: len(watched.of("new")) >= 3)
            assert (len(stays.heard), len(goes.heard)) == (1, asked)
            assert len(watched.of("kept")) == 1
            await watched.end()

    run(body())


def test_a_target_that_joins_a_question_hears_its_last_outcome_at_once(run: Run) -> None:
    async def body() -> None:
        watched = Watched()
        async with serving(says_nothing) as peer:
            slow = CheckParams(interval=30, timeout=0.2)
            first, second = (target("a", peer.port, params=slow, service=name) for name in ("ct", "mr"))
            watched.runner.set_targets([first])
            await watched.until(lambda: len(watched.results) == 1)
            watched.runner.set_targets([first, second])
            await watched.until(lambda: len(watched.results) == 2)
            other_limits = target("a", peer.port, params=slow, service="ct", rise=4)
            watched.runner.set_targets([other_limits, second])
            await asyncio.sleep(0.05)
            assert [who for _, who, _ in watched.results] == [first, second]
            assert len(peer.heard) == 1
            await watched.end()

    run(body())


def test_a_check_under_way_is_dropped_with_its_target(run: Run) -> None:
    async def body() -> None:
        watched = Watched()
        async with serving(says_nothing) as peer:
            patient = EchoParams(interval=1, timeout=20)
            watched.runner.set_targets([target("a", peer.port, "dicom_echo", patient)])
            await watched.until(lambda: peer.open == 1)
            watched.runner.set_targets([])
            await peer.left_alone()
            assert watched.results == []
            assert watched.failures == []
            await watched.end()

    run(body())


def test_hanging_checks_do_not_delay_the_others(run: Run) -> None:
    async def body() -> None:
        watched = Watched()
        async with serving(says_nothing) as hangs, serving(dicom_peers.HEALTHY) as well:
            hanging = [
                target(f"hangs{n}", hangs.port, "dicom_echo", EchoParams(interval=2, timeout=2, called_ae=f"A{n}"))
                for n in range(20)
            ]
            quick = target("well", well.port, "dicom_echo", EchoParams(interval=INTERVAL_S, timeout=5))
            watched.runner.set_targets([*hanging, quick])
            await watched.until(lambda: len(watched.of("hangs7")) >= 1)
            assert len(watched.of("well")) >= 7
            assert all(outcome.ok for outcome in watched.of("well"))
            assert watched.of("hangs7")[0].reason == "connected, but no answer within 2 s"
            await watched.end()

    run(body())


def test_a_check_that_waits_for_its_turn_has_not_failed(run: Run) -> None:
    async def body() -> None:
        most = 0

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal most
            most = max(most, peer.open)
            await asyncio.sleep(0.4)
            await dicom_peers.HEALTHY(reader, writer)

        watched = Watched(parallel=2)
        async with serving(slow) as peer:
            # Eight checks of 0.4 s, two at a time, take 1.6 s: more than the timeout of each.
            params = [EchoParams(interval=20, timeout=1.2, called_ae=f"A{n}") for n in range(8)]
            watched.runner.set_targets([target(f"{n}", peer.port, "dicom_echo", p) for n, p in enumerate(params)])
            await watched.until(lambda: len(watched.results) == 8)
            assert [outcome.reason for _, _, outcome in watched.results] == ["C-ECHO answered 0000"] * 8
            assert max(outcome.took_ms for _, _, outcome in watched.results) < 1200
            await watched.end()
        assert most == 2

    run(body())


def test_a_name_that_does_not_resolve_fails_each_interval(run: Run) -> None:
    async def body() -> None:
        watched = Watched()
        unresolved = node("pacs.invalid:104", host=None)
        question = Question.of(service("tcp", CheckParams(interval=INTERVAL_S)), unresolved)
        watched.runner.set_targets([Target("ct", "a", question, 2, 3)])
        await watched.until(lambda: len(watched.results) >= 3)
        assert {(o.ok, o.reason) for o in watched.of("a")} == {(False, "the name pacs.invalid does not resolve")}
        times = watched.times_of("a")
        assert times[2] - times[0] > INTERVAL_S * 1.7
        await watched.end()

    run(body())


class Faulty:
    """A check whose probe raises what it is told to."""

    def __init__(self, failure: Exception, times: int) -> None:
        self.left = times
        self.check = Check("faulty", CheckParams, self._probe)
        self._failure = failure

    async def _probe(self, link: Link, params: CheckParams) -> Result:
        if self.left:
            self.left -= 1
            raise self._failure
        return Result.passed("well again")


def test_a_bug_in_a_check_is_a_failure_and_reported_and_the_question_goes_on(run: Run) -> None:
    async def body() -> None:
        watched = Watched(more=[Faulty(ZeroDivisionError("division\nby zero"), times=2).check])
        async with serving(says_nothing) as peer:
            watched.runner.set_targets([target("a", peer.port, "faulty"), target("b", peer.port)])
            await watched.until(lambda: len(watched.of("a")) >= 4 and len(watched.of("b")) >= 4)
            await watched.end()
        reason = "a bug in check faulty: ZeroDivisionError: division by zero; please report it"
        assert [o.reason for o in watched.of("a")][:4] == [reason, reason, "well again", "well again"]
        assert [(name.startswith("health faulty 127.0.0.1"), type(f)) for name, f in watched.failures] == [
            (True, ZeroDivisionError)
        ] * 2
        times = watched.times_of("a")
        assert fmean(later - earlier for earlier, later in pairwise(times)) > INTERVAL_S * 0.5

    run(body())


@pytest.mark.parametrize("failure", [TimeoutError("inner"), OSError("odd"), ConnectionResetError(104, "reset")])
def test_trouble_with_the_connection_is_the_nodes_failure_and_no_bug(run: Run, failure: Exception) -> None:
    async def body() -> None:
        watched = Watched(more=[Faulty(failure, times=1).check])
        async with serving(says_nothing) as peer:
            watched.runner.set_targets([target("a", peer.port, "faulty")])
            await watched.until(lambda: len(watched.of("a")) >= 1)
            await watched.end()
        assert not watched.of("a")[0].ok
        assert watched.failures == []

    run(body())


def test_what_this_machine_cannot_ask_is_reported_and_held_against_no_node(run: Run) -> None:
    async def body() -> None:
        watched = Watched(more=[Faulty(EquipoiseError("no descriptors left"), times=2).check])
        async with serving(says_nothing) as peer:
            watched.runner.set_targets([target("a", peer.port, "faulty")])
            await watched.until(lambda: len(watched.of("a")) >= 1)
            await watched.end()
        assert watched.of("a")[0].ok
        assert len(watched.failures) == 2

    run(body())


def test_a_listener_that_fails_is_reported_and_the_questions_go_on_at_their_pace(run: Run) -> None:
    async def body() -> None:
        watched = Watched()

        def fail(target: Target, outcome: Outcome) -> None:
            raise RuntimeError("the supervisor's bug")

        watched.on_result = fail
        async with serving(says_nothing) as peer:
            watched.runner.set_targets([target("a", peer.port)])
            await watched.until(lambda: len(watched.results) >= 4)
            await watched.end()
        assert Counter(type(failure) for _, failure in watched.failures).keys() == {RuntimeError}
        assert all(outcome.ok for outcome in watched.of("a"))
        times = watched.times_of("a")
        assert fmean(later - earlier for earlier, later in pairwise(times)) > INTERVAL_S * 0.5

    run(body())


def test_a_target_with_an_unknown_check_changes_nothing(run: Run) -> None:
    async def body() -> None:
        watched = Watched()
        with pytest.raises(ValueError, match="ct/a: there is no check 'ping'"):
            watched.runner.set_targets([target("a", 1, "ping")])
        assert len(watched.tasks) == 0

    run(body())


def test_a_node_that_dies_and_comes_back_is_seen(run: Run) -> None:
    async def body() -> None:
        watched = Watched()
        async with serving(dicom_peers.HEALTHY) as peer:
            port = peer.port
            watched.runner.set_targets([target("a", port, "dicom_echo", EchoParams(interval=INTERVAL_S, timeout=5))])
            await watched.until(lambda: watched.of("a") != [] and watched.of("a")[-1].ok)
        await watched.until(lambda: watched.of("a")[-1].reason == "connection refused")
        async with serving(dicom_peers.HEALTHY, port=port):
            await watched.until(lambda: watched.of("a")[-1].ok)
            await watched.end()

    run(body())


def test_over_ipv6(run: Run) -> None:
    async def body() -> None:
        watched = Watched()
        async with serving(dicom_peers.HEALTHY, "::1") as peer:
            question = Question.by_hand("dicom_echo", EchoParams(), "::1", peer.port)
            watched.runner.set_targets([Target("ct", "a", question, 1, 1)])
            await watched.until(lambda: len(watched.of("a")) == 1)
            await watched.end()
        assert watched.of("a")[0].reason == "C-ECHO answered 0000"

    run(body())


def test_no_connection_is_left_open(run: Run) -> None:
    async def body() -> FakePeer:
        watched = Watched()
        async with serving(says_nothing) as peer:
            watched.runner.set_targets([target("a", peer.port)])
            await watched.until(lambda: len(watched.results) >= 5)
            await watched.end()
            await peer.left_alone()
            return peer

    assert run(body()).open == 0

"""Ask every question of the plan again and again, each in its own time, and hand on what was seen.

The same question is asked once, however many services want to know.  Leaves out what follows from the answers
(`verdict.py`) and the conversations themselves (`checks`).
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

from equipoise.base.clock import Clock
from equipoise.base.errors import EquipoiseError
from equipoise.base.tasks import Tasks
from equipoise.config.base import CheckParams
from equipoise.health.asking import Outcome, ask
from equipoise.health.base import Check
from equipoise.health.catalogue import checks
from equipoise.health.dialling import unresolved
from equipoise.health.question import Question
from equipoise.plan.model import NodeTls

JITTER = 0.1  # of the interval, both ways: nodes that were added together are not asked together for ever
MAX_AT_ONCE = 64  # a site has some tens of nodes, and each takes a descriptor of the supervisor


@dataclass(frozen=True, slots=True)
class Target:
    """Who wants to know: a node of a service, and how many results in a row its verdict takes."""

    service: str
    node: str
    question: Question
    rise: int
    fall: int

    @property
    def asker(self) -> tuple[str, str]:
        """The node of the service."""
        return self.service, self.node


OnResult = Callable[[Target, Outcome], None]


@dataclass(slots=True, eq=False)
class _Asked:
    """A question that is being asked: who wants to know, and how far it is."""

    question: Question
    targets: dict[tuple[str, str], Target] = field(default_factory=dict)
    last: Outcome | None = None
    task: asyncio.Task[None] | None = None
    probing: bool = False  # a failure now is the check's, not the listener's


class HealthRunner:
    """All checks of one balancer.

    Args:
        catalogue: The checks, by name.
        tasks: Whose tasks the questions are; a bug in a check is reported there, and the question goes on.
        clock: Time of the outcomes.
        on_result: Called with every outcome, once for each target.
        random: For the jitter.
        parallel: Checks that talk at the same time; others wait for their turn, which does not count as their time.
    """

    def __init__(
        self,
        catalogue: Mapping[str, Check],
        tasks: Tasks,
        clock: Clock,
        on_result: OnResult,
        *,
        random: Random,
        parallel: int = MAX_AT_ONCE,
    ) -> None:
        self._catalogue = catalogue
        self._tasks = tasks
        self._clock = clock
        self._on_result = on_result
        self._random = random
        self._turns = asyncio.Semaphore(parallel)
        self._asked: dict[Question, _Asked] = {}

    def set_targets(self, targets: Sequence[Target]) -> None:
        """Ask for these nodes and no others.

        A new question is asked at once, one that stays goes on undisturbed.  A new target of a question that is asked
        already hears its last outcome at once.
        """
        wanted: dict[Question, dict[tuple[str, str], Target]] = {}
        for target in targets:
            for check in _names(target.question) - self._catalogue.keys():
                raise ValueError(f"{target.service}/{target.node}: there is no check {check!r}")
            wanted.setdefault(target.question, {})[target.asker] = target
        for question in self._asked.keys() - wanted.keys():
            self._stop(self._asked.pop(question))
        for question, askers in wanted.items():
            if (asked := self._asked.get(question)) is not None:
                self._replace_targets(asked, askers)
            else:
                asked = self._asked[question] = _Asked(question, askers)
                self._start(asked, self._run(asked))

    def stop(self) -> None:
        """Ask nothing more."""
        self.set_targets([])

    def _stop(self, asked: _Asked) -> None:
        asked.targets = {}
        if asked.task is not None:
            asked.task.cancel()

    def _replace_targets(self, asked: _Asked, askers: dict[tuple[str, str], Target]) -> None:
        new = [target for asker, target in askers.items() if asker not in asked.targets]
        asked.targets = askers
        if new and asked.last is not None:
            self._tasks.spawn(f"health {asked.question}, last outcome", self._tell(new, asked.last))

    def _start(self, asked: _Asked, work: Coroutine[object, object, None]) -> None:
        asked.task = self._tasks.spawn(f"health {asked.question}", work)
        asked.task.add_done_callback(partial(self._ended, asked))

    def _ended(self, asked: _Asked, task: asyncio.Task[None]) -> None:
        """Go on after a failure, which `Tasks` has reported: a bug in one check must not end its question for good."""
        if task.cancelled() or self._asked.get(asked.question) is not asked:
            return
        failure, probing, asked.probing = task.exception(), asked.probing, False
        # EquipoiseError: this machine could not ask.  That is no answer, so the verdicts stay as they are.
        bug = failure if probing and not isinstance(failure, EquipoiseError) else None
        self._start(asked, self._resume(asked, bug))

    async def _resume(self, asked: _Asked, bug: BaseException | None) -> None:
        if bug is not None:
            reason = f"a bug in check {asked.question.check}: {type(bug).__name__}: {bug}; please report it"
            await self._hand_on(asked, Outcome(False, " ".join(reason.split()), self._clock.wall(), 0.0))
        await asyncio.sleep(self._pause_s(asked.question))
        await self._run(asked)

    async def _run(self, asked: _Asked) -> None:
        """Ask for ever, from start to start one interval, or one check where that takes longer."""
        while True:
            async with self._turns:
                began_s = self._clock.monotonic()
                outcome = await self._probe(asked)
            await self._hand_on(asked, outcome)
            took_s = self._clock.monotonic() - began_s
            await asyncio.sleep(max(0.0, self._pause_s(asked.question) - took_s))

    async def _probe(self, asked: _Asked) -> Outcome:
        question = asked.question
        if question.host is None:
            return Outcome(False, unresolved(question.name), self._clock.wall(), 0.0, connected=False)
        asked.probing = True
        outcome = await ask(question, self._catalogue, self._clock)
        asked.probing = False
        return outcome

    async def _hand_on(self, asked: _Asked, outcome: Outcome) -> None:
        asked.last = outcome
        await self._tell(list(asked.targets.values()), outcome)

    async def _tell(self, targets: list[Target], outcome: Outcome) -> None:
        for target in targets:
            self._on_result(target, outcome)

    def _pause_s(self, question: Question) -> float:
        return question.params.interval * self._random.uniform(1 - JITTER, 1 + JITTER)


def _names(question: Question) -> frozenset[str]:
    return frozenset((question.check, *(part.check for part in question.parts)))


async def probe_once(
    check: Check, params: CheckParams, host: str, port: int, clock: Clock, *, node_tls: NodeTls | None = None
) -> Outcome:
    """Run one check by hand; `host` is an address or a name.  Raises: EquipoiseError where this machine cannot ask."""
    question = Question.by_hand(check.name, params, host, port, node_tls)
    return await ask(question, {**checks(), check.name: check}, clock)

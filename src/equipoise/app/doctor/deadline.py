"""Ask what may never answer, all at once, and go on without it: the resolver and the supervisor may hang.

A question that is still open is left to its thread, which does not keep the process from ending.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

from equipoise.base.clock import Clock

T = TypeVar("T")

_AT_ONCE = 64  # a site has tens of nodes; a resolver that is asked more at once drops some


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """An answer, and how long it took."""

    value: T
    took_s: float


def answers_within(
    deadline_s: float, questions: Mapping[str, Callable[[], T]], clock: Clock
) -> Mapping[str, Answer[T]]:
    """Return the answers that came in time, by the question's name.  A question must not raise."""
    answers: SimpleQueue[tuple[str, Answer[T]]] = SimpleQueue()
    open_questions: SimpleQueue[tuple[str, Callable[[], T]]] = SimpleQueue()
    for question in questions.items():
        open_questions.put(question)
    ends_s = clock.monotonic() + deadline_s
    for _ in range(min(_AT_ONCE, len(questions))):
        Thread(target=_work, args=(open_questions, answers, ends_s, clock), daemon=True).start()
    return _collect(answers, len(questions), ends_s, clock)


def _work(
    questions: SimpleQueue[tuple[str, Callable[[], T]]],
    answers: SimpleQueue[tuple[str, Answer[T]]],
    ends_s: float,
    clock: Clock,
) -> None:
    while clock.monotonic() < ends_s:
        try:
            name, ask = questions.get_nowait()
        except Empty:
            return
        began_s = clock.monotonic()
        answers.put((name, Answer(ask(), clock.monotonic() - began_s)))


def _collect(
    answers: SimpleQueue[tuple[str, Answer[T]]], wanted: int, ends_s: float, clock: Clock
) -> dict[str, Answer[T]]:
    found: dict[str, Answer[T]] = {}
    while len(found) < wanted and (left_s := ends_s - clock.monotonic()) > 0:
        try:
            name, answer = answers.get(timeout=left_s)
        except Empty:
            break
        found[name] = answer
    return found

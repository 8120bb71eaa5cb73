"""Verdicts against a model that keeps the whole history."""

from itertools import takewhile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from equipoise.health.verdict import Verdict


class VerdictMachine(RuleBasedStateMachine):
    """The model: look back over all results, and over what has been said of them."""

    @initialize(rise=st.integers(1, 4), fall=st.integers(1, 4), known=st.none() | st.booleans())
    def begin(self, rise: int, fall: int, known: bool | None) -> None:
        self.rise, self.fall = rise, fall
        self.verdict = Verdict(rise, fall, known)
        self.up = known
        self.results: list[bool] = []

    @rule(ok=st.booleans(), times=st.integers(1, 5))
    def feed(self, ok: bool, times: int) -> None:
        for _ in range(times):
            self.results.append(ok)
            assert self.verdict.feed(ok) == self.expected(ok)

    @rule(rise=st.integers(1, 4), fall=st.integers(1, 4))
    def adjust(self, rise: int, fall: int) -> None:
        self.rise, self.fall = rise, fall
        self.verdict.adjust(rise, fall)

    def expected(self, ok: bool) -> str | None:
        needed = 1 if self.up is None else self.rise if ok else self.fall
        if ok == self.up or len(self.results) < needed or set(self.results[-needed:]) != {ok}:
            return None
        self.up = ok
        return "up" if ok else "down"

    @invariant()
    def says_the_same(self) -> None:
        assert self.verdict.up == self.up

    @invariant()
    def counts_the_same(self) -> None:
        newest = self.results[::-1]
        assert self.verdict.in_a_row == len(list(takewhile(lambda ok: ok == newest[0], newest)))


TestVerdict = VerdictMachine.TestCase
TestVerdict.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize(("ok", "said"), [(True, "up"), (False, "down")])
def test_the_first_result_decides_at_once(ok: bool, said: str) -> None:
    assert Verdict(rise=3, fall=3).feed(ok) == said


def test_down_after_fall_failures_in_a_row_and_up_after_rise_passes() -> None:
    verdict = Verdict(rise=2, fall=3)
    results = [True, False, False, True, False, False, False, False, True, False, True, True, True]
    said = ["up", None, None, None, None, None, "down", None, None, None, None, "up", None]
    assert [verdict.feed(ok) for ok in results] == said


def test_a_verdict_that_is_known_is_not_turned_by_one_result() -> None:
    verdict = Verdict(rise=2, fall=2, up=True)
    assert [verdict.feed(False), verdict.feed(False)] == [None, "down"]


@pytest.mark.parametrize(("rise", "fall"), [(0, 1), (1, 0)])
def test_no_results_at_all_decide_nothing(rise: int, fall: int) -> None:
    with pytest.raises(ValueError, match="both are at least 1"):
        Verdict(rise, fall)

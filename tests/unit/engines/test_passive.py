import pytest

from equipoise.engines.gateway.passive import FailureKind, Passive, Rested
from equipoise.plan.model import PassiveHealth
from equipoise.policy.base import Client

CT, MR, US = Client("192.0.2.1", "CT1"), Client("192.0.2.2", "MR1"), Client("192.0.2.3", "US1")
SETTINGS = PassiveHealth(failures=5, within_s=30, rest_s=10)


class Story:
    """A pool's traffic, told in order; every failure may begin a rest."""

    def __init__(self, settings: PassiveHealth = SETTINGS) -> None:
        self.passive = Passive(settings)
        self.now_s = 0.0

    def fails(
        self,
        count: int = 1,
        node: str = "a",
        client: Client = CT,
        kind: FailureKind = FailureKind.REFUSED,
        may_rest: bool = True,
    ) -> Rested | None:
        rested = None
        for _ in range(count):
            found = self.passive.failed(node, client, kind, "connection refused", self.now_s, may_rest=may_rest)
            assert found is None or rested is None, "rested twice"
            rested = found or rested
        return rested

    def succeeds(self, count: int = 1, node: str = "a") -> None:
        for _ in range(count):
            self.passive.succeeded(node, self.now_s)

    def aborts(self, count: int = 1, node: str = "a", client: Client = CT) -> Rested | None:
        return self.fails(count, node, client, FailureKind.ABORTED)

    def is_rested(self, node: str = "a") -> bool:
        return self.passive.is_rested(node, self.now_s)


@pytest.mark.parametrize("kind", FailureKind)
def test_enough_failures_rest_a_node(kind: FailureKind) -> None:
    story = Story()
    assert story.fails(4, kind=kind) is None
    assert story.fails(kind=kind) == Rested("a", 5, "connection refused", 10)
    assert story.is_rested()
    assert not story.is_rested("b")
    story.now_s = 9.99
    assert story.is_rested()
    story.now_s = 10
    assert not story.is_rested()


def test_a_rest_is_told_in_a_sentence() -> None:
    story = Story()
    story.succeeds(3)
    story.fails(5)
    story.now_s = 3
    said = story.passive.said("a", story.now_s)
    assert said == "5 of 8 associations failed within 30 s, last: connection refused; until 7 s from now"
    assert story.passive.said("b", story.now_s) is None
    story.now_s = 10
    assert story.passive.said("a", story.now_s) is None
    story.fails()
    said = story.passive.said("a", story.now_s)
    assert said == "failed again after a rest: connection refused; until 20 s from now"


@pytest.mark.parametrize(("succeeded", "rested"), [(5, True), (6, False)])
def test_a_busy_node_must_fail_at_least_half(succeeded: int, rested: bool) -> None:
    story = Story()
    story.succeeds(succeeded)
    assert (story.fails(5) is not None) is rested


def test_old_failures_do_not_count() -> None:
    story = Story()
    story.fails(4)
    story.now_s = 30
    assert story.fails(4) is None
    story.now_s = 56
    assert story.fails() is not None


def test_old_successes_do_not_excuse() -> None:
    story = Story()
    story.succeeds(1000)
    story.now_s = 30
    assert story.fails(5) is not None


def test_each_rest_without_a_success_is_twice_as_long_up_to_a_limit() -> None:
    story = Story()
    lengths: list[float] = []
    rested = story.fails(5)
    while rested is not None and len(lengths) < 7:
        lengths.append(rested.rest_s)
        story.now_s += rested.rest_s
        rested = story.fails()
    assert lengths == [10, 20, 40, 80, 160, 160, 160]


def test_the_first_success_after_a_rest_clears_the_node() -> None:
    story = Story()
    story.fails(5)
    story.now_s = 10
    story.fails()
    story.now_s = 30
    story.succeeds()
    assert story.fails(4) is None
    assert story.fails() == Rested("a", 5, "connection refused", 10)


def test_what_ends_well_during_a_rest_began_before_it() -> None:
    story = Story()
    story.fails(5)
    story.now_s = 5
    story.succeeds(100)
    assert story.is_rested()
    story.now_s = 10
    assert story.fails() == Rested("a", 1, "connection refused", 20)


def test_what_fails_during_a_rest_does_not_prolong_it() -> None:
    story = Story()
    story.fails(5)
    story.now_s = 5
    assert story.fails(20) is None
    story.now_s = 10
    assert not story.is_rested()


def test_the_last_node_is_not_rested_but_what_it_did_is_known() -> None:
    story = Story()
    assert story.fails(50, may_rest=False) is None
    assert not story.is_rested()
    assert story.fails() is not None


def test_zero_failures_mean_never() -> None:
    story = Story(PassiveHealth(failures=0))
    assert story.fails(1000) is None
    assert not story.is_rested()


def test_one_failure_can_be_enough() -> None:
    story = Story(PassiveHealth(failures=1))
    assert story.fails() is not None


def test_a_sender_with_broken_objects_rests_nobody() -> None:
    """It tries again and again, and every node aborts."""
    story = Story()
    for turn in range(200):
        story.now_s = turn / 2
        assert story.aborts(node="abc"[turn % 3], client=CT) is None


def test_the_rest_that_such_a_sender_caused_ends_when_it_is_found_out() -> None:
    story = Story()
    assert story.aborts(5, "a") is not None
    story.now_s = 2
    story.aborts(1, "b")
    assert not story.is_rested("a")
    assert story.aborts(50, "a") is None
    assert story.fails(4, "a") is None
    assert story.fails(1, "a") == Rested("a", 5, "connection refused", 10)  # not 20: that rest was a mistake


def test_a_rest_with_reasons_enough_of_its_own_goes_on() -> None:
    story = Story()
    story.fails(5, "a")
    assert story.aborts(5, "b", MR) is not None
    story.aborts(1, "a", MR)
    assert story.is_rested("a")
    assert not story.is_rested("b")


def test_a_node_that_aborts_several_senders_is_the_cause() -> None:
    story = Story()
    assert story.aborts(2, client=CT) is None
    assert story.aborts(2, client=MR) is None
    assert story.aborts(1, client=US) is not None


def test_what_one_bad_sender_does_excuses_no_abort_of_others() -> None:
    story = Story()
    story.aborts(1, "b", CT)
    story.aborts(20, "a", CT)
    assert story.aborts(4, "a", MR) is None
    assert story.aborts(1, "a", US) == Rested("a", 5, "connection refused", 10)


def test_other_failures_of_a_bad_sender_count() -> None:
    """A refused connection has nothing to do with what the sender would have sent."""
    story = Story()
    story.aborts(1, "a")
    story.aborts(1, "b")
    assert story.fails(5, "a") is not None


def test_a_bad_sender_is_forgiven_when_it_was_quiet_for_a_window() -> None:
    story = Story()
    story.aborts(1, "a")
    story.aborts(1, "b")
    story.now_s = 29
    assert story.aborts(9, "b") is None  # still suspect, and again until 59
    story.now_s = 60
    assert story.aborts(5, "b") is not None


def test_a_flood_of_senders_is_bounded_and_counts() -> None:
    story = Story()
    story.succeeds(10_000)
    for number in range(5000):
        story.aborts(client=Client(f"192.0.2.{number % 250}", f"AE{number}"))
    assert len(story.passive._senders) <= 1024
    (record,) = story.passive._records.values()
    assert sum(len(span.aborted) for span in record.spans) <= 64
    assert story.aborts(5000) is not None


def test_memory_does_not_grow_with_time_or_traffic() -> None:
    story = Story()
    for second in range(5000):
        story.now_s = second / 5
        story.succeeds(3)
        story.fails(2)
    (record,) = story.passive._records.values()
    assert len(record.spans) <= 11


def test_nodes_that_left_or_were_out_begin_anew() -> None:
    story = Story()
    story.fails(5, "a")
    story.fails(5, "b")
    story.passive.keep_only({"b"})
    assert (story.is_rested("a"), story.is_rested("b")) == (False, True)
    story.passive.forget("b")
    story.passive.forget("never seen")
    assert not story.is_rested("b")
    assert story.fails(4, "b") is None


def test_new_settings_go_on_with_what_is_known() -> None:
    story, other = Story(), Passive(PassiveHealth(failures=3, within_s=60, rest_s=40))
    story.fails(5, "a")
    story.fails(2, "b")
    other.inherit(story.passive)
    assert other.is_rested("a", 9)
    assert other.failed("b", CT, FailureKind.SLOW, "late", 1, may_rest=True) == Rested("b", 3, "late", 40)
    never = Passive(PassiveHealth(failures=0))
    never.inherit(story.passive)
    assert not never.is_rested("a", 1)

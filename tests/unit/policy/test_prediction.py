from math import inf, nan

import pytest

from equipoise.policy.prediction import MAX_BYTES, NEWEST, Predictions


def learned(**moved: float) -> Predictions:
    predictions = Predictions()
    for calling_ae, count in moved.items():
        predictions.learn(calling_ae, count)
    return predictions


def test_nothing_is_expected_before_anything_was_seen() -> None:
    assert Predictions().expected("CT1") == 0


def test_an_ae_is_expected_to_do_what_it_did() -> None:
    assert learned(CT1=500, CR1=30).expected("CT1") == 500


def test_the_first_associations_weigh_the_same() -> None:
    predictions = Predictions()
    for moved in (100, 200, 600):
        predictions.learn("CT1", moved)
    assert predictions.expected("CT1") == 300


def test_later_ones_weigh_a_fifth_and_old_habits_fade() -> None:
    predictions = Predictions()
    for _ in range(5):
        predictions.learn("CT1", 1000)
    predictions.learn("CT1", 2000)
    assert predictions.expected("CT1") == 1000 + NEWEST * 1000
    for _ in range(20):
        predictions.learn("CT1", 2000)
    assert predictions.expected("CT1") == pytest.approx(2000, rel=0.01)


def test_an_unknown_ae_is_an_average_one() -> None:
    predictions = learned(CT1=500, CR1=30, US1=70)
    predictions.learn("CT1", 500)  # each AE once, however often it comes
    assert predictions.expected("NEW") == predictions.average == 200


def test_what_changed_is_told_once() -> None:
    predictions = learned(CT1=500, CR1=30)
    predictions.learn("CT1", 700)
    assert predictions.take_changes() == {"CT1": 600, "CR1": 30}
    assert predictions.take_changes() == {}
    predictions.learn("CR1", 30)
    assert predictions.take_changes() == {"CR1": 30}


def test_an_earlier_life_comes_back() -> None:
    predictions = Predictions()
    predictions.load(learned(CT1=500, CR1=30).means())
    assert predictions.means() == {"CT1": 500, "CR1": 30}
    assert predictions.take_changes() == {}
    predictions.learn("CT1", 1000)
    assert predictions.expected("CT1") == 600  # it stands for many associations, not for one


def test_what_was_learned_here_is_newer_than_what_is_loaded() -> None:
    predictions = learned(CT1=500)
    predictions.load({"CT1": 9, "MR1": 100})
    assert (predictions.expected("CT1"), predictions.expected("MR1"), predictions.average) == (500, 100, 300)


@pytest.mark.parametrize("rubbish", [nan, inf, -inf, -1, MAX_BYTES + 1])
def test_rubbish_teaches_nothing(rubbish: float) -> None:
    predictions = learned(CT1=500)
    predictions.learn("CT1", rubbish)
    predictions.load({"MR1": rubbish})
    assert predictions.means() == {"CT1": 500}


def test_of_too_many_those_quiet_for_longest_leave() -> None:
    predictions = Predictions(max_entries=2)
    for calling_ae, moved in (("CT1", 100), ("MR1", 200), ("CT1", 100), ("US1", 300)):
        predictions.learn(calling_ae, moved)
    assert predictions.means() == {"CT1": 100, "US1": 300}
    assert predictions.average == 200
    assert predictions.take_changes() == {"CT1": 100, "US1": 300}


def test_loading_keeps_the_bound_and_those_learned_here() -> None:
    predictions = Predictions(max_entries=2)
    predictions.learn("CT1", 100)
    predictions.load({"MR1": 200, "US1": 300})
    assert predictions.means() == {"MR1": 200, "CT1": 100}
    predictions.learn("NEW", 5)
    assert predictions.means() == {"CT1": 100, "NEW": 5}

from equipoise.state.events import Event, TaskHindered
from equipoise.state.hindrances import Hindrances


def test_what_lasts_is_said_once() -> None:
    told: list[Event] = []
    hindrances = Hindrances(told.append)
    for reason in ("the disk is full", "the disk is full", "the disk is gone"):
        hindrances.say("keep the plan", reason)
    assert told == [
        TaskHindered(task="keep the plan", reason="the disk is full"),
        TaskHindered(task="keep the plan", reason="the disk is gone"),
    ]
    assert hindrances.why("keep the plan") == "the disk is gone"


def test_what_went_well_in_between_is_said_again() -> None:
    told: list[Event] = []
    hindrances = Hindrances(told.append)
    for reason in (None, "the disk is full", None, "the disk is full"):
        hindrances.say("keep the plan", reason)
    assert len(told) == 2
    hindrances.say("keep the plan", None)
    assert hindrances.why("keep the plan") is None


def test_each_task_has_its_own() -> None:
    told: list[Event] = []
    hindrances = Hindrances(told.append)
    hindrances.say("keep the plan", "the disk is full")
    hindrances.say("keep the revision", "the disk is full")
    hindrances.say("keep the plan", None)
    assert len(told) == 2
    assert hindrances.why("keep the revision") == "the disk is full"

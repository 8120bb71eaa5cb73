"""The clock of one machine is an hour ahead: the pair joins, takes over, and persistence lasts as long as it should."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lab import SOURCES
from tests.system.balancer import eventually
from tests.system.pair_clients import everything_told
from tests.system.pair_stage import VIP, WEB, WITHIN_S, Pair, in_pair, short

HOUR_S = 3600
# libfaketime itself: the program `faketime` would stand between the supervisor and its signals.  Durations stay right,
# as they do on machines whose clock is wrong.
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
# libfaketime 0.9.10 takes its hour off the deadlines of clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME), too, by which
# Python sleeps: they would lie in the past, before the machine was started.
SLEEP = """import select
import time

time.sleep = lambda seconds: select.select((), (), (), seconds) and None
"""
pytestmark = [
    pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not here (Debian: faketime)"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("python")
    (folder / "sitecustomize.py").write_text(SLEEP)
    settings = {
        "LD_PRELOAD": str(LIBRARIES[-1]),
        "FAKETIME": f"+{HOUR_S}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_SKIP_CMDS": "keepalived",  # asks for no time of day
        "PYTHONPATH": os.pathsep.join((str(folder), *filter(None, [os.environ.get("PYTHONPATH")]))),
    }
    ahead = ("env", *(f"{name}={value}" for name, value in settings.items()))
    with in_pair(tmp_path_factory.mktemp("pair"), through={"standby": ahead}) as pair:
        yield pair


def test_the_two_join_and_say_that_their_clocks_differ(pair: Pair) -> None:
    """A certificate that is made now is valid only in an hour, by the other clock."""
    pair.whole()
    ahead, behind = pair.second.cluster()["peer"], pair.first.cluster()["peer"]
    assert abs(behind["clock_off_s"] - HOUR_S) < 60, "as the first one sees the second"
    assert abs(ahead["clock_off_s"] + HOUR_S) < 60
    assert "clock" in pair.first.command("cluster", "status", good=(0, 2))


@pytest.mark.parametrize("lost", ["balancer", "standby"])
def test_either_takes_over_and_clients_find_their_nodes(pair: Pair, lost: str) -> None:
    active, _ = pair.whole()
    if active.name != lost:
        active.hand_over()
        active, _ = pair.whole()
    sources = SOURCES[:9] if lost == "balancer" else SOURCES[10:19]
    before = {source: pair.lab.far.nodes(VIP, WEB, 1, source=source) for source in sources}
    everything_told(active)
    pair.whole()
    with pair.prober() as prober, pair.without_power(active):
        pair.moved_from(active)
        after = {source: pair.lab.far.nodes(VIP, WEB, 1, source=source) for source in reversed(sources)}
        prober.stop()
    assert after == before
    short(prober.seen)


def test_the_later_override_holds_whatever_the_clocks_say(pair: Pair) -> None:
    """By their clocks, all that the second machine says comes later than what the first one says."""
    pair.whole()
    first, second = pair.machines
    second.override("drain", "web/a")
    eventually(lambda: first.balancer.status("web")["nodes"]["a"]["state"] == "drain", WITHIN_S, "the drain")
    first.override("enable", "web/a")
    eventually(lambda: second.balancer.status("web")["nodes"]["a"]["state"] == "up", WITHIN_S, "its end")
    pair.whole()

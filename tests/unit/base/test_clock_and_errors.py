import time

from equipoise.base.clock import SystemClock, rfc3339
from equipoise.base.errors import ConfigError, EquipoiseError, Problem


def test_times_for_people_are_utc_with_milliseconds() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1930367167.1239) == "2031-03-04T05:06:07.123Z"


def test_the_systems_clocks_are_the_machines() -> None:
    clock = SystemClock()
    assert abs(clock.wall() - time.time()) < 1
    assert 0 <= clock.monotonic() - time.monotonic() + 1 < 2


def test_a_problem_says_where_it_stands() -> None:
    problem = Problem("site.yaml", 14, 21, "services.ct.health.called_ae", "too long")
    assert str(problem) == "site.yaml:14:21: services.ct.health.called_ae: too long"
    assert str(Problem("site.yaml", 0, 0, "", "is empty")) == "site.yaml: is empty"


def test_an_error_of_the_configuration_holds_all_its_problems() -> None:
    problems = [Problem("a", 1, 1, "x", "one"), Problem("a", 2, 1, "y", "two")]
    error = ConfigError(problems)
    assert isinstance(error, EquipoiseError)
    assert str(error) == "a:1:1: x: one\na:2:1: y: two"
    assert error.problems == tuple(problems)

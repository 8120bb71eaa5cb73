"""How services are spread over gateway processes."""

from dataclasses import replace
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from equipoise.config.loading import load
from equipoise.config.models import Catalogue
from equipoise.engines.gateway.render import render
from equipoise.plan.compile import compile_plan
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Plan
from tests.catalogue import catalogue
from tests.playbook.scene import route

__all__ = ["catalogue"]
NAMES = [f"s{number:02}" for number in range(12)]


def spread(plan: Plan) -> list[list[str]]:
    return [[task.name for task in worker] for worker in render(plan).workers]


def plan_of(catalogue: Catalogue, names: list[str], workers: int, links: list[tuple[str, str]]) -> Plan:
    """Return a plan of these services; a link is a route from one to another."""
    rest = "protocol: dicom, health: {check: tcp}, nodes: {a: {address: 10.0.1.1}}"
    text = "".join(f"  {name}: {{listen: 10.0.0.{place + 1}, {rest}}}\n" for place, name in enumerate(names))
    plan = compile_plan(load(f"site: x\nservices:\n{text}", "f", catalogue).site, HostFacts())
    services = [
        replace(one, routes=tuple(route(to, service="store") for come_to, to in links if come_to == one.name))
        for one in plan.services
    ]
    return replace(plan, services=tuple(services), gateway_workers=workers)


def worker_of(workers: list[list[str]], name: str) -> int:
    return next(number for number, names in enumerate(workers) if name in names)


LINKS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=6)


@given(st.lists(st.sampled_from(NAMES), unique=True, min_size=1), st.integers(1, 4), LINKS)
def test_linked_services_share_a_worker_and_each_service_has_one(
    catalogue: Catalogue, names: list[str], count: int, links: list[tuple[str, str]]
) -> None:
    links = [link for link in links if set(link) <= set(names)]
    workers = spread(plan_of(catalogue, names, count, links))
    assert len(workers) == count
    assert sorted(chain.from_iterable(workers)) == sorted(names)
    assert all(worker_of(workers, one) == worker_of(workers, other) for one, other in links)
    if not links:
        assert max(map(len, workers)) == -(-len(names) // count)


def test_groups_fill_what_the_larger_ones_leave(catalogue: Catalogue) -> None:
    """A group of four and one of two over two workers, six services alone: six each."""
    links = [("s00", "s01"), ("s02", "s01"), ("s02", "s03"), ("s04", "s05")]
    workers = spread(plan_of(catalogue, NAMES, 2, links))
    assert [len(names) for names in workers] == [6, 6]
    assert {"s00", "s01", "s02", "s03"} <= set(workers[worker_of(workers, "s00")])


def test_a_group_larger_than_a_fair_share_still_stays_together(catalogue: Catalogue) -> None:
    links = [("s00", name) for name in NAMES[1:8]]
    workers = spread(plan_of(catalogue, NAMES, 4, links))
    assert sorted(map(len, workers)) == [1, 1, 2, 8] or sorted(map(len, workers)) == [0, 1, 3, 8]
    assert worker_of(workers, "s00") == worker_of(workers, "s07")


def test_one_service_more_moves_few_others(catalogue: Catalogue) -> None:
    links = [("s00", "s01")]
    before = spread(plan_of(catalogue, NAMES[:11], 3, links))
    after = spread(plan_of(catalogue, NAMES, 3, links))
    moved = [name for name in NAMES[:11] if worker_of(before, name) != worker_of(after, name)]
    assert len(moved) <= 3


def test_without_routes_the_spread_is_as_it_was_before_there_were_any(catalogue: Catalogue) -> None:
    assert spread(plan_of(catalogue, NAMES[:6], 2, [])) == [["s02", "s03", "s05"], ["s00", "s01", "s04"]]


def test_a_route_reaches_the_worker(catalogue: Catalogue) -> None:
    (tasks,) = render(plan_of(catalogue, NAMES[:2], 1, [("s00", "s01")])).workers
    assert tasks[0].routes == (route("s01", service="store"),)

"""What tests of several files share: a stage for web services, and its nodes; and a pair of machines."""

import json
from collections.abc import Generator, Iterator

import pytest

from tests.system.pair_machine import Machine
from tests.system.pair_shared import Shared
from tests.system.pair_stage import Pair
from tests.system.web import WebNode
from tests.system.web_stage import WebStage

_EVENTS_SHOWN = 25


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what both machines of a pair have to say of a test that failed: it is too late once they are gone."""
    report = yield
    if report.failed and call.when == "call":
        found = getattr(item, "funcargs", {}).values()
        for machine in (machine for pair in found if isinstance(pair, Pair) for machine in pair.machines):
            report.sections.append((f"{machine.name} now", _said(machine)))
    return report


def _said(machine: Machine) -> str:
    try:
        events = [json.dumps(event) for event in machine.balancer.events()[-_EVENTS_SHOWN:]]
        return "\n".join([machine.host.ip("-brief", "address"), json.dumps(machine.cluster()), *events])
    except Exception as error:  # noqa: BLE001 -- one that says nothing any more is no other failure
        return repr(error)


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest) -> Iterator[WebStage]:
    """A balancer for the web, one for all tests of a file; its HAProxy is the parameter's (`with_either_haproxy`)."""
    with WebStage(getattr(request, "param", None)) as stage:
        yield stage


@pytest.fixture
def a() -> Iterator[WebNode]:
    with WebNode("a") as node:
        yield node


@pytest.fixture
def b() -> Iterator[WebNode]:
    with WebNode("b") as node:
        yield node


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    shared = Shared(tmp_path_factory.mktemp)
    try:
        yield shared
    finally:
        shared.close()


@pytest.fixture
def pair(shared: Shared, request: pytest.FixtureRequest) -> Pair:
    """A whole pair; its addresses are where the last test left them."""
    return shared.pair(request.session.testsfailed)

"""What tests of several files share: a stage for web services, and its nodes; and a pair of machines."""

from collections.abc import Iterator

import pytest

from tests.system.pair_shared import Shared
from tests.system.pair_stage import Pair
from tests.system.web import WebNode
from tests.system.web_stage import WebStage


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

"""What tests of several files share: a stage for web services, and its nodes."""

from collections.abc import Iterator

import pytest

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

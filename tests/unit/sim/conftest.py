"""Simulated archives for these tests: in this process, or as a process of their own that can be killed."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from equipoise.base.clock import SystemClock
from equipoise.sim.archive import Archive, ArchiveSettings
from equipoise.sim.ledger import Ledger
from equipoise.sim.peers import Peer, speak_quietly
from equipoise.sim.studies import Shape

CT = "1.2.840.10008.5.1.4.1.1.2"

StartArchive = Callable[..., Peer]


@pytest.fixture(scope="session", autouse=True)
def quiet() -> None:
    speak_quietly()


@pytest.fixture
def start_archive(tmp_path: Path) -> Iterator[StartArchive]:
    """Start an archive in this process and return where it is."""
    running: list[Archive] = []

    def start(name: str = "PACS", store: Path | None = None, **destinations: Peer) -> Peer:
        settings = ArchiveSettings("PACS", name, store or tmp_path / "store", destinations=destinations)
        archive = Archive(settings)
        peer = Peer("PACS", "127.0.0.1", archive.start())
        running.append(archive)
        return peer

    yield start
    for archive in running:
        archive.stop()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(SystemClock())


@pytest.fixture
def never() -> threading.Event:
    """Never set: nobody stops the device."""
    return threading.Event()


@pytest.fixture
def small() -> Shape:
    return Shape(CT, series=2, instances=3, rows=32, columns=32)


@pytest.fixture
def dcmtk() -> Callable[[str], str]:
    """Return the path of a DCMTK program; a test that needs one is skipped where it is not installed."""

    def find(program: str) -> str:
        if (path := shutil.which(program)) is None:
            pytest.skip(f"{program} of DCMTK is not installed")
        return path

    return find


@pytest.fixture
def idle_program(tmp_path: Path) -> Path:
    """A program in place of the balancer, which does nothing and does not end."""
    path = tmp_path / "idle.py"
    path.write_text("import time\ntime.sleep(60)\n")
    return path

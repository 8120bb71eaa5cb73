"""The fault run: DCMTK clients store objects while everything that can fail does.  Issue "First light", "Done when".

No object that a sender was told is stored may be lost, and only associations may fail that were open on the node or
the gateway that was killed.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from equipoise.sim.site import free_port
from tests.system import dcmtk
from tests.system.balancer import Balancer, eventually

OBJECTS, AN_ASSOCIATION, SENDERS, RELOADS = 2000, 10, 4, 20
# storescu -v says "Sending file: NAME", then "Received Store Response (Success)"
_SENT = re.compile(r"Sending file: (\S+)|Received Store Response \((\w+)")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One association: when, and how it ended."""

    began_s: float
    ended_s: float
    failed: bool
    said: str


@dataclass(slots=True)
class Ledger:
    """What the senders were told."""

    acknowledged: set[str] = field(default_factory=set)
    attempts: list[Attempt] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def make_objects(directory: Path) -> list[list[Path]]:
    """Return small CT images with UIDs of their own, by association."""
    source = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(source, str)
    dataset = dcmread(source)
    paths = []
    for number in range(OBJECTS):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
        path = directory / f"{number}.dcm"
        dataset.save_as(path)
        paths.append(path)
    return [paths[at : at + AN_ASSOCIATION] for at in range(0, OBJECTS, AN_ASSOCIATION)]


def send(batch: list[Path], port: int, ledger: Ledger) -> None:
    """Send a batch as a modality does: what was not acknowledged goes again, in a new association."""
    for _ in range(20):
        left = [path for path in batch if path.stem not in ledger.acknowledged]
        if not left:
            return
        began_s = time.monotonic()
        done = dcmtk.run("storescu", "-v", "-to", "20", "127.0.0.1", str(port), *map(str, left), timeout_s=120)
        with ledger.lock:
            ledger.acknowledged |= acknowledged(done.stderr + done.stdout)
            ledger.attempts.append(Attempt(began_s, time.monotonic(), done.returncode != 0, done.stderr[-300:]))
    raise AssertionError(f"not stored after 20 associations: {left}")


def acknowledged(log: str) -> set[str]:
    """Return the names of the files that were answered with success."""
    found, name = set(), ""
    for sent, status in _SENT.findall(log):
        if sent:
            name = Path(sent).stem
        elif status == "Success":
            found.add(name)
    return found


def reached(progress: Callable[[], float], wanted: float) -> bool:
    """Say whether so much of the work is done."""
    return progress() >= wanted


def reload(balancer: Balancer, text: str) -> None:
    """Replace the document as editors do, whole, and have it read."""
    draft = balancer.site.with_suffix(".new")
    draft.write_text(text)
    draft.replace(balancer.site)
    before = balancer.status()["plan"]
    assert balancer.process is not None
    balancer.process.send_signal(signal.SIGHUP)
    eventually(lambda: balancer.status()["plan"] != before, what="the new plan")


def faults(balancer: Balancer, node: dcmtk.Peer, progress: Callable[[], float]) -> dict[str, float]:
    """Let everything fail in turn as the work goes on; return when what broke associations was killed."""
    kills: dict[str, float] = {}
    text = balancer.site.read_text()
    for step in range(RELOADS):
        wanted = (step + 0.5) / RELOADS
        eventually(partial(reached, progress, wanted), 300, f"progress for step {step}")
        reload(balancer, text.replace("weight: 100", f"weight: {101 + step}"))
        match step:
            case 3:
                balancer.kill_supervisor()
                time.sleep(0.5)
                balancer.start()
            case 6:
                assert balancer.cli("gateway", "replace").returncode == 0
            case 9:
                kills["gateway"] = time.monotonic()
                os.kill(balancer.gateway_pids()[-1], signal.SIGKILL)
            case 12:
                kills["node"] = time.monotonic()
                node.kill()
            case 15:
                node.start()
                balancer.wait_state("pacs", "b", "up")
    return kills


@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_and_only_what_was_hit_fails(tmp_path: Path) -> None:
    sources, store = tmp_path / "sources", tmp_path / "store"
    sources.mkdir()
    store.mkdir()
    batches = make_objects(sources)
    port, ledger = free_port(), Ledger()
    nodes = {name: dcmtk.storescp(free_port(), store / name, "+B") for name in ("a", "b", "c")}
    listed = "\n".join(f"      {name}: {{address: '127.0.0.1:{n.port}', weight: 100}}" for name, n in nodes.items())
    site = f"""site: fault-run
services:
  pacs:
    protocol: dicom
    listen: 127.0.0.1:{port}
    balance: least_connections
    health: {{check: dicom_echo, interval: 500ms, timeout: 3s, rise: 1, fall: 2}}
    nodes:
{listed}
"""
    try:
        for node in nodes.values():
            node.start()
        with Balancer(site) as balancer, ThreadPoolExecutor(SENDERS) as senders:
            for name in nodes:
                balancer.wait_state("pacs", name, "up")
            work = [senders.submit(send, batch, port, ledger) for batch in batches]
            kills = faults(balancer, nodes["b"], lambda: len(ledger.acknowledged) / OBJECTS)
            for job in work:
                job.result(timeout=300)
            assert len(balancer.events("plan.applied")) > RELOADS
    finally:
        for node in nodes.values():
            node.kill()

    assert len(ledger.acknowledged) == OBJECTS
    stored = {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in store.glob("*/*")}
    sent = {path.stem: dcmread(path, stop_before_pixels=True).SOPInstanceUID for batch in batches for path in batch}
    lost = {name for name in ledger.acknowledged if sent[name] not in stored}
    assert not lost, f"acknowledged and not at any node: {sorted(lost)}"

    failed = [attempt for attempt in ledger.attempts if attempt.failed]
    blameless = [
        attempt for attempt in failed if not any(attempt.began_s <= at_s <= attempt.ended_s for at_s in kills.values())
    ]
    assert not blameless, f"failed although nothing that they used was killed: {blameless}"
    assert len(failed) <= 2 * SENDERS, failed

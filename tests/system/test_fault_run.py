"""The fault run: DCMTK clients store objects while everything that can fail does.  Issue "First light", "Done when".

No object that a sender was told is stored may be lost, and only associations may fail that were open on the node or
the gateway that was killed.  Once in plain, and once with TLS on both sides, on one port whose routes lead to a pool
that stores and to one that is asked meanwhile.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from equipoise.sim.ports import free_port
from tests.system import dcmtk
from tests.system.balancer import Balancer, eventually
from tests.system.certificates import Authority

AN_ASSOCIATION, SENDERS, RELOADS = 10, 4, 20


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
    asked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to be a site.

    Attributes:
        document: With `weight: 100` for each storing node, which reloads change.
        pool: The service that the storing nodes are in.
        objects: How many are stored in all.
        sends: Options of DCMTK's clients.
        receives: Options of the storing nodes.
        asks: Whether there is a pool for queries, on the same port.
        renew: What is done with the files of TLS in the middle.
    """

    document: Callable[[Mapping[str, int]], str]
    pool: str
    port: int
    objects: int
    sends: tuple[str, ...] = ()
    receives: tuple[str, ...] = ()
    asks: bool = False
    renew: Callable[[], object] = lambda: None


def make_objects(directory: Path, count: int) -> list[list[Path]]:
    """Return small CT images with UIDs of their own, by association."""
    source = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(source, str)
    dataset = dcmread(source)
    paths = []
    for number in range(count):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
        path = directory / f"{number}.dcm"
        dataset.save_as(path)
        paths.append(path)
    return [paths[at : at + AN_ASSOCIATION] for at in range(0, count, AN_ASSOCIATION)]


def send(batch: list[Path], setting: Setting, ledger: Ledger) -> None:
    """Send a batch as a modality does: what was not acknowledged goes again, in a new association."""
    for _ in range(20):
        left = [path for path in batch if path.stem not in ledger.acknowledged]
        if not left:
            return
        began_s = time.monotonic()
        where = ("127.0.0.1", str(setting.port))
        done = dcmtk.run("storescu", "-v", "-to", "20", *setting.sends, *where, *map(str, left), timeout_s=120)
        with ledger.lock:
            ledger.acknowledged |= dcmtk.acknowledged(done.stderr + done.stdout)
            ledger.attempts.append(Attempt(began_s, time.monotonic(), done.returncode != 0, done.stderr[-300:]))
    raise AssertionError(f"not stored after 20 associations: {left}")


def ask(setting: Setting, ledger: Ledger, stop: threading.Event) -> None:
    """Ask again and again, as a workstation does."""
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2.3.4.5")
    while setting.asks and not stop.wait(0.2):
        began_s = time.monotonic()
        done = dcmtk.run(
            "findscu", "-S", "-to", "20", "-aec", "QUERY", *setting.sends, *keys, "127.0.0.1", str(setting.port)
        )
        with ledger.lock:
            ledger.asked += 1
            ledger.attempts.append(Attempt(began_s, time.monotonic(), done.returncode != 0, done.stderr[-300:]))


def reached(progress: Callable[[], float], wanted: float) -> bool:
    """Say whether so much of the work is done."""
    return progress() >= wanted


def reload(balancer: Balancer, text: str) -> None:
    """Replace the document as editors do, whole, and have it read."""
    draft = balancer.site.with_suffix(".new")
    draft.write_text(text)
    before = balancer.status()["plan"]
    draft.replace(balancer.site)
    assert balancer.process is not None
    balancer.process.send_signal(signal.SIGHUP)
    eventually(lambda: balancer.status()["plan"] != before, 30, "the new plan")


def faults(balancer: Balancer, node: dcmtk.Peer, progress: Callable[[], float], setting: Setting) -> dict[str, float]:
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
                balancer.wait_state(setting.pool, "b", "up", 30)
            case 17:
                setting.renew()
    return kills


CHECK = "health: {check: dicom_echo, interval: 500ms, timeout: 3s, rise: 1, fall: 2}"


def listed(ports: Mapping[str, int]) -> str:
    return "\n".join(f"      {name}: {{address: '127.0.0.1:{port}', weight: 100}}" for name, port in ports.items())


def plain(_: Path) -> Setting:
    """Return one service with its nodes."""
    port = free_port()

    def document(ports: Mapping[str, int]) -> str:
        return f"""site: fault-run
services:
  pacs:
    protocol: dicom
    listen: 127.0.0.1:{port}
    balance: least_connections
    {CHECK}
    nodes:
{listed(ports)}
"""

    return Setting(document, "pacs", port, 2000)


def secure(directory: Path) -> Setting:
    """Return a port that leads to two pools, with TLS to senders and to the nodes that store."""
    port, authority = free_port(), Authority(directory / "tls")
    own, node, client = (authority.issue(name, client=name == "client") for name in ("own", "node", "client"))

    def document(ports: Mapping[str, int]) -> str:
        storing = {name: port for name, port in ports.items() if name != "query"}
        return f"""site: fault-run
services:
  door:
    protocol: dicom
    listen: 127.0.0.1:{port}
    tls: {{cert: {own.cert}, key: {own.key}, client_ca: {authority.ca_file}}}
    routes:
      - {{service: store, to: store}}
      - {{service: query, to: query}}
  store:
    protocol: dicom
    balance: least_work
    node_tls: {{ca: {authority.ca_file}}}
    {CHECK}
    nodes:
{listed(storing)}
  query:
    protocol: dicom
    balance: least_work
    {CHECK.replace("{", "{called_ae: QUERY, ")}
    nodes:
      q: {{address: '127.0.0.1:{ports["query"]}'}}
"""

    sends = ("+tls", str(client.key), str(client.cert), "+cf", str(authority.ca_file))
    receives = ("+tls", str(node.key), str(node.cert), "+cf", str(authority.ca_file), "-ic")
    return Setting(document, "store", port, 1000, sends, receives, True, lambda: authority.issue("own"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("site", [plain, secure])
def test_nothing_acknowledged_is_lost_and_only_what_was_hit_fails(
    tmp_path: Path, site: Callable[[Path], Setting]
) -> None:
    setting, ledger = site(tmp_path), Ledger()
    sources, store = tmp_path / "sources", tmp_path / "store"
    sources.mkdir()
    store.mkdir()
    batches = make_objects(sources, setting.objects)
    nodes = {name: dcmtk.storescp(free_port(), store / name, "+B", *setting.receives) for name in ("a", "b", "c")}
    queries = dcmtk.dcmqrscp(free_port(), tmp_path, "QUERY")
    ports = {name: node.port for name, node in nodes.items()} | ({"query": queries.port} if setting.asks else {})
    stop = threading.Event()
    try:
        for node in (*nodes.values(), queries):
            node.start()
        with Balancer(setting.document(ports)) as balancer, ThreadPoolExecutor(SENDERS + 1) as senders:
            for name in nodes:
                balancer.wait_state(setting.pool, name, "up")
            if setting.asks:
                balancer.wait_state("query", "q", "up")
            asking = senders.submit(ask, setting, ledger, stop)
            work = [senders.submit(send, batch, setting, ledger) for batch in batches]
            try:
                kills = faults(balancer, nodes["b"], lambda: len(ledger.acknowledged) / setting.objects, setting)
                for job in work:
                    job.result(timeout=300)
            finally:
                stop.set()
            asking.result(timeout=60)
            assert len(balancer.events("plan.applied")) > RELOADS
            assert balancer.events("task.failed") == []
    finally:
        for node in (*nodes.values(), queries):
            node.kill()

    assert len(ledger.acknowledged) == setting.objects
    assert ledger.asked > 10 or not setting.asks
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

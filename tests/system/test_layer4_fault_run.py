"""The fault run of layer 4: DICOM and web load in both modes while everything that can fail does, in one run.

No established flow of a healthy node may be cut, and every byte must be the right one.  What else may fail: a flow of a
node while that node is dead, and a call that reached it before its check had noticed.
"""

import hashlib
import itertools
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from tests.lab import lab as laboratory
from tests.lab.lab import SOURCES, VIPS, Lab
from tests.lab.machines import STORE_PORT
from tests.system import dcmtk
from tests.system.balancer import eventually
from tests.system.files import content
from tests.system.layer4_stage import DIRECT, QUICK_CHECK, TRANSLATED, Stage, Transfer

pytestmark = pytest.mark.timeout(400)  # it takes a minute where nothing else runs
RELOADS, BATCHES, A_BATCH = 50, 6, 10
PORTS = {"web-direct": 8001, "web-nat": 8002, "store-direct": STORE_PORT, "store-nat": 1104}
NODES = {"direct": ("a", "b", "c"), "nat": ("x", "y")}
MORTAL = {"b", "x"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One connection or association: when, at which node where that is known, and how it ended."""

    what: str
    node: str
    began_s: float
    ended_s: float
    failure: str


@dataclass(slots=True)
class Ledger:
    """What the clients have seen, and when nodes were dead."""

    attempts: list[Attempt] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)
    dead: list[tuple[str, float, float]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def is_excused(self, attempt: Attempt) -> bool:
        """Say whether it may have been hit: its node died, or it found none while one was dead."""
        return any(
            attempt.node in ("", name) and attempt.began_s <= until_s and attempt.ended_s >= from_s
            for name, from_s, until_s in self.dead
        )


def test_no_flow_of_a_healthy_node_is_cut(tmp_path: Path) -> None:
    if reason := laboratory.missing():
        pytest.skip(f"the fault run of layer 4 was not done: {reason}")
    ledger, batches = Ledger(), make_objects(tmp_path / "sources")
    with Lab(tmp_path) as lab, Stage(tmp_path, lab) as stage, ExitStack() as held:
        for node in lab.all_nodes.values():
            node.serve_store()
        stage.apply(services(stage, 100))
        for service, name in every_node():
            stage.balancer.wait_state(service, name, "up")
        transfers = [held.enter_context(each) for each in one_of_each_healthy_node(stage)]
        threads = list(load(stage, ledger, batches))
        for thread in threads:
            thread.start()
        try:
            faults(stage, ledger, transfers)
        finally:
            ledger.stop.set()
            for thread in threads:
                thread.join(150)
        assert not any(thread.is_alive() for thread in threads)
        for transfer in transfers:
            transfer.goes_on()
        assert stage.balancer.events("task.failed") == []
        judge(ledger, {content(path) for node in lab.all_nodes.values() for path in node.stored()}, batches)


def judge(ledger: Ledger, stored: set[Any], batches: list[list[Path]]) -> None:
    kinds = {attempt.what for attempt in ledger.attempts}
    assert kinds == set(PORTS), "every service was used"
    failed = [attempt for attempt in ledger.attempts if attempt.failure]
    assert [attempt for attempt in failed if not ledger.is_excused(attempt)] == []
    wrong = [attempt for attempt in failed if "other bytes" in attempt.failure]
    assert wrong == [], "what did arrive is right even from a node that dies"
    sent = {path.stem: path for batch in batches for path in batch}
    assert len(ledger.acknowledged) == len(sent)
    assert [name for name in ledger.acknowledged if content(sent[name]) not in stored] == []


def faults(stage: Stage, ledger: Ledger, transfers: list[Transfer]) -> None:
    """Reload again and again, and let something happen at some of the steps."""
    script = story(stage, ledger)
    for step in range(RELOADS):
        reload(stage, 110 + step % 7 * 10, by_signal=step % 2 == 0)
        script.get(step, lambda: None)()
        for transfer in transfers:
            transfer.goes_on(1)


def story(stage: Stage, ledger: Ledger) -> dict[int, Callable[[], None]]:
    """Return what happens at which step, beside the weights that change in each."""
    acts = Acts(stage, ledger)
    return {
        3: partial(acts.operate, "drain", "*/c"),
        9: partial(acts.operate, "enable", "*/c"),
        11: partial(acts.kill, "b"),
        17: acts.replace_supervisor,
        20: partial(acts.revive, "b"),
        23: partial(acts.lose_syn_acks, "a"),
        29: partial(acts.end_loss, "a"),
        31: partial(acts.kill, "x"),
        35: acts.replace_supervisor,
        38: partial(acts.revive, "x"),
        40: partial(acts.operate, "disable", "*/b"),
        44: partial(acts.operate, "enable", "*/b"),
        46: partial(acts.operate, "weight", "*/y", 1),
    }


class Acts:
    """What can happen."""

    def __init__(self, stage: Stage, ledger: Ledger) -> None:
        self._stage, self._ledger = stage, ledger
        self._since_s: dict[str, float] = {}

    def operate(self, action: str, pattern: str, weight: int | None = None) -> None:
        """An operator's command; to disable is to cut, too."""
        node = pattern.partition("/")[2]
        if action == "disable":
            self._since_s[node] = time.monotonic()
        answer = self._stage.balancer.post("nodes", pattern=pattern, action=action, weight=weight)
        assert answer.is_success, answer.text
        if action == "enable" and node in self._since_s:
            self._note(node)

    def kill(self, name: str) -> None:
        """The node's servers die; its kernel lives, and refuses."""
        self._since_s[name] = time.monotonic()
        self._stage.node(name).kill()
        for service, node in every_node():
            if node == name:
                self._stage.balancer.wait_state(service, node, "down")

    def revive(self, name: str) -> None:
        self._stage.node(name).start()
        for service, node in every_node():
            if node == name:
                self._stage.balancer.wait_state(service, node, "up")
        self._note(name)

    def replace_supervisor(self) -> None:
        """It dies, traffic goes on without it for a moment, and the next one comes."""
        self._stage.balancer.kill_supervisor()
        time.sleep(0.5)
        self._stage.balancer.start()

    def lose_syn_acks(self, name: str) -> None:
        self._stage.node(name).lose_syn_acks()

    def end_loss(self, name: str) -> None:
        self._stage.node(name).lose_nothing()

    def _note(self, name: str) -> None:
        self._ledger.dead.append((name, self._since_s.pop(name), time.monotonic()))


def services(stage: Stage, weight: int) -> dict[str, Any]:
    """Return the site: storage and the web, both in both modes; the weight of the first nodes changes."""
    document = {}
    for service, port in PORTS.items():
        kind, way = service.split("-")
        here = port if way == "direct" else {"web": 8000, "store": STORE_PORT}[kind]
        nodes = {name: {"address": f"{stage.node(name).address()}:{here}", "weight": 100} for name in NODES[way]}
        nodes[NODES[way][0]]["weight"] = weight
        document[service] = {
            "protocol": "dicom" if kind == "store" else "http",
            "listen": f"{VIPS[0]}:{port}",
            "health": QUICK_CHECK,
            "slow_start": "1s",
            "nodes": nodes,
            **(DIRECT if way == "direct" else TRANSLATED).settings,
        }
    return document


def every_node() -> Iterator[tuple[str, str]]:
    for service in PORTS:
        for node in NODES[service.split("-")[1]]:
            yield service, node


def reload(stage: Stage, weight: int, *, by_signal: bool) -> None:
    """Change the weights, by a file and SIGHUP or by `apply`."""
    wanted, before = services(stage, weight), stage.balancer.status()["plan"]
    if not by_signal:
        stage.apply(wanted)
        return
    text = json.loads(stage.balancer.site.read_text())
    draft = stage.balancer.site.with_suffix(".new")
    draft.write_text(json.dumps({**text, "services": wanted}))
    draft.replace(stage.balancer.site)
    assert stage.balancer.process is not None
    stage.balancer.process.send_signal(signal.SIGHUP)
    eventually(lambda: stage.balancer.status()["plan"] != before, what="the new plan")


def one_of_each_healthy_node(stage: Stage) -> list[Transfer]:
    """Return transfers that are to go on through the whole run."""
    found = []
    for service, port in PORTS.items():
        kind, way = service.split("-")
        wanted = [name for name in NODES[way] if name not in MORTAL] if kind == "web" else []
        for name in wanted:
            found.append(transfer_from(stage, port, name))
    return found


def transfer_from(stage: Stage, port: int, node: str) -> Transfer:
    for source in itertools.islice(itertools.cycle(SOURCES), 80):
        call = stage.lab.far.call(VIPS[0], port, source=source)
        if call.node() == node:
            return Transfer(call, stage.page("small"))
        call.close()
    raise AssertionError(f"no connection of 80 reached {node}")


def load(stage: Stage, ledger: Ledger, batches: list[list[Path]]) -> Iterator[threading.Thread]:
    """Return the clients."""
    for number, service in enumerate(("web-direct", "web-nat", "web-direct", "web-nat")):
        yield threading.Thread(target=browse, args=(stage, ledger, service, SOURCES[number + 1]), daemon=True)
    halves = batches[: BATCHES // 2], batches[BATCHES // 2 :]
    for service, half in zip(("store-direct", "store-nat"), halves, strict=True):
        yield threading.Thread(target=send, args=(stage, ledger, service, half), daemon=True)


def browse(stage: Stage, ledger: Ledger, service: str, source: str) -> None:
    """Open connections one after the other, and get a page of 2 MB and a small one over each."""
    expected = {name: hashlib.sha256(stage.page(name)).digest() for name in ("middle", "small")}
    while not ledger.stop.wait(0.1):
        began_s, node, failure = time.monotonic(), "", ""
        try:
            with stage.lab.far.call(VIPS[0], PORTS[service], source=source, timeout_s=60) as call:
                node = call.node()
                for page, digest in expected.items():
                    if hashlib.sha256(call.get(f"/{page}")).digest() != digest:
                        failure = f"{page}: other bytes"
        except (OSError, HTTPException, AssertionError) as error:
            failure = repr(error)
        ledger.attempts.append(Attempt(service, node, began_s, time.monotonic(), failure))


def send(stage: Stage, ledger: Ledger, service: str, batches: list[list[Path]]) -> None:
    """Store batches as a modality does, until the end; what was not acknowledged goes again."""
    for batch in itertools.cycle(batches):
        everything = all(path.stem in ledger.acknowledged for each in batches for path in each)
        if ledger.stop.wait(0.1) and everything:
            return
        began_s = time.monotonic()
        done = stage.lab.far.dicom("storescu", VIPS[0], PORTS[service], "-to", "60", "--", *map(str, batch))
        said = done.stderr + done.stdout
        failure = said[-400:] if done.returncode else ""
        ledger.acknowledged.update(dcmtk.acknowledged(said))
        ledger.attempts.append(Attempt(service, "", began_s, time.monotonic(), failure))


def make_objects(folder: Path) -> list[list[Path]]:
    """Return images with UIDs of their own, by association."""
    source = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(source, str)
    folder.mkdir()
    dataset, paths = dcmread(source), []
    for number in range(BATCHES * A_BATCH):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
        paths.append(folder / f"{number}.dcm")
        dataset.save_as(paths[-1])
    return [paths[at : at + A_BATCH] for at in range(0, len(paths), A_BATCH)]

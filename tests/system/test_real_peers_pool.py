"""Which node gets what, seen from outside: balancing, persistence, limits, operators, and what is told of it."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import build_context, evt

from equipoise.sim.ports import free_port
from tests.system import pynet
from tests.system.balancer import eventually
from tests.system.caller import ACCEPTED, Caller, visit
from tests.system.dcmtk import dcmqrscp, run, storescp
from tests.system.files import named, real_files
from tests.system.pynet import Node
from tests.system.rawpeer import RawNode, abort
from tests.system.stage import QUICK_CHECK, Served, Stage, checked_elsewhere

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about values in real files

LIMIT_EXCEEDED, CONGESTION = (2, 3, 2), (2, 3, 1)
OUT_OF_RESOURCES = 0xA700
SETTLE_S = 0.3  # for what must not happen: long enough for it to have happened


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


class Pool:
    """The nodes a, b and c, and what each says that it has taken."""

    def __init__(self, nodes: Mapping[str, RawNode]) -> None:
        self.nodes = nodes

    def __getitem__(self, name: str) -> RawNode:
        return self.nodes[name]

    def ports(self, *names: str) -> dict[str, int]:
        return {name: self.nodes[name].port for name in names}

    def weighing(self, name: str, weight: int) -> dict[str, Any]:
        return {"address": f"127.0.0.1:{self.nodes[name].port}", "weight": weight}

    def callers(self, name: str) -> list[str]:
        return list(self.nodes[name].visits)

    def taken(self) -> dict[str, int]:
        """Return how many clients each node has taken, by its own account."""
        return {name: len(self.callers(name)) for name in self.nodes}

    def order(self) -> str:
        """Return which node took the clients 0, 1, 2 … that `visits` sent."""
        seen = {calling: name for name in self.nodes for calling in self.callers(name)}
        return "".join(seen[calling] for calling in sorted(seen))


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Light nodes that answer echoes."""
    nodes = {name: RawNode() for name in "abc"}
    yield Pool(nodes)
    for node in nodes.values():
        node.close()


class Machines:
    """Three storescp, a, b and c, which can be stopped and started; what each has taken lies in its folder."""

    def __init__(self, folder: Path) -> None:
        self._folders = {name: folder / name for name in "abc"}
        self.peers = {name: storescp(free_port(), path, "+uf") for name, path in self._folders.items()}

    def ports(self, *names: str) -> dict[str, int]:
        return {name: self.peers[name].port for name in names}

    def taken(self) -> tuple[int, ...]:
        """Return how many objects a, b and c have."""
        return tuple(len(list(folder.iterdir())) for folder in self._folders.values())


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    machines = Machines(tmp_path)
    with ExitStack() as stack:
        for peer in machines.peers.values():
            stack.enter_context(peer)
        yield machines


def store(port: int, associations: int) -> None:
    """Store an object in each of so many associations."""
    (file,) = named("CT_small.dcm")
    for _ in range(associations):
        done = run("storescu", "-R", "127.0.0.1", str(port), str(file.path))
        assert done.returncode == 0, done.stderr


def title(number: int) -> str:
    return f"CLIENT{number:03}"


def visits(port: int, numbers: range, source: str | None = None) -> None:
    for number in numbers:
        assert visit(port, calling=title(number), source=source) == ACCEPTED


# Balancing


def test_round_robin_spreads_by_weight_and_evenly(stage: Stage, pool: Pool) -> None:
    served = stage.serve({"a": pool.weighing("a", 150), "b": pool.weighing("b", 50)}, balance="round_robin")
    visits(served.port, range(12))
    assert pool.taken() == {"a": 9, "b": 3, "c": 0}
    assert all(pool.order()[start : start + 4].count("b") == 1 for start in (0, 4, 8)), pool.order()


def test_first_up_takes_the_first_that_may(stage: Stage, machines: Machines) -> None:
    served = stage.serve(machines.ports("a", "b", "c"), balance="first_up", health=QUICK_CHECK)
    store(served.port, 3)
    assert machines.taken() == (3, 0, 0)
    served.operate("drain", "a")
    store(served.port, 2)
    assert machines.taken() == (3, 2, 0)
    machines.peers["b"].kill()
    served.wait_state("b", "down")
    store(served.port, 2)
    assert machines.taken() == (3, 2, 2)
    served.operate("enable", "a")
    store(served.port, 1)
    assert machines.taken() == (4, 2, 2)


def test_a_backup_works_only_while_no_primary_can(stage: Stage, machines: Machines) -> None:
    backup = {"address": f"127.0.0.1:{machines.peers['c'].port}", "backup": True}
    pool = {"c": backup, **machines.ports("a", "b")}
    served = stage.serve(pool, balance="round_robin", health=QUICK_CHECK)
    store(served.port, 4)
    assert machines.taken() == (2, 2, 0)
    machines.peers["a"].kill()
    served.wait_state("a", "down")
    store(served.port, 2)
    assert machines.taken() == (2, 4, 0)
    machines.peers["b"].kill()
    served.wait_state("b", "down")
    store(served.port, 2)
    assert machines.taken() == (2, 4, 2)
    machines.peers["a"].start()
    served.wait_state("a", "up")
    store(served.port, 2)
    assert machines.taken() == (4, 4, 2)


def test_least_connections_counts_what_is_held_open(stage: Stage, pool: Pool) -> None:
    served = stage.serve(pool.ports("a", "b", "c"), balance="least_connections")
    held = [Caller(served.port, calling=title(number)) for number in range(6)]
    assert served.connections() == {"a": 2, "b": 2, "c": 2}
    second = pool.order()[1]
    left = [number for number, name in enumerate(pool.order()) if name == second]
    for number in left:
        held[number].release()
    served.wait_connections(**{second: 0})
    with Caller(served.port, calling=title(6)), Caller(served.port, calling=title(7)):
        assert served.connections() == {"a": 2, "b": 2, "c": 2}
        assert pool.order()[6:] == second * 2
    for number in set(range(6)) - set(left):
        held[number].release()
    served.wait_connections(a=0, b=0, c=0)


def test_least_connections_goes_by_weight(stage: Stage, pool: Pool) -> None:
    served = stage.serve({"a": pool.weighing("a", 200), "b": pool["b"].port}, balance="least_connections")
    with ExitStack() as stack:
        for number in range(6):
            stack.enter_context(Caller(served.port, calling=title(number)))
        assert served.connections() == {"a": 4, "b": 2}
        assert pool.taken() == {"a": 4, "b": 2, "c": 0}


# Persistence


def test_a_client_stays_at_its_node_and_others_do_not_follow(stage: Stage, pool: Pool) -> None:
    served = stage.serve(pool.ports("a", "b"), balance="round_robin", persistence={"by": "source_ip", "ttl": "10m"})
    visits(served.port, range(4), source="127.0.0.11")
    visits(served.port, range(4, 8), source="127.0.0.12")
    visits(served.port, range(8, 9), source="127.0.0.11")
    assert pool.order() == "aaaabbbba"


def test_a_drained_node_loses_its_clients_for_good(stage: Stage, pool: Pool) -> None:
    served = stage.serve(pool.ports("a", "b"), balance="first_up", persistence={"by": "source_ip", "ttl": "10m"})
    visits(served.port, range(2), source="127.0.0.11")
    served.operate("drain", "a")
    visits(served.port, range(2, 4), source="127.0.0.11")
    served.operate("enable", "a")
    visits(served.port, range(4, 5), source="127.0.0.11")
    visits(served.port, range(5, 6), source="127.0.0.12")  # a takes new clients again
    assert pool.order() == "aabbba"


def test_a_node_is_forgotten_after_ttl(stage: Stage, pool: Pool) -> None:
    """`first_up` leads to a: who is still at b is there for persistence's sake."""
    served = stage.serve(pool.ports("a", "b"), balance="first_up", persistence={"by": "source_ip", "ttl": "3s"})
    served.operate("drain", "a")
    visits(served.port, range(1), source="127.0.0.11")
    served.operate("enable", "a")
    visits(served.port, range(1, 2), source="127.0.0.11")  # the time starts anew
    time.sleep(3.2)
    visits(served.port, range(2, 3), source="127.0.0.11")
    assert pool.order() == "bba"


def test_clients_of_one_subnet_stay_together_where_the_mask_says_so(stage: Stage, pool: Pool) -> None:
    persistence = {"by": "source_ip", "mask": 24}
    served = stage.serve(pool.ports("a", "b"), balance="round_robin", persistence=persistence)
    visits(served.port, range(2), source="127.0.1.11")
    visits(served.port, range(2, 4), source="127.0.1.200")
    visits(served.port, range(4, 5), source="127.0.2.11")
    assert pool.order() == "aaaab"


def test_persistence_by_calling_title_does_not_ask_for_the_address(stage: Stage, pool: Pool) -> None:
    served = stage.serve(pool.ports("a", "b"), balance="round_robin", persistence={"by": "calling_ae"})
    for calling, source in (("CT1", 11), ("MR1", 11), ("CT1", 12), ("CT1", 13), ("MR1", 12)):
        assert visit(served.port, calling=calling, source=f"127.0.0.{source}") == ACCEPTED
    assert (pool.callers("a"), pool.callers("b")) == (["CT1"], ["MR1"])
    assert [event["node"] for event in served.ended(5)] == ["a", "b", "a", "a", "b"]


# Limits


def limited(stage: Stage, node: RawNode, where: str, queue_wait: str) -> Served:
    """Return a service that holds two associations, by its node's limit or its own."""
    if where == "node":
        limit = {"address": f"127.0.0.1:{node.port}", "max_connections": 2}
        return stage.serve({"a": limit}, queue_wait=queue_wait)
    return stage.serve({"a": node.port}, queue_wait=queue_wait, max_connections=2)


@pytest.mark.parametrize("where", ["node", "service"])
def test_the_third_association_waits_and_gets_in_when_one_ends(stage: Stage, pool: Pool, where: str) -> None:
    served = limited(stage, pool["a"], where, "30s")
    first, second = (Caller(served.port, calling=title(number)) for number in range(2))
    with ThreadPoolExecutor(1) as threads:
        third = threads.submit(Caller, served.port, calling=title(2))
        with pytest.raises(TimeoutError):
            third.result(SETTLE_S)
        assert pool.taken()["a"] == 2
        first.release()
        opened = third.result(10)
    assert opened.answer == ACCEPTED
    assert served.connections() == {"a": 2}
    for caller in (second, opened):
        assert caller.echo()
        caller.release()


@pytest.mark.parametrize("where", ["node", "service"])
def test_the_third_association_is_rejected_after_queue_wait(stage: Stage, pool: Pool, where: str) -> None:
    served = limited(stage, pool["a"], where, "500ms")
    with Caller(served.port, calling=title(0)) as first, Caller(served.port, calling=title(1)) as second:
        began_s = time.monotonic()
        assert visit(served.port, calling=title(2)) == LIMIT_EXCEEDED
        assert 0.5 <= time.monotonic() - began_s < 5
        assert pool.taken()["a"] == 2
        assert first.echo()
        assert second.echo()
    ended = {event["calling_ae"]: event for event in served.ended(3)}
    assert [ended[title(number)]["ended"] for number in range(3)] == ["released", "released", "no_node"]
    assert "max_connections" in ended[title(2)]["reason"]


def test_real_clients_queue_for_a_place_in_turn(stage: Stage, tmp_path: Path) -> None:
    """Eight storescu at once at a node that takes two: each stores all that it has."""
    files = named("CT_small.dcm", "MR_small.dcm")
    arguments = ("-R", "127.0.0.1")
    with storescp(free_port(), tmp_path / "in", "+uf") as peer, ThreadPoolExecutor(8) as threads:
        limit = {"address": f"127.0.0.1:{peer.port}", "max_connections": 2}
        served = stage.serve({"a": limit}, queue_wait="30s")
        paths = [str(file.path) for file in files]
        runs = [threads.submit(run, "storescu", *arguments, str(served.port), *paths) for _ in range(8)]
        assert [one.result().returncode for one in runs] == [0] * 8
        assert len(list((tmp_path / "in").iterdir())) == 16


def test_a_full_node_leaves_work_to_the_others(stage: Stage, pool: Pool) -> None:
    small = {"address": f"127.0.0.1:{pool['a'].port}", "max_connections": 1}
    served = stage.serve({"a": small, "b": pool["b"].port}, balance="first_up")
    with ExitStack() as stack:
        for number in range(3):
            stack.enter_context(Caller(served.port, calling=title(number)))
        assert served.connections() == {"a": 1, "b": 2}
        assert pool.order() == "abb"


def test_a_place_is_free_again_however_its_association_ended(stage: Stage, pool: Pool) -> None:
    served = limited(stage, pool["a"], "node", "5s")
    for number in range(0, 6, 2):
        one, two = (Caller(served.port, calling=title(number + more)) for more in range(2))
        assert (one.answer, two.answer) == (ACCEPTED, ACCEPTED)
        one.send(abort(0, 0).encode())
        two.reset()
    assert Counter(event["ended"] for event in served.ended(6)) == {"client_aborted": 3, "client_closed": 3}
    assert served.connections() == {"a": 0}


# Operators


def test_drain_lets_an_open_association_finish_and_sends_new_ones_elsewhere(stage: Stage, machines: Machines) -> None:
    (file,) = named("CT_small.dcm")
    served = stage.serve(machines.ports("a", "b"))
    with pynet.association(served.port, contexts=_storage(file)) as opened:
        done = stage.balancer.cli("node", "drain", f"{served.name}/a")
        assert done.returncode == 0, done.stderr
        assert served.status()["nodes"]["a"]["state"] == "drain"
        store(served.port, 2)
        assert opened.send_c_store(file.path).Status == 0x0000
        time.sleep(SETTLE_S)
        assert opened.send_c_store(file.path).Status == 0x0000
    assert machines.taken() == (2, 2, 0)
    assert {event["ended"] for event in served.ended(3)} == {"released"}


def test_disable_ends_an_open_association_after_its_current_message(stage: Stage, pool: Pool) -> None:
    (file,) = named("CT_small.dcm")
    arrived, go_on = threading.Event(), threading.Event()

    def store_slowly(_event: Any) -> int:
        arrived.set()
        assert go_on.wait(20)
        return 0x0000

    with Node(handlers=[(evt.EVT_C_STORE, store_slowly)]) as slow, ThreadPoolExecutor(1) as threads:
        served = stage.serve({"a": slow.port, "b": pool["b"].port})
        busy = pynet.associate(served.port, contexts=_storage(file), calling="BUSY")
        idle = Caller(served.port, calling="IDLE")
        stored = threads.submit(busy.send_c_store, file.path)
        assert arrived.wait(10)
        served.operate("disable", "a")
        assert idle.is_aborted()
        time.sleep(SETTLE_S)
        assert busy.is_established
        assert not stored.done()
        go_on.set()
        assert stored.result(10).Status == 0x0000
        eventually(lambda: busy.is_aborted, what="the end of the busy association")
        visits(served.port, range(1))
        assert len(slow.seen) == 2
        ended = {event["calling_ae"]: event for event in served.ended(3)}
    assert [ended[name]["ended"] for name in ("IDLE", "BUSY", title(0))] == ["disabled", "disabled", "released"]
    assert [row["status"] for row in ended["BUSY"]["messages"]] == ["0000"]


def test_a_node_of_weight_0_takes_nothing_new_and_keeps_what_it_has(stage: Stage, pool: Pool) -> None:
    served = stage.serve(pool.ports("a", "b"))
    with Caller(served.port, calling="EARLY") as early:
        served.operate("weight", "a", 0)
        visits(served.port, range(2))
        assert early.echo()
        shown = served.status()["nodes"]["a"]
        assert (shown["state"], shown["weight"], shown["connections"]) == ("up", 0, 1)
        served.operate("weight", "a")
        visits(served.port, range(2, 3))
    assert pool.taken() == {"a": 2, "b": 2, "c": 0}


def test_a_machine_leaves_all_its_services_at_once(stage: Stage, pool: Pool) -> None:
    def both() -> dict[str, int]:
        return {"pacs-a": pool["a"].port, "pacs-b": pool["b"].port}

    store, query = stage.serve_all([(both(), {}), (both(), {})])
    done = stage.balancer.cli("node", "drain", "*/pacs-a")
    assert done.returncode == 0, done.stderr
    for number, served in enumerate((store, query)):
        assert {name: node["state"] for name, node in served.status()["nodes"].items()} == {
            "pacs-a": "drain",
            "pacs-b": "up",
        }
        visits(served.port, range(number, number + 1))
    assert pool.taken() == {"a": 0, "b": 2, "c": 0}
    assert stage.balancer.cli("node", "enable", "*/pacs-a").returncode == 0
    visits(store.port, range(2, 3))
    assert pool.order() == "bba"


def test_a_drained_pool_rejects(stage: Stage, pool: Pool) -> None:
    served = stage.serve(pool.ports("a", "b"))
    for name in ("a", "b"):
        served.operate("drain", name)
    assert visit(served.port) == CONGESTION


# What is told of it


def _storage(*files: Any) -> list[Any]:
    return [build_context(uid) for uid in (pynet.VERIFICATION,)] + [
        build_context(file.sop_class, [file.transfer_syntax]) for file in files
    ]


def test_the_event_counts_messages_and_bytes_as_the_client_does(stage: Stage) -> None:
    ct, mr = named("CT_small.dcm", "MR_small.dcm")
    sent: list[bytes] = []
    received: list[bytes] = []

    def store(event: Any) -> int:
        return OUT_OF_RESOURCES if event.request.AffectedSOPClassUID == mr.sop_class else 0x0000

    with Node(handlers=[(evt.EVT_C_STORE, store)]) as node:
        served = stage.serve({"dead": free_port(), "a": node.port}, health=checked_elsewhere(node.port))
        with pynet.association(
            served.port,
            calling="CT_WARD_3",
            called="PACS",
            source="127.0.0.7",
            contexts=_storage(ct, mr),
            handlers=[
                (evt.EVT_DATA_SENT, lambda event: sent.append(event.data)),
                (evt.EVT_DATA_RECV, lambda event: received.append(event.data)),
            ],
        ) as opened:
            statuses = [int(opened.send_c_store(file.path).Status) for file in (ct, mr, ct)]
            assert pynet.echo(opened) == 0
        assert statuses == [0x0000, OUT_OF_RESOURCES, 0x0000]
        (event,) = served.ended(1)
    assert event["client"].startswith("127.0.0.7:")
    assert (event["calling_ae"], event["called_ae"]) == ("CT_WARD_3", "PACS")
    assert (event["node"], event["tried"], event["ended"]) == ("a", ["dead", "a"], "released")
    rows = {(row["command"], row["sop_class"], row["status"]): row["count"] for row in event["messages"]}
    assert rows == {
        ("C-STORE", ct.sop_class, "0000"): 2,
        ("C-STORE", mr.sop_class, "A700"): 1,
        ("C-ECHO", pynet.VERIFICATION, "0000"): 1,
    }
    assert event["bytes_in"] == sum(map(len, sent)) > 2 * ct.path.stat().st_size
    assert event["bytes_out"] == sum(map(len, received)) > 0
    assert 0 < event["setup_ms"] <= event["duration_s"] * 1000 + 1
    assert all(0 <= row["response_ms_mean"] <= row["response_ms_max"] for row in event["messages"])


def test_the_event_of_a_node_that_dies_tells_what_was_not_answered(stage: Stage, tmp_path: Path) -> None:
    (file,) = named("RG3_UNCR.dcm")
    with storescp(free_port(), tmp_path / "in", "--sleep-during", "1") as peer, ThreadPoolExecutor(1) as threads:
        served = stage.serve({"a": peer.port}, health=checked_elsewhere(peer.port))
        opened = pynet.associate(served.port, contexts=_storage(file))
        stored = threads.submit(opened.send_c_store, file.path)
        eventually(lambda: served.status()["nodes"]["a"]["bytes_in"] > 100_000, what="an object on its way")
        peer.kill()
        assert "Status" not in stored.result(20), "the client was told that it is stored"
        eventually(lambda: opened.is_aborted, what="our A-ABORT")
        (event,) = served.ended(1)
    assert event["ended"] == "node_closed"
    assert [(row["command"], row["status"], row["count"]) for row in event["messages"]] == [("C-STORE", None, 1)]


@pytest.mark.parametrize(("option", "ended"), [("--abort-after", "node_aborted"), ("--abort-during", "node_aborted")])
def test_the_event_of_a_node_that_aborts(stage: Stage, tmp_path: Path, option: str, ended: str) -> None:
    (file,) = named("CT_small.dcm")
    with storescp(free_port(), tmp_path / "in", option) as peer:
        served = stage.serve({"a": peer.port})
        done = run("storescu", "127.0.0.1", str(served.port), str(file.path))
        assert done.returncode != 0
        assert "Peer aborted Association" in done.stderr
        assert [event["ended"] for event in served.ended(1)] == [ended]


def patient_words() -> set[bytes]:
    """Return names and ids of patients in the real files that cannot be there by chance."""
    words = {word for file in real_files() for text in file.patient for word in [text, *text.split("^")]}
    return {word.encode() for word in words if len(word) >= 7 and not word.isdecimal()}


def places_of(words: set[bytes], folder: Path) -> dict[str, set[bytes]]:
    """Return in which files which of the words occur."""
    found = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes().lower()
        if here := {word for word in words if word.lower() in data}:
            found[str(path.relative_to(folder))] = here
    return found


def test_nothing_of_a_patient_is_in_events_journal_or_logs(stage: Stage, tmp_path: Path) -> None:
    words = patient_words()
    assert {b"CompressedSamples^CT1", b"Lestrade^G", b"CQ500-CT-310"} <= words
    files = [file for file in real_files() if any(word in " ".join(file.patient).encode() for word in words)]
    (tmp_path / "archive").mkdir()
    with dcmqrscp(free_port(), tmp_path / "archive", "PACS") as archive, storescp(free_port(), tmp_path / "in") as peer:
        stored = stage.serve({"a": peer.port})
        paths = [str(file.path) for file in files]
        run("dcmsend", "-dn", "-nuc", "-nh", "-aec", "PACS", "127.0.0.1", str(stored.port), *paths)
        (store,) = stored.ended(1)
        asked = stage.serve({"a": archive.port})
        run("storescu", "-nh", "-R", "-aec", "PACS", "127.0.0.1", str(asked.port), *paths[:20])
        keys = [part for name in ("PatientName=CompressedSamples*", "PatientID=CQ500-CT-310") for part in ("-k", name)]
        run("findscu", "-S", "-aec", "PACS", "-k", "QueryRetrieveLevel=STUDY", *keys, "127.0.0.1", str(asked.port))
        asked.ended(2)
        run("storescu", "--abort", "127.0.0.1", str(free_port()), *paths[:1])
    assert sum(row["count"] for row in store["messages"]) > 20
    assert places_of(words, tmp_path / "in"), "the words are not written as they are searched for"
    home = stage.balancer.home
    assert (home / "state/events.jsonl").stat().st_size > 1000
    assert places_of({b"association.ended"}, home), "the journal is not among the files that are searched"
    assert places_of(words, home) == {}
    events = str(stage.balancer.events()).encode().lower()
    assert [word for word in words if word.lower() in events] == []

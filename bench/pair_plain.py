"""A pair without Equipoise, to compare with: keepalived and HAProxy by hand, on the same two machines.

It has an address of its own and the same advertisement interval, and loses its cable and its power in the same moments.
Leaves out what its guides leave out: nobody looks whether HAProxy answers.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from string import Template

from bench.programs import HERE, BenchError, find_program
from tests.lab.lab import Segment
from tests.system.pair_machine import Machine

VIP, PORT = Segment.SERVERS.v4(110), 9000
ROUTER_ID = 90
PRIORITIES = (150, 100)
WITHIN_S = 20.0
_ENDS_WITHIN_S = 5.0


class Plain:
    """Both machines' halves.

    Args:
        folder: For configurations and PID files.
        machines: The two of the pair.
        nodes: Addresses of a and b.
        node_port: Where they answer.
    """

    def __init__(self, folder: Path, machines: tuple[Machine, ...], nodes: Mapping[str, str], node_port: int) -> None:
        self._folder = folder
        self._machines = machines
        self._places = {**nodes, "port": str(PORT), "node_port": str(node_port)}
        self._advert_s = 0.2
        self._keepalived: dict[str, subprocess.Popen[bytes]] = {}
        self._proxies: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir()

    def __enter__(self) -> "Plain":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, advert_s: float) -> None:
        """Start both halves anew; the first machine takes the address."""
        self.stop()
        self._advert_s = advert_s
        for machine in self._machines:
            self.boot(machine)

    def boot(self, machine: Machine) -> None:
        """Start one half, where it does not run."""
        if not _runs(self._proxies.get(machine.name)):
            config = self._fill("haproxy/pair_plain.cfg", machine, self._places)
            self._proxies[machine.name] = self._start(machine, find_program("haproxy", "haproxy"), "-db", "-f", config)
        if not _runs(self._keepalived.get(machine.name)):
            self._start_keepalived(machine)

    def stop(self) -> None:
        """End both halves."""
        for process in (*self._keepalived.values(), *self._proxies.values()):
            _end(process)
        self._keepalived.clear()
        self._proxies.clear()

    def follow(self, machine: Machine) -> None:
        """Have a machine hold the address, and the other stand by.  Raises: BenchError."""
        (other,) = (each for each in self._machines if each is not machine)
        if other.holds(VIP) or not machine.holds(VIP):
            _end(self._keepalived[other.name])
            _await(lambda: machine.holds(VIP) and not other.holds(VIP), f"{VIP} on {machine.name} alone")
            self._start_keepalived(other)
        _await(lambda: _stands_by(self._log(other)), f"the keepalived of {other.name} to stand by")

    # Inside

    def _log(self, machine: Machine) -> Path:
        return self._folder / f"{machine.name}-keepalived.log"

    def _start_keepalived(self, machine: Machine) -> None:
        (peer,) = (each for each in self._machines if each is not machine)
        priority = PRIORITIES[self._machines.index(machine)]
        places = {"own": machine.address, "peer": peer.address, "vip": VIP, "router_id": str(ROUTER_ID)}
        config = self._fill(
            "keepalived/plain.conf", machine, places | {"priority": str(priority), "advert_s": f"{self._advert_s:g}"}
        )
        pids = [self._folder / f"{machine.name}-{which}.pid" for which in ("parent", "vrrp")]
        for pid in pids:
            pid.unlink(missing_ok=True)  # one that is stale keeps it from starting
        options = ("--vrrp", "--dont-fork", "--log-console", "--no-syslog", "--log-detail", "--use-file", config)
        files = ("--pid", str(pids[0]), "--vrrp_pid", str(pids[1]))
        self._log(machine).unlink(missing_ok=True)
        program = find_program("keepalived", "keepalived")
        self._keepalived[machine.name] = self._start(machine, program, *options, *files)

    def _fill(self, template: str, machine: Machine, places: Mapping[str, str]) -> str:
        path = self._folder / f"{machine.name}-{Path(template).name}"
        path.write_text(Template((HERE / template).read_text()).substitute(places))
        path.chmod(0o644)
        return str(path)

    def _start(self, machine: Machine, program: str, *options: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{machine.name}-{Path(program).name}.log").open("ab") as log:
            return subprocess.Popen(
                [*machine.host.prefix, program, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def _runs(process: subprocess.Popen[bytes] | None) -> bool:
    return process is not None and process.poll() is None


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _stands_by(log: Path) -> bool:
    """Say whether the last state that a keepalived told of is BACKUP."""
    states = [line for line in log.read_text(errors="replace").splitlines() if "STATE" in line]
    return bool(states) and "BACKUP STATE" in states[-1]


def _await(look: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not look():
        if time.monotonic() > deadline_s:
            raise BenchError(f"the pair without Equipoise: {what} did not come about within {WITHIN_S:g} s")
        time.sleep(0.05)

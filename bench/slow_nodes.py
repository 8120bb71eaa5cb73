"""Nodes of unequal speed: storescp processes (DCMTK), each in a network namespace behind a link with a rate of its own.

They read everything and store nothing, so that no disk is measured.  Needs root, for the namespaces and the rates.
Source: ip-netns(8), tc-tbf(8); addresses from the network that is set aside for measurements, RFC 2544 appendix C.2.2.
"""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.programs import BenchError, find_program, run_load

PORT = 11112
DEBIAN = "/usr/bin"  # a venv may hold another storescp
BURST_BYTES, QUEUE_MS = (
    512_000,
    100,
)  # what a rate of some Gbit/s needs between two wake-ups, and a switch's worth of queue


@dataclass(frozen=True, slots=True)
class SlowNode:
    """One storescp, the address that it is reached at, and the link that leads there."""

    name: str
    mb_per_s: int
    host: str
    link: str

    @property
    def address(self) -> str:
        """Host and port, as a configuration has it."""
        return f"{self.host}:{PORT}"

    def sent_bytes(self) -> int:
        """Return what went to the node so far, headers included."""
        return int(Path(f"/sys/class/net/{self.link}/statistics/tx_bytes").read_text())

    def measure_mb_per_s(self, seconds: float) -> float:
        """Store on two associations without any relay, and return the speed.  Raises: BenchError."""
        options: dict[str, str | float] = {"address": self.host, "associations": 2, "object_bytes": 500_000}
        result = run_load("store", PORT, limit_s=60, seconds=seconds, **options)
        if result.errors or not result.objects:
            raise BenchError(f"{self.name} at {self.address} stored nothing: {result.first_error or 'too slow'}")
        return result.bytes / 1e6 / result.seconds


def _run(*command: str) -> str:
    """Run a command of iproute2.  Raises: BenchError."""
    program = find_program(command[0], "iproute2")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        hint = "" if os.geteuid() == 0 else "; this needs root, to make network namespaces and limit their links"
        raise BenchError(f"{' '.join(command)}: {done.stderr.strip()}{hint}")
    return done.stdout


def _remove_space(space: str) -> None:
    """End what runs in a namespace, and remove it with its links."""
    with contextlib.suppress(BenchError):
        for pid in _run("ip", "netns", "pids", space).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _run("ip", "netns", "del", space)


def _link(space: str, link: str, network: str, first: int) -> str:
    """Lead a link into a namespace, and return the address at its end."""
    here, there = f"{network}.{first}", f"{network}.{first + 1}"
    _run("ip", "link", "add", link, "type", "veth", "peer", "name", "node", "netns", space)
    _run("ip", "address", "add", f"{here}/30", "dev", link)
    _run("ip", "-n", space, "address", "add", f"{there}/30", "dev", "node")
    for inside in ("lo", "node"):
        _run("ip", "-n", space, "link", "set", inside, "up")
    _run("ip", "link", "set", link, "up")
    return there


def _remove_link(link: str) -> None:
    with contextlib.suppress(BenchError):  # it went with its namespace, as a rule
        _run("ip", "link", "del", link)


def _limit(link: str, mb_per_s: int) -> None:
    rate = ["rate", f"{mb_per_s * 8}mbit", "burst", str(BURST_BYTES), "latency", f"{QUEUE_MS}ms"]
    _run("tc", "qdisc", "replace", "dev", link, "root", "tbf", *rate)


def _start(space: str, directory: Path) -> subprocess.Popen[bytes]:
    """Start storescp, a process for each association."""
    storescp = find_program("storescp", "dcmtk", path=DEBIAN)
    command = [find_program("ip", "iproute2"), "netns", "exec", space, storescp, "--fork", "--ignore", str(PORT)]
    # Without TCP_NODELAY Debian's build sends each response in two parts, the second one 40 ms later: RFC 896 meets
    # RFC 1122 section 4.2.3.2.  All nodes would be equally slow.
    environment = {**os.environ, "TCP_NODELAY": "1"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=directory, env=environment, stdin=quiet, stdout=quiet, stderr=quiet)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


@contextmanager
def slow_nodes(speeds: Sequence[int], directory: Path, chance: random.Random) -> Iterator[list[SlowNode]]:
    """Give storescp nodes that take so many MB/s each, and remove everything at the end.  Raises: BenchError."""
    network = f"198.18.{chance.randrange(1, 255)}"
    nodes = []
    with ExitStack() as stack:
        for number, speed in enumerate(speeds):
            letter = chr(ord("a") + number)
            space, link = f"eqb{os.getpid()}-{letter}", f"eqb{os.getpid()}{letter}"
            _run("ip", "netns", "add", space)
            stack.callback(_remove_link, link)
            stack.callback(_remove_space, space)
            host = _link(space, link, network, 4 * number + 1)
            _limit(link, speed)
            stack.callback(_stop, _start(space, directory))
            nodes.append(SlowNode(f"node-{letter}", speed, host, link))
        time.sleep(0.5)  # they do not say when they listen
        yield nodes

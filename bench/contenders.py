"""What is compared: each contender is started, says on which port it takes associations, and which processes it is.

A new one is a function that returns a Contender, and a line in `CONTENDERS`.
"""

import contextlib
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from string import Template

from bench import processes
from bench.programs import HERE, BenchError, find_program, run_load

STOCK, TUNED, GATEWAY, DIRECT = "haproxy-stock", "haproxy-tuned", "equipoise", "direct"
START_LIMIT_S = 40


def free_port(chance: random.Random) -> int:
    """Return a port below the ephemeral range: no outgoing connection takes it meanwhile.  Raises: BenchError."""
    for _ in range(100):
        port = chance.randrange(15000, 30000)
        with contextlib.suppress(OSError), socket.socket() as trial:
            trial.bind(("127.0.0.1", port))
            return port
    raise BenchError("no free port between 15000 and 30000 on 127.0.0.1")


@dataclass(frozen=True, slots=True)
class Site:
    """What a contender is given: its directory, the nodes' ports and a source of free ports."""

    directory: Path
    nodes: Sequence[int]
    chance: random.Random

    def fill(self, template: Path, name: str, port: int, places: Mapping[str, str]) -> Path:
        """Write a configuration into the directory, and return where it is."""
        known = {"port": str(port), "node_a": str(self.nodes[0]), "node_b": str(self.nodes[-1])}
        known["directory"] = str(self.directory)
        written = self.directory / f"{name}{template.suffix}"
        written.write_text(Template(template.read_text()).substitute({**known, **places}))
        return written


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to the nodes.  `relay` carries the traffic; `supervisor` is counted by itself.

    `options` are those that the generator needs to speak with it.
    """

    name: str
    port: int
    relay: frozenset[int] = frozenset()
    supervisor: frozenset[int] = frozenset()
    stop: Callable[[], None] = lambda: None
    options: Mapping[str, str] = field(default_factory=dict)


def _start(command: list[str], log: Path, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=log.parent
        )


def _stop(process: subprocess.Popen[bytes], rest: Callable[[], set[int]]) -> None:
    """End a contender's main process, politely at first, then what it may have left."""
    left = rest()
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in left | rest():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _wait_until_it_serves(
    name: str, port: int, process: subprocess.Popen[bytes], log: Path, options: Mapping[str, str]
) -> None:
    """Ask for a C-ECHO association until one succeeds.  Raises: BenchError."""
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end and process.poll() is None:
        if run_load("echo", port, limit_s=10, count=1, seconds=5, patience=2, **options).errors == 0:
            return
        time.sleep(0.2)
    how = "does not serve" if process.poll() is None else f"ended with {process.returncode}"
    raise BenchError(f"{name} {how}; its last words:\n{log.read_text(errors='replace')[-2000:]}")


def direct(site: Site) -> Contender:
    """Return the way without any relay."""
    return Contender(DIRECT, site.nodes[0])


def _launch(
    name: str,
    command: list[str],
    site: Site,
    port: int,
    environment: Mapping[str, str],
    options: Mapping[str, str] | None = None,
) -> Contender:
    """Start a relay and wait until it serves; its first process is the supervisor where others carry the traffic."""
    options = options or {}
    log, mark = site.directory / f"{name}.log", f"EQUIPOISE_RUNTIME_DIR={environment.get('EQUIPOISE_RUNTIME_DIR')}"
    process = _start(command, log, {**os.environ, **environment})
    rest = partial(processes.family, process.pid, mark)
    stop = partial(_stop, process, rest)
    try:
        _wait_until_it_serves(name, port, process, log, options)
    except BaseException:
        stop()
        raise
    if relay := frozenset(rest()):
        return Contender(name, port, relay, frozenset({process.pid}), stop, options)
    return Contender(name, port, relay=frozenset({process.pid}), stop=stop, options=options)


def haproxy(name: str, template: str, site: Site, options: Mapping[str, str] | None = None) -> Contender:
    """Start HAProxy in mode tcp with one of our configurations.  Raises: BenchError."""
    port = free_port(site.chance)
    config = site.fill(HERE / "haproxy" / template, name, port, {})
    command = [find_program("haproxy", "haproxy"), "-db", "-f", str(config)]
    return _launch(name, command, site, port, {}, options)


def equipoise(
    site: Site,
    name: str = GATEWAY,
    template: str = "site.yaml",
    options: Mapping[str, str] | None = None,
    places: Mapping[str, str] | None = None,
) -> Contender:
    """Start Equipoise as a user does, in directories of its own.  Raises: BenchError."""
    port = free_port(site.chance)
    config = site.fill(HERE / template, name, port, places or {})
    environment = {
        "EQUIPOISE_RUNTIME_DIR": str(site.directory / f"{name}-run"),
        "EQUIPOISE_STATE_DIR": str(site.directory / f"{name}-state"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE.parent / "src"), os.environ.get("PYTHONPATH")])),
    }
    return _launch(name, [sys.executable, "-m", "equipoise", "run", str(config)], site, port, environment, options)


def another(name: str, command: str, site: Site, options: Mapping[str, str] | None = None) -> Contender:
    """Start any relay: `command` has the places {port}, {node_a} and {node_b}.  Raises: BenchError."""
    port = free_port(site.chance)
    filled = command.format(port=port, node_a=site.nodes[0], node_b=site.nodes[-1])
    return _launch(name, shlex.split(filled), site, port, {}, options)


CONTENDERS: dict[str, Callable[[Site], Contender]] = {
    DIRECT: direct,
    GATEWAY: equipoise,
    STOCK: partial(haproxy, STOCK, "stock.cfg"),
    TUNED: partial(haproxy, TUNED, "tuned.cfg"),
}

"""What is compared: each contender is started, says on which port it takes associations, and which processes it is.

A new one is a function that returns a Contender, and a line in `CONTENDERS`.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from string import Template
from typing import TypeAlias

from bench import processes
from bench.programs import HERE, BenchError, find_program, run_load
from equipoise.sim.ports import free_port

STOCK, TUNED, GATEWAY, DIRECT = "haproxy-stock", "haproxy-tuned", "equipoise", "direct"
_START_LIMIT_S, _STOP_LIMIT_S = 40, 15
_ASK_EVERY_S = 0.2

Ready: TypeAlias = Callable[[], str]  # what is wrong with a program that has been started; nothing once it serves


@dataclass(frozen=True, slots=True)
class Site:
    """What a contender is given: its directory and the nodes' ports."""

    directory: Path
    nodes: Sequence[int]

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


@dataclass(frozen=True, slots=True)
class Program:
    """A process that was started, and what descends from it or carries `mark` (NAME=VALUE) in its environment."""

    process: subprocess.Popen[bytes]
    mark: str
    log: Path

    def others(self) -> frozenset[int]:
        """Return the processes beside the first one."""
        return frozenset(processes.family(self.process.pid, self.mark))

    def everything(self) -> frozenset[int]:
        """Return all its processes."""
        return self.others() | {self.process.pid}

    def stop(self) -> None:
        """End it, politely at first, then what it may have left."""
        left = self.others()
        self.process.terminate()
        try:
            self.process.wait(timeout=_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in left | self.others():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def start(
    name: str,
    command: list[str],
    site: Site,
    environment: Mapping[str, str] | None = None,
    mark: tuple[str, str] | None = None,
) -> Program:
    """Start a program in the directory of the site; `mark` is a variable that all its processes have, if not ours."""
    own = ("EQUIPOISE_BENCH", f"{site.directory.name}-{name}")
    log = site.directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=site.directory,
            env={**os.environ, **(environment or {}), **dict([own])},
            start_new_session=True,  # Ctrl-C is for the benchmark, which ends what it started
        )
    return Program(process, "=".join(mark or own), log)


def await_serving(name: str, program: Program, ready: Ready) -> None:
    """Wait until a program serves, and end one that does not.  Raises: BenchError, with its last words."""
    end, said = time.monotonic() + _START_LIMIT_S, ""
    try:
        while time.monotonic() < end and program.process.poll() is None:
            if not (said := ready()):
                return
            time.sleep(_ASK_EVERY_S)
    except BaseException:
        program.stop()
        raise
    code = program.process.poll()
    program.stop()
    how = f"does not serve ({said})" if code is None else f"ended with {code}"
    raise BenchError(f"{name} {how}; its last words:\n{program.log.read_text(errors='replace')[-2000:]}")


def takes_associations(port: int, options: Mapping[str, str]) -> str:
    """Return what is wrong with a C-ECHO association; nothing where it succeeds.  Raises: BenchError."""
    echo = run_load("echo", port, limit_s=10, count=1, seconds=5, patience=2, **options)
    return (echo.first_error or "an association failed") if echo.errors else ""


def direct(site: Site) -> Contender:
    """Return the way without any relay."""
    return Contender(DIRECT, site.nodes[0])


def launch(name: str, program: Program, port: int, options: Mapping[str, str], ready: Ready | None = None) -> Contender:
    """Return a relay once it serves: `ready`, or where that is left out a C-ECHO, finds nothing wrong.

    Its first process is the supervisor where others carry the traffic.  Raises: BenchError.
    """
    await_serving(name, program, ready or partial(takes_associations, port, options))
    first = frozenset({program.process.pid})
    if relay := program.others():
        return Contender(name, port, relay, first, program.stop, options)
    return Contender(name, port, first, stop=program.stop, options=options)


def haproxy(name: str, template: str, site: Site, options: Mapping[str, str] | None = None) -> Contender:
    """Start HAProxy in mode tcp with one of our configurations.  Raises: BenchError."""
    port = free_port()
    config = site.fill(HERE / "haproxy" / template, name, port, {})
    return launch(name, start(name, haproxy_command(config), site), port, options or {})


def haproxy_command(config: Path) -> list[str]:
    """Return the command line of a HAProxy in the foreground.  Raises: BenchError."""
    return [find_program("haproxy", "haproxy"), "-db", "-f", str(config)]


def equipoise(
    site: Site,
    name: str = GATEWAY,
    template: str = "site.yaml",
    options: Mapping[str, str] | None = None,
    places: Mapping[str, str] | None = None,
) -> Contender:
    """Start Equipoise as a user does, in directories of its own.  Raises: BenchError."""
    port = free_port()
    config = site.fill(HERE / template, name, port, places or {})
    mark = ("EQUIPOISE_RUNTIME_DIR", str(runtime_directory(site, name)))
    return launch(name, start_equipoise(name, config, site, mark), port, options or {})


def start_equipoise(name: str, config: Path, site: Site, mark: tuple[str, str], prefix: Sequence[str] = ()) -> Program:
    """Start Equipoise; `mark` is what its engines have of its environment, `prefix` is what starts it elsewhere."""
    command = [*prefix, sys.executable, "-m", "equipoise", "run", str(config)]
    return start(name, command, site, equipoise_environment(name, site), mark)


def equipoise_environment(name: str, site: Site) -> dict[str, str]:
    """Return what sets one Equipoise apart from others on this machine."""
    return {
        "EQUIPOISE_RUNTIME_DIR": str(runtime_directory(site, name)),
        "EQUIPOISE_STATE_DIR": str(site.directory / f"{name}-state"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE.parent / "src"), os.environ.get("PYTHONPATH")])),
    }


def runtime_directory(site: Site, name: str = GATEWAY) -> Path:
    """Return where an Equipoise has its sockets."""
    return site.directory / f"{name}-run"


def another(name: str, command: str, site: Site, options: Mapping[str, str] | None = None) -> Contender:
    """Start any relay: `command` has the places {port}, {node_a} and {node_b}.  Raises: BenchError."""
    port = free_port()
    filled = command.format(port=port, node_a=site.nodes[0], node_b=site.nodes[-1])
    return launch(name, start(name, shlex.split(filled), site), port, options or {})


CONTENDERS: dict[str, Callable[[Site], Contender]] = {
    DIRECT: direct,
    GATEWAY: equipoise,
    STOCK: partial(haproxy, STOCK, "stock.cfg"),
    TUNED: partial(haproxy, TUNED, "tuned.cfg"),
}

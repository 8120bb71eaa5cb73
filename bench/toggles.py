"""What do 200 toggles of a node and 10 reloads cost those who ask meanwhile?  Run: python -m bench.toggles [--quick].

Two generators ask all the time: connections that are kept, and connections that end after a few requests.  No request
may fail, nor need to be sent twice.  A toggle is a node that is drained, disabled or enabled, in turn; how long it
takes is read from the nodes' log: until the last request there, or the first.  A reload is a document whose change
HAProxy can only load anew.  Leaves out slow start, cookies and source persistence.
Seed: the objects' bytes and the choice of ports.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench import report
from bench.contenders import Contender, Site, runtime_directory
from bench.programs import HERE, BenchError
from bench.question import Measured, Question, answer
from bench.web_contenders import SIZES, equipoise, nodes
from bench.web_load import Asked, WebLoad, plain_command, read_plain
from equipoise.base.errors import EquipoiseError
from equipoise.cli.client import Client

QUESTION = "What do 200 toggles of a node and 10 reloads cost those who ask meanwhile?"
NODE = "dicomweb/node-a"
ACTIONS = ("drain", "enable", "disable", "enable")
KEPT, SHORT = "20 connections that are kept", "10 connections of 5 requests each"
LOADS = {KEPT: (WebLoad(KEPT, "/1kB", 20, SIZES["1kB"]), 0), SHORT: (WebLoad(SHORT, "/1kB", 10, SIZES["1kB"]), 5)}
REQUEST_S = (10, 11)  # what changes: how long a client may take for its headers
TOGGLE_PAUSE_S, RELOAD_PAUSE_S = 0.1, 0.5
LOAD_LIMIT_S, FLUSH_S = 300.0, 1.5


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done."""

    toggles: int
    reloads: int


FULL = Effort(toggles=200, reloads=10)
QUICK = Effort(toggles=20, reloads=3)


@dataclass(frozen=True, slots=True)
class Toggle:
    """One change of the node; `asked_at` is the time of day, which the nodes' log has too."""

    action: str
    asked_at: float
    answered_ms: float


@contextmanager
def asked_meanwhile(contender: Contender, told: dict[str, Asked]) -> Iterator[None]:
    """Ask all the time; at the end `told` holds what came of each load.  Raises: BenchError."""
    port = contender.options["port"]
    with ExitStack() as stack:
        running = {}
        for name, (load, requests) in LOADS.items():
            command = plain_command(load, port, LOAD_LIMIT_S, **{"requests-per-connection": requests})
            running[name] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            stack.callback(_end, running[name])
        time.sleep(0.3)
        yield
        for process in running.values():
            process.terminate()
        told |= {name: read_plain(process.communicate(timeout=60)[0]) for name, process in running.items()}


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def toggle(client: Client, count: int) -> list[Toggle]:
    """Take the node out and put it back.  Raises: EquipoiseError."""
    done = []
    for number in range(count):
        action, asked_at, begun = ACTIONS[number % len(ACTIONS)], time.time(), time.monotonic()
        client.override(NODE, action)
        done.append(Toggle(action, asked_at, 1000 * (time.monotonic() - begun)))
        time.sleep(TOGGLE_PAUSE_S)
    return done


def reload(client: Client, document: Callable[[int], str], count: int) -> list[float]:
    """Put another structure into force, again and again; return how long each took, in ms.  Raises: EquipoiseError."""
    took = []
    for number in range(count):
        begun = time.monotonic()
        client.apply(document(REQUEST_S[(number + 1) % 2]), "toggles.yaml", force=False)
        took.append(1000 * (time.monotonic() - begun))
        time.sleep(RELOAD_PAUSE_S)
    return took


def settled_ms(toggles: Sequence[Toggle], seen_at: Sequence[float]) -> dict[str, list[float]]:
    """Return for each action how long it took until the node's last request, or its first one when it is enabled.

    `seen_at`: when the node's requests ended, ascending, in whole milliseconds.  Raises: BenchError.
    """
    found: dict[str, list[float]] = {}
    for one, following in pairwise(toggles):
        first = bisect_left(seen_at, one.asked_at)
        last = bisect_left(seen_at, following.asked_at) - 1
        none = last < first
        if none and one.action == "enable":
            raise BenchError(f"{NODE} was enabled and got no request before it was taken out again")
        settled = 0.0 if none else seen_at[first if one.action == "enable" else last] - one.asked_at
        found.setdefault(one.action, []).append(max(0.0, 1000 * settled))
    return found


def seen(log: Path, port: int) -> list[float]:
    """Return when a node's requests ended."""
    lines = (line.split() for line in log.read_text().splitlines())
    return sorted(float(when) for when, to in lines if to == str(port))


def measure(options: argparse.Namespace) -> Measured:
    """Measure everything.  Raises: BenchError."""
    effort = QUICK if options.quick else FULL
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eqt-", dir="/tmp")))
        log = directory / "requests.log"
        site, program = nodes(directory, random.Random(options.seed), f"{log} when buffer=64k flush=1s")
        stack.callback(program.stop)
        contender = equipoise(site, "sites/toggles.yaml", {"request_s": str(REQUEST_S[0])})
        stack.callback(contender.stop)
        try:
            return _measured(site, contender, log, effort)
        except (EquipoiseError, subprocess.TimeoutExpired) as error:
            raise BenchError(f"Equipoise, or who asks it, did not do as told: {error}") from None


def _measured(site: Site, contender: Contender, log: Path, effort: Effort) -> Measured:
    client = Client(runtime_directory(site) / "api.sock")

    def document(request_s: int) -> str:
        places = {"tls_port": contender.options["tls_port"], "request_s": str(request_s)}
        return site.fill(HERE / "sites" / "toggles.yaml", "changed", contender.port, places).read_text()

    toggling: dict[str, Asked] = {}
    reloading: dict[str, Asked] = {}
    with asked_meanwhile(contender, toggling):
        toggles = toggle(client, effort.toggles)
    time.sleep(FLUSH_S)
    settled = settled_ms(toggles, seen(log, site.nodes[0]))
    with asked_meanwhile(contender, reloading):
        reloads = reload(client, document, effort.reloads)
    phases = {f"{effort.toggles} toggles": toggling, f"{effort.reloads} reloads": reloading}
    return {
        "errors": [],
        "effort": asdict(effort),
        "asked": {phase: {name: asdict(one) for name, one in told.items()} for phase, told in phases.items()},
        "toggles": [asdict(one) for one in toggles],
        "settled_ms": settled,
        "reload_ms": reloads,
    }


def failed(asked: dict[str, dict[str, Any]]) -> int:
    """Return how many requests failed under all loads of one phase."""
    return sum(int(told["errors"]) for told in asked.values())


def verdicts(measured: Measured) -> list[report.Verdict]:
    """Return the target with what was measured."""
    return [
        report.Verdict(f"requests that failed during {phase}", failed(asked), "requests", 0, None, True)
        for phase, asked in measured["asked"].items()
    ]


def _asked_table(measured: Measured) -> str:
    heads = ["meanwhile", "load", "requests", "a second", "failed", "of these closed when asked again"]
    heads += ["opened", "slowest of a hundred, ms", "slowest, ms"]
    lines = []
    for phase, asked in measured["asked"].items():
        for name, told in asked.items():
            per_s = told["requests"] / max(told["seconds"], 1e-6)
            counts = [report.number(value, 0) for value in (told["requests"], per_s, told["errors"], told["stale"])]
            slow = [report.number(told[key], 1) for key in ("p99_ms", "max_ms")]
            lines.append([phase, name, *counts, report.number(told["opened"], 0), *slow])
    first = [told["first_error"] for asked in measured["asked"].values() for told in asked.values()]
    errors = "".join(f"\nThe first failure: {error}.\n" for error in dict.fromkeys(first) if error)
    return report.table(heads, lines) + errors


def _delay_table(measured: Measured) -> str:
    lines = []
    for action, settled in measured["settled_ms"].items():
        answered = [one["answered_ms"] for one in measured["toggles"] if one["action"] == action]
        what = "the first request there" if action == "enable" else "the last request there"
        lines.append([action, report.spread(answered, 1), what, report.spread(settled, 1)])
    lines.append(["reload", report.spread(measured["reload_ms"], 0), "-", "-"])
    return report.table(["change", "answered after, ms", "and until", "ms"], lines)


def page(measured: Measured) -> str:
    """Return the results as Markdown."""
    effort = measured["effort"]
    how = (
        f"{effort['toggles']} toggles, {TOGGLE_PAUSE_S:g} s apart, then {effort['reloads']} reloads, "
        f"{RELOAD_PAUSE_S:g} s apart, while two loads ask for 1 kB. Times are medians with their range, from when the "
        "change was asked for."
    )
    parts = {
        "Targets": report.verdict_table(verdicts(measured)),
        "Requests meanwhile": _asked_table(measured),
        "How long a change takes": _delay_table(measured),
    }
    head = report.opening("toggles", "Toggles and reloads under load", measured, how)
    return head + "\n".join(f"## {title}\n\n{body}" for title, body in parts.items())


ASKED = Question("toggles", QUESTION, measure, verdicts, page, quick="20 toggles and 3 reloads")

if __name__ == "__main__":
    sys.exit(answer(ASKED, sys.argv[1:]))

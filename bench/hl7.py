"""How fast are HL7 messages balanced, beside HAProxy that only passes bytes?  Run: python -m bench.hl7 [--quick].

All contenders run the whole time and are measured in turn, round after round; who comes first changes with the round.
Ratios and differences are taken within a round.  Every acknowledgement is matched with its message by the senders, and
the receivers' counters must agree.  Senders, relay and receivers share the cores.  Leaves out networks (everything is
loopback), and what receivers do with a message.
Seed: the order of the loads and the choice of ports.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import hl7_page, processes
from bench.contenders import DIRECT, GATEWAY, STOCK, Contender, Site
from bench.hl7_contenders import (
    AT_ONCE,
    BY_MESSAGE,
    BY_PATIENT,
    LEASTCONN,
    direct,
    equipoise,
    equipoise_tls,
    haproxy,
    haproxy_tls,
)
from bench.hl7_load import Hl7Load, Sent, send
from bench.hl7_page import BY_KEY, LOADS, TLS
from bench.hl7_receivers import Receivers, unnoticed_faults
from bench.hl7_scenes import Return, Rows, SerialPool, large_messages, receivers_return
from bench.programs import BenchError
from bench.question import Measured, Question, answer
from bench.tls import certificate

QUESTION = "How fast are HL7 messages balanced, beside HAProxy that only passes bytes?"
PROGRAMS = (DIRECT, GATEWAY, STOCK)
WARM_UP_S = 0.2


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: `seconds` for each contender and load; the others for the two scenes."""

    rounds: int
    seconds: float
    large_rounds: int
    large_seconds: float
    returns: int
    after: Return


FULL = Effort(
    rounds=7,
    seconds=1.0,
    large_rounds=4,
    large_seconds=2.0,
    returns=2,
    after=Return(before_s=3.0, down_s=6.0, counted_s=10.0),
)
QUICK = Effort(
    rounds=2,
    seconds=0.4,
    large_rounds=1,
    large_seconds=1.0,
    returns=1,
    after=Return(before_s=2.0, down_s=5.0, counted_s=5.0),
)


@dataclass(frozen=True, slots=True)
class Run:
    """The contenders and receivers of one run, and what went wrong so far."""

    effort: Effort
    receivers: Receivers
    contenders: Sequence[Contender]
    errors: list[str]

    def measure(self, contender: Contender, load: Hl7Load) -> dict[str, Any]:
        """Return what one contender did with one load; what is wrong with it goes to `errors`."""
        watched = {"relay": contender.relay, "supervisor": contender.supervisor, "sink": {self.receivers.pid}}
        before = {who: processes.cpu_s(pids) for who, pids in watched.items()}
        came = self.receivers.messages()
        sent = send(load, contender, self.effort.seconds, WARM_UP_S)
        used = {f"{who}_cpu_s": round(processes.cpu_s(pids) - before[who], 3) for who, pids in watched.items()}
        self._judge(contender, load, sent, self.receivers.messages() - came)
        return {
            "contender": contender.name,
            "load": load.name,
            "seconds": sent.seconds + WARM_UP_S,
            "per_s": round(sent.per_s, 1),
            **{key: getattr(sent, key) for key in ("messages", "answered", "errors", "p50_ms", "p99_ms", "max_ms")},
            "generator_cpu_s": sent.cpu_s,
            **used,
            "relay_cpu_s_per_10k": round(used["relay_cpu_s"] * 10_000 / max(sent.answered, 1), 4),
        }

    def _judge(self, contender: Contender, load: Hl7Load, sent: Sent, came: int) -> None:
        told = f"{contender.name}, {load.name}"
        if sent.errors:
            self.errors.append(f"{told}: {sent.errors} errors, the first: {sent.first_error}")
        elif not sent.messages:
            self.errors.append(f"{told}: nothing was acknowledged")
        elif came != sent.answered:
            self.errors.append(f"{told}: {came} messages came to the receivers, {sent.answered} were acknowledged")
        if gone := [pid for pid in contender.relay if not Path(f"/proc/{pid}").exists()]:
            self.errors.append(f"{told}: {len(gone)} processes of the relay ended, so its CPU seconds are not known")


def rounds(run: Run, load: Hl7Load) -> Rows:
    """Measure every contender in each round, each time beginning with another one."""
    able = [one for one in run.contenders if one.name not in (BY_MESSAGE, BY_PATIENT) or load.name == BY_KEY]
    rows = []
    for number in range(run.effort.rounds):
        first = number % len(able)
        for contender in able[first:] + able[:first]:
            rows.append(run.measure(contender, load) | {"round": number + 1})
    medians = [f"{one.name} {hl7_page.median_per_s(rows, load.name, one.name):.0f}" for one in able]
    print(f"{load.name}: {', '.join(medians)} a second", flush=True)
    return rows


@contextmanager
def _directory() -> Iterator[tuple[Path, ExitStack]]:
    with ExitStack() as stack:
        yield Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eqh-", dir="/tmp"))), stack


def _keep(stack: ExitStack, started: Sequence[Contender]) -> Sequence[Contender]:
    stack.callback(started[0].stop)
    print(f"{', '.join(one.name for one in started)}: ready", flush=True)
    return started


def measure_speed(options: argparse.Namespace, effort: Effort, errors: list[str]) -> tuple[list[str], Rows, Rows]:
    """Return the contenders, and what they did with every load and beside a large message.  Raises: BenchError."""
    with _directory() as (directory, stack):
        receivers = Receivers([0, 0])
        stack.callback(receivers.kill)
        site = Site(directory, receivers.ports)
        pools = dict.fromkeys((STOCK, LEASTCONN, GATEWAY, BY_MESSAGE, BY_PATIENT), receivers.ports)
        running: list[Contender] = []
        if DIRECT in options.contenders:
            running += direct(receivers.ports[0])
        if GATEWAY in options.contenders:
            running += _keep(stack, equipoise(site, pools, BY_PATIENT))
        if STOCK in options.contenders:
            running += _keep(stack, haproxy(site, pools))
        run = Run(effort, receivers, running, errors)
        warm_up(running, LOADS)
        rows = []
        for load in random.Random(options.seed).sample(LOADS, len(LOADS)):
            rows += rounds(run, load)
        judged = [one for one in running if one.name in PROGRAMS]
        large = large_messages(judged, effort.large_rounds, effort.large_seconds, errors)
        return [one.name for one in running], rows, large


def warm_up(running: Sequence[Contender], loads: Sequence[Hl7Load]) -> None:
    """Load each contender once: a first run is never recorded, since memory is found then.  Raises: BenchError."""
    for contender in running:
        for load in loads:
            sent = send(load, contender, 0.1)
            if sent.errors:
                raise BenchError(f"{contender.name} does not serve {load.name}: {sent.first_error}")
    time.sleep(1)


def measure_tls(options: argparse.Namespace, effort: Effort, errors: list[str]) -> Rows:
    """Return what they did with TLS to senders and receivers.  Raises: BenchError."""
    with _directory() as (directory, stack):
        cert = certificate(directory)
        receivers = Receivers([0, 0], tls=str(directory / "both.pem"))
        stack.callback(receivers.kill)
        site = Site(directory, receivers.ports)
        own = {"tls": str(cert)}
        running: list[Contender] = []
        if DIRECT in options.contenders:
            running += direct(receivers.ports[0], own)
        if GATEWAY in options.contenders:
            running += _keep(stack, equipoise_tls(site, own))
        if STOCK in options.contenders:
            running += _keep(stack, haproxy_tls(site, own))
        warm_up(running, [TLS])
        return rounds(Run(effort, receivers, running, errors), TLS)


def measure_return(options: argparse.Namespace, effort: Effort, errors: list[str]) -> Rows:
    """Return what is delivered after serial receivers were lost and came back.  Raises: BenchError."""
    with _directory() as (directory, stack):
        pools = {}
        for name in (STOCK, LEASTCONN, GATEWAY, BY_MESSAGE, AT_ONCE):
            pools[name] = SerialPool()
            stack.callback(pools[name].stop)
        ports = {name: pool.ports for name, pool in pools.items()}
        site = Site(directory, ports[STOCK])
        running: list[Contender] = []
        if GATEWAY in options.contenders:
            running += _keep(stack, equipoise(site, ports, AT_ONCE))
        if STOCK in options.contenders:
            running += _keep(stack, haproxy(site, ports))
        rows = []
        for number in range(1, effort.returns + 1):
            found = receivers_return(running, pools, effort.after, errors)
            rows += [row | {"round": number} for row in found]
        print(f"receivers return: {', '.join(hl7_page.say_return(row) for row in found)} a second", flush=True)
        return rows


def measure(options: argparse.Namespace) -> Measured:
    """Measure everything.  Raises: BenchError."""
    effort = QUICK if options.quick else FULL
    errors = unnoticed_faults()
    names, rows, large = measure_speed(options, effort, errors)
    rows += measure_tls(options, effort, errors)
    return {
        "errors": errors,
        "effort": asdict(effort),
        "contenders": names,
        "loads": [load.name for load in (*LOADS, TLS)],
        "rows": rows,
        "large": large,
        "returns": measure_return(options, effort, errors),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what is measured."""
    parser.add_argument("--contenders", nargs="*", choices=PROGRAMS, default=list(PROGRAMS))


ASKED = Question(
    "hl7", QUESTION, measure, hl7_page.verdicts, hl7_page.page, add_options, "one minute; too short to judge by"
)

if __name__ == "__main__":
    sys.exit(answer(ASKED, sys.argv[1:]))

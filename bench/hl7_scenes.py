"""Two scenes with HL7: a message of 100 MB among small ones, and serial receivers that are killed and return.

Leaves out what is compared, and which targets there are.
Source: proc(5), /proc/PID/status (VmHWM) and /proc/PID/clear_refs.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import processes
from bench.contenders import Contender
from bench.hl7_load import Hl7Load, Sending, Sent, send
from bench.hl7_receivers import Receivers
from equipoise.sim.ports import free_port

MODERATE = Hl7Load("10 senders of 100 messages a second", 10, 1_000, rate=100)
LARGE = Hl7Load("100 MB", 1, 100_000_000)
EIGHT = Hl7Load("8 senders to 4 serial receivers", 8, 1_000)
SERIAL_MS, SERIAL_RECEIVERS = 5, 4
SETTLE_S = 2.0
_LIMIT_S = 300.0

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Return:
    """How long the receivers work, three of them are gone, and what comes afterwards is counted, from 2 s on."""

    before_s: float
    down_s: float
    counted_s: float


def _forget_peak(pids: Iterable[int]) -> None:
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _peak_bytes(pids: Iterable[int]) -> int:
    status = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return sum(int(found[1]) * 1024 for text in status if (found := re.search(r"VmHWM:\s*(\d+) kB", text)))


def _beside_large(contender: Contender, seconds: float, errors: list[str]) -> tuple[Sent, dict[str, Any]]:
    """Send small messages while another sender sends one of 100 MB after the other."""
    before = processes.memory(contender.relay).rss_bytes
    _forget_peak(contender.relay)
    large = Sending(LARGE, contender, _LIMIT_S)
    try:
        time.sleep(0.2)
        sent = send(MODERATE, contender, seconds)
        among = large.finish()
    finally:
        large.stop()
    if among.errors or not among.answered:
        errors.append(f"{contender.name}, 100 MB: {among.first_error or 'not acknowledged'}")
    peak = _peak_bytes(contender.relay)
    return sent, {"large": among.answered, "large_ms": among.p50_ms, "rss_before": before, "rss_peak": peak}


def large_messages(contenders: Sequence[Contender], rounds: int, seconds: float, errors: list[str]) -> Rows:
    """Measure how long small messages take, without and with 100 MB beside them; pairs in both orders."""
    rows: Rows = []
    for number in range(1, rounds + 1):
        for contender in contenders:
            for beside in (False, True) if number % 2 else (True, False):
                more: dict[str, Any] = {}
                if beside:
                    sent, more = _beside_large(contender, seconds, errors)
                else:
                    sent = send(MODERATE, contender, seconds)
                if sent.errors or not sent.messages:
                    errors.append(
                        f"{contender.name}, {MODERATE.name}: {sent.first_error or 'nothing was acknowledged'}"
                    )
                row = {"contender": contender.name, "round": number, "beside": beside, "messages": sent.messages}
                rows.append(row | {"p50_ms": sent.p50_ms, "p99_ms": sent.p99_ms, "max_ms": sent.max_ms} | more)
    return rows


class SerialPool:
    """Four receivers that work off one message at a time, each a process; all but the first can be killed."""

    def __init__(self) -> None:
        self.ports = [free_port() for _ in range(SERIAL_RECEIVERS)]
        self._running = [Receivers([port], delay_ms=SERIAL_MS) for port in self.ports]

    def lose_three(self) -> None:
        """Kill all but the first."""
        for receiver in self._running[1:]:
            receiver.kill()
        del self._running[1:]

    def get_back(self) -> None:
        """Start those that were killed, at the ports that they had."""
        self._running += [Receivers([port], delay_ms=SERIAL_MS) for port in self.ports[1:]]

    def stop(self) -> None:
        """End them all."""
        for receiver in self._running:
            receiver.kill()


def receivers_return(
    contenders: Sequence[Contender], pools: Mapping[str, SerialPool], plan: Return, errors: list[str]
) -> Rows:
    """Lose three of the four receivers of each contender, and get them back; all contenders at the same time."""
    with ExitStack() as stack:
        sending = {}
        for contender in contenders:
            sending[contender.name] = Sending(EIGHT, contender, _LIMIT_S)
            stack.callback(sending[contender.name].stop)
        time.sleep(plan.before_s)
        lost_s = _for_all(pools, SerialPool.lose_three)
        time.sleep(plan.down_s)
        back_s = _for_all(pools, SerialPool.get_back)
        time.sleep(SETTLE_S + plan.counted_s + 0.2)
        times = (lost_s - plan.before_s / 2, lost_s, back_s, back_s + SETTLE_S + plan.counted_s)
        return [_row(name, one.finish(), times, errors) for name, one in sending.items()]


def _for_all(pools: Mapping[str, SerialPool], change: Callable[[SerialPool], None]) -> float:
    """Do it to every pool, and return when."""
    at_s = time.monotonic()
    for pool in pools.values():
        change(pool)
    return at_s


def _row(name: str, sent: Sent, times: tuple[float, float, float, float], errors: list[str]) -> dict[str, Any]:
    begun_s, lost_s, back_s, end_s = times
    if sent.bad_between(sent.started_at_s, lost_s - 0.1) or not sent.good_between(begun_s, lost_s):
        errors.append(f"{name}, {EIGHT.name}, before any was lost: {sent.first_error or 'nothing was acknowledged'}")
    return {
        "contender": name,
        "before_per_s": sent.good_between(begun_s, lost_s - 0.1),
        "down_per_s": sent.good_between(back_s - (back_s - lost_s) / 2, back_s),
        "after_per_s": sent.good_between(back_s + SETTLE_S, end_s),
        "failed_meanwhile": sent.bad_between(lost_s - 0.1, back_s),
        "failed_after": sent.bad_between(back_s, end_s),
        "first_error": sent.first_error,
        "after_by_second": [
            sent.good_between(back_s + second, back_s + second + 1) for second in range(int(end_s - back_s))
        ],
    }

"""The soak: several HL7 services at once while everything around them fails at random; 0 lost, 0 out of order.

`SOAK_FOR` seconds, 120 where it is not set; `make soak` takes an hour.  The seed is printed, and `SOAK_SEED` repeats
the choice of faults, though not what meets what.  Senders are paced, so that other tests may run beside it.
"""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from equipoise.sim.hl7_audit import Key
from equipoise.sim.ports import free_port
from tests.system.balancer import Balancer, eventually
from tests.system.hl7_load import Load, ReceiverProcess, Site, audit

SOAK_FOR_S = float(os.environ.get("SOAK_FOR", "120"))
SEED = os.environ.get("SOAK_SEED", str(int(time.time())))
# Each with its manners; what a receiver has taken in and does not acknowledge well shows who sends again unasked.
RECEIVERS = {
    "a": ("--fault", "close", "--fault-every", "60"),
    "b": ("--fault", "twice", "--fault-every", "60"),
    "c": ("--fault", "wrong-id", "--fault-every", "60"),
    "d": ("--error-every", "60"),
}
SENDERS = 4  # of each service
PAUSE_S = 0.25
LEAVE_S = 3.0
# What a stopped receiver has been sent it works at when it goes on: its sender must still be waiting then.
ACK_TIMEOUT_S, LONGEST_STOP_S = 30.0, 4.0


@dataclass(frozen=True, slots=True)
class Service:
    """One service: what stays together, and how its receivers are."""

    name: str
    key: Key
    port: int
    deduplicate: bool = False
    max_connections: int | None = None


def services() -> list[Service]:
    """Return one for each key, one whose receivers deduplicate, one with receivers for one connection."""
    return [
        *(Service(key.value, key, free_port()) for key in Key),
        Service("deduplicate", Key.CONNECTION, free_port(), deduplicate=True),
        Service("one", Key.PATIENT, free_port(), max_connections=1),
    ]


def document(offered: list[Service], receivers: list[ReceiverProcess], weight: int) -> str:
    """Return the site; only weights change."""
    return json.dumps({"site": "soak", "services": {each.name: _service(each, receivers, weight) for each in offered}})


def _service(service: Service, receivers: list[ReceiverProcess], weight: int) -> dict[str, Any]:
    limit = {} if service.max_connections is None else {"max_connections": service.max_connections}
    return {
        "protocol": "hl7",
        "listen": f"127.0.0.1:{service.port}",
        "queue_wait": "20s",
        "health": {"check": "tcp", "interval": "1s", "timeout": "1s", "rise": 1, "fall": 2},
        "hl7": {
            "key": service.key.value,
            "receivers_deduplicate": service.deduplicate,
            "ack_timeout": f"{ACK_TIMEOUT_S:g}s",
        },
        "nodes": {each.name: {"address": f"127.0.0.1:{each.port}", "weight": weight, **limit} for each in receivers},
    }


class Faults:
    """What can fail, and the repairs that are due; every receiver comes back after a while."""

    def __init__(
        self, balancer: Balancer, offered: list[Service], receivers: list[ReceiverProcess], rng: Random
    ) -> None:
        self._balancer, self._offered, self._receivers, self._rng = balancer, offered, receivers, rng
        self._repairs: dict[str, tuple[float, Callable[[], None]]] = {}  # by what is broken
        self._weight = 100
        self.done: Counter[str] = Counter()
        self._all: dict[str, tuple[Callable[[], bool], int]] = {
            "receiver killed": (self._kill_receiver, 5),
            "receiver stopped": (self._stop_receiver, 5),
            "node drained": (self._drain, 4),
            "node disabled": (self._disable, 2),
            "reloaded": (self._reload, 3),
            "supervisor killed": (self._kill_supervisor, 1),
            "gateway replaced": (self._replace_gateway, 2),
            "gateway killed": (self._kill_gateway, 1),
        }

    def step(self) -> None:
        """Repair what is due, and let one thing fail."""
        self._repair(time.monotonic())
        (name,) = self._rng.choices(list(self._all), [weight for _, weight in self._all.values()])
        if self._all[name][0]():
            self.done[name] += 1

    def end(self) -> None:
        """Repair everything."""
        self._repair(float("inf"))

    def _repair(self, now_s: float) -> None:
        for what, (due_s, repair) in list(self._repairs.items()):
            if due_s <= now_s:
                del self._repairs[what]
                repair()

    def _break(self, what: str, longest_s: float, breaks: Callable[[], None], repairs: Callable[[], None]) -> bool:
        if what in self._repairs:
            return False
        breaks()
        self._repairs[what] = (time.monotonic() + self._rng.uniform(0.2, longest_s), repairs)
        return True

    def _kill_receiver(self) -> bool:
        receiver = self._rng.choice(self._receivers)
        return self._break(f"receiver {receiver.name}", 6, receiver.kill, receiver.start)

    def _stop_receiver(self) -> bool:
        receiver = self._rng.choice(self._receivers)
        return self._break(f"receiver {receiver.name}", LONGEST_STOP_S, receiver.pause, receiver.go_on)

    def _drain(self) -> bool:
        return self._operate("drain")

    def _disable(self) -> bool:
        return self._operate("disable")

    def _operate(self, action: str) -> bool:
        node = f"{self._rng.choice(self._offered).name}/{self._rng.choice(list(RECEIVERS))}"
        return self._break(f"node {node}", 5, lambda: self._tell(node, action), lambda: self._tell(node, "enable"))

    def _tell(self, node: str, action: str) -> None:
        answer = self._balancer.post("nodes", pattern=node, action=action, weight=None)
        assert answer.status_code == 200, answer.text

    def _reload(self) -> bool:
        self._weight = 100 + self._weight % 100 + 1
        draft = self._balancer.site.with_suffix(".new")
        draft.write_text(document(self._offered, self._receivers, self._weight))
        before = self._balancer.status()["plan"]
        draft.replace(self._balancer.site)
        assert self._balancer.process is not None
        self._balancer.process.send_signal(signal.SIGHUP)
        eventually(lambda: self._balancer.status()["plan"] != before, 30, "the new plan")
        return True

    def _kill_supervisor(self) -> bool:
        self._balancer.kill_supervisor()
        time.sleep(self._rng.uniform(0, 1))
        self._balancer.start()
        return True

    def _replace_gateway(self) -> bool:
        answer = self._balancer.cli("gateway", "replace")
        assert answer.returncode == 0, answer.stderr
        return True

    def _kill_gateway(self) -> bool:
        os.kill(self._balancer.gateway_pids()[-1], signal.SIGKILL)
        return True


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.mark.timeout(SOAK_FOR_S * 1.2 + 300)
def test_nothing_is_lost_out_of_order_or_doubled_whatever_fails(site: Site) -> None:
    print(f"SOAK_SEED={SEED} SOAK_FOR={SOAK_FOR_S:g}")
    offered, rng = services(), Random(SEED)
    receivers = [site.receiver(name, "--delay", "1ms", *manners) for name, manners in RECEIVERS.items()]
    with ExitStack() as stack:
        balancer = stack.enter_context(Balancer(document(offered, receivers, 100)))
        loads = {
            each.name: stack.enter_context(
                Load(each.port, SENDERS, each.name.upper(), seed=number, pause_s=PAUSE_S, leave_s=LEAVE_S)
            )
            for number, each in enumerate(offered)
        }
        faults = Faults(balancer, offered, receivers, rng)
        until_s = time.monotonic() + SOAK_FOR_S
        while time.monotonic() < until_s:
            time.sleep(rng.uniform(0.3, 2))
            faults.step()
        faults.end()
        sent = {name: load.finish(120) for name, load in loads.items()}
        assert _bugs(balancer) == []
    print(f"faults: {dict(faults.done)}")
    problems = {}
    for each in offered:
        found = audit(sent[each.name], receivers, each.key, receivers_deduplicate=each.deduplicate)
        problems[each.name] = found.problems()
        print(
            f"{each.name}: {len(sent[each.name])} messages, {len(found.unharmed)} acknowledged and there, "
            f"{found.repeated} times more than once, sent again: {loads[each.name].failures}"
        )
        assert all(one.answers for one in sent[each.name])
        if not problems[each.name]:  # all that was not an error, as one in some hundred messages is
            assert len(found.unharmed) > max(SOAK_FOR_S, 0.9 * len(sent[each.name]))
    strangers = {line.control_id for receiver in receivers for line in receiver.taken}
    strangers -= {one.control_id for records in sent.values() for one in records}
    assert not strangers, f"delivered, and sent by nobody: {sorted(strangers)[:5]}"
    assert problems == {each.name: [] for each in offered}, f"SOAK_SEED={SEED}"


def _bugs(balancer: Balancer) -> list[str]:
    """Return what says that something broke inside; a gateway that was killed is no bug."""
    journals = sorted((balancer.home / "state").glob("events.jsonl*"))
    lines = [line for path in journals for line in path.read_text().splitlines()]
    return [line for line in lines if '"task.failed"' in line or '"events.dropped"' in line]

"""A balancer whose HL7 senders and receivers misbehave: a good sender that must not notice, an account of every end.

The control ID of a message says what its receiver does with it: `MANNER-number`; good ones are acknowledged.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from equipoise.sim.ports import free_port
from tests.system.balancer import Balancer, eventually
from tests.system.hl7_raw import PATIENCE_S, RawReceiver, RawSender, Side, acknowledgement, control_id, message, wrap
from tests.system.hl7_stage import events_of

# What must not be found in anything that the balancer writes: PID-5 of every message here.
MARKER = "ZYXWVUT"
ACK_TIMEOUT_S = STALL_TIMEOUT_S = 2.0  # for those who are good on a busy machine, too
SLOWEST_ANSWER_S = 1.5
_PAUSE_S = 0.02
_BUGS = ("task.failed", "gateway.lost", "events.dropped")


def marked(control_id: str, patient: str = "1001") -> bytes:
    """Return a message of a patient whose name is the marker."""
    return message(control_id, patient).replace(b"DOE^JANE", MARKER.encode() + b"^JANE")


def behave(side: Side, content: bytes) -> None:
    """Do what the message's control ID says."""
    name = control_id(content).partition("-")[0]
    _MANNERS.get(name, Side.answer)(side, content)


def _half_answer(side: Side, content: bytes) -> None:
    side.send(wrap(acknowledgement(content))[:40])
    side.sock.close()


def _twice(side: Side, content: bytes) -> None:
    side.send(wrap(acknowledgement(content)) * 2)


def _late(side: Side, content: bytes) -> None:
    side.hold(ACK_TIMEOUT_S + 0.6)
    side.answer(content)


def _half_closed(side: Side, content: bytes) -> None:
    side.half_close()
    side.hold(5)


def _slow(side: Side, content: bytes) -> None:
    side.hold(0.5)
    side.answer(content)


_MANNERS: dict[str, Callable[[Side, bytes], None]] = {
    "OTHER": lambda side, content: side.answer(content, of="SOMEBODY-ELSE"),
    "TWICE": _twice,
    "LATE": _late,
    "HALF": _half_answer,
    "SILENT": lambda side, content: side.hold(5),
    "CLOSES": lambda side, content: side.sock.close(),
    "RESETS": lambda side, content: side.reset(),
    "HALFCLOSES": _half_closed,
    "NOMSA": lambda side, content: side.send(wrap(b"MSH|^~\\&|A|B|C|D|2031||ACK|1|P|2.5\r")),
    "NOHL7": lambda side, content: side.send(wrap(b"thank you")),
    "TOOLONG": lambda side, content: side.send(wrap(acknowledgement(content) + b"x" * 70_000)),
    "ENDLESS": lambda side, content: side.send(b"\x0b" + b"x" * 40),
    "JUNK": lambda side, content: side.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "SLOW": _slow,
}


class Heartbeat:
    """A good sender on the service of the bad ones: sends all the time, and knows what went wrong."""

    def __init__(self, port: int) -> None:
        self.sender = RawSender(port)
        self.count, self.slowest_s, self.failure = 0, 0.0, ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for number in itertools.count():
            if self._stop.is_set():
                return
            began_s = time.monotonic()
            try:
                answer = self.sender.ask(marked(f"GOOD-{number}"))
            except OSError as error:
                self.failure = repr(error)
                return
            if answer != ("AA", f"GOOD-{number}"):
                self.failure = f"message {number} was answered {answer}"
                return
            self.count += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
            time.sleep(_PAUSE_S)

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join(PATIENCE_S)
        self.sender.close()


class Hl7HostileSite:
    """Services with short timers: `bad` with one receiver, `pair` with it and a spare one that deduplicate.

    The good sender is at `bad`.
    """

    def __init__(self) -> None:
        self.receiver, self.spare = RawReceiver(behave), RawReceiver()
        self.port, self.pair_port = free_port(), free_port()
        self.senders: list[RawSender] = []
        timers = f"ack_timeout: {ACK_TIMEOUT_S:g}s, stall_timeout: {STALL_TIMEOUT_S:g}s, max_message: 64KiB"
        bad, spare = f"{{address: '127.0.0.1:{self.receiver.port}'}}", f"{{address: '127.0.0.1:{self.spare.port}'}}"
        common = "protocol: hl7\n    passive_health: {failures: 0}\n    health: {check: tcp, interval: 1h, rise: 1}"
        self.balancer = Balancer(
            f"""site: hostile
services:
  bad:
    {common}
    listen: 127.0.0.1:{self.port}
    hl7: {{{timers}}}
    nodes: {{bad: {bad}}}
  pair:
    {common}
    listen: 127.0.0.1:{self.pair_port}
    balance: first_up
    hl7: {{{timers}, receivers_deduplicate: true}}
    nodes: {{bad: {bad}, spare: {spare}}}
"""
        )

    def __enter__(self) -> "Hl7HostileSite":
        self.balancer.start()
        for service, node in (("bad", "bad"), ("pair", "bad"), ("pair", "spare")):
            self.balancer.wait_state(service, node, "up")
        self.gateway = self.balancer.gateway_pids()[0]
        self.heartbeat = Heartbeat(self.port)
        self.senders.append(self.heartbeat.sender)
        eventually(lambda: self.heartbeat.count > 2 or self.heartbeat.failure, what="the good sender's first answers")
        self.open_files = self._count_open_files()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heartbeat.stop()
        for sender in self.senders:
            sender.close()
        self.receiver.close()
        self.spare.close()
        self.balancer.__exit__(kind, error, trace)

    def sender(self, port: int | None = None) -> RawSender:
        """Return a sender that has connected; each must get its one event."""
        sender = RawSender(port or self.port)
        while sender.address in {known.address for known in self.senders}:  # the kernel gives ports away again
            self.senders.append(sender)
            sender = RawSender(port or self.port)
        self.senders.append(sender)
        return sender

    def ended(self, sender: RawSender) -> dict[str, Any]:
        """Return the one event of this sender's end."""

        def look() -> list[dict[str, Any]]:
            return [event for event in self._ends() if event["client"] == sender.address]

        found = eventually(look, PATIENCE_S, f"a sender.ended event of {sender.address}")
        assert len(found) == 1, found
        return found[0]

    def failures(self) -> list[dict[str, Any]]:
        """Return the events of receivers that failed, of all services."""
        return events_of(self.balancer, None, "receiver.failed")

    @contextlib.contextmanager
    def unharmed(self) -> Iterator[None]:
        """Hold that the good sender goes on meanwhile, and that nothing breaks inside."""
        before, self.heartbeat.slowest_s = self.heartbeat.count, 0.0
        yield
        eventually(lambda: self.heartbeat.failure or self.heartbeat.count > before, what="an answer to the good sender")
        assert self.heartbeat.failure == ""
        assert self.heartbeat.slowest_s < SLOWEST_ANSWER_S
        assert events_of(self.balancer, None, *_BUGS) == []

    def settled(self) -> None:
        """End everything but the good sender, and hold that everything is given back, with one event for each end."""
        for sender in self.senders[1:]:
            sender.close()
        wanted = sorted(sender.address for sender in self.senders[1:])
        eventually(lambda: len(self._ends()) >= len(wanted), 20, "an event for each sender")
        assert sorted(event["client"] for event in self._ends()) == wanted
        eventually(lambda: self._open_counts() == (1, 0), 20, f"one sender, {self._open_counts()}")
        # Connections that are kept to the two receivers, from either service.
        eventually(lambda: self._count_open_files() <= self.open_files + 4, 20, f"{self.open_files} open files")

    def _ends(self) -> list[dict[str, Any]]:
        return events_of(self.balancer, None, "sender.ended")

    def _open_counts(self) -> tuple[int, int]:
        return self.balancer.status("bad")["connections"], self.balancer.status("pair")["connections"]

    def _count_open_files(self) -> int:
        return len(list(Path(f"/proc/{self.gateway}/fd").iterdir()))

    def written(self) -> dict[str, bytes]:
        """Return all that the balancer has written or shows, by where."""
        folders = (self.balancer.home / "state", self.balancer.home / "run")
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        found = {str(path): path.read_bytes() for path in [*files, self.balancer.home / "run.log"]}
        with self.balancer.client() as client:
            for page in ("status", "events?limit=5000", "metrics"):
                found[page] = client.get(page).content  # one that is not there says so, and is looked at, too
        found["command"] = self.balancer.cli("status", "--json").stdout.encode()
        return found


def failed_since(site: Hl7HostileSite, before: int, count: int) -> list[dict[str, Any]]:
    """Wait for so many further receiver.failed events, and no more, and return them."""
    if count:
        eventually(lambda: len(site.failures()) >= before + count, PATIENCE_S, f"{count} receiver.failed events")
    found = site.failures()[before:]
    assert len(found) == count, found
    return found

"""A balancer under attack: raw nodes behind it, a good association that must not notice, an account of every end."""

import contextlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from equipoise.proto.dicom.pdu import PduType
from equipoise.sim.ports import free_port
from tests.system.balancer import Balancer, eventually
from tests.system.rawpeer import ECHO_RQ, Manners, RawClient, RawNode

# What the gateway may work on others before it answers, in time of a processor: a busy machine does not count as harm.
MOST_WORK_S = 1.0
SLOWEST_ANSWER_S = 5.0
_PAUSE_S = 0.02
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class EndedLog:
    """The `association.ended` events of an instance, read from its journal as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.ended: list[dict[str, Any]] = []
        self.bugs: list[str] = []

    def read(self) -> None:
        """Take what has come since the last time."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                event = json.loads(line)
                if event["kind"] == "association.ended":
                    self.ended.append(event)
                elif event["kind"] in ("task.failed", "gateway.lost", "events.dropped"):
                    self.bugs.append(line.decode())


class EchoLoop:
    """A good association on the same service: asks all the time, and knows what the answers took.

    Attributes:
        slowest_s: The longest that an answer took.
        most_work_s: The most time of a processor that the gateway took meanwhile.
    """

    def __init__(self, port: int, gateway: int) -> None:
        self.client = RawClient(port, "ECHO").associate()
        self.count, self.failure = 0, ""
        self.clear()
        self._gateway = Path(f"/proc/{gateway}/stat")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def clear(self) -> None:
        """Begin to measure anew."""
        self.slowest_s = self.most_work_s = 0.0

    def _worked_s(self) -> float:
        user, system = self._gateway.read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) * _TICK_S

    def _run(self) -> None:
        while not self._stop.is_set():
            began_s, worked_s = time.monotonic(), self._worked_s()
            try:
                self.client.send(ECHO_RQ)
                found = self.client.pdu()
            except OSError as error:
                self.failure = repr(error)
                return
            if found is None or found.type is not PduType.DATA_TF:
                self.failure = f"answered {found}"
                return
            self.count += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
            self.most_work_s = max(self.most_work_s, self._worked_s() - worked_s)
            time.sleep(_PAUSE_S)

    def stop(self) -> None:
        """End it, properly."""
        self._stop.set()
        self._thread.join()
        if not self.failure and self.client.sock.fileno() >= 0:
            self.client.release()


class HostileSite:
    """One service `raw` on a raw node, with short timers.

    Args:
        manners: The node's, by called AE title.
        prefix: Starts the balancer: see `Balancer`.
        dicom: Settings of the services, in place of the short timers.
    """

    def __init__(self, manners: Mapping[str, Manners] | None = None, prefix: Sequence[str] = (), **dicom: str) -> None:
        timers = {"artim": "1s", "stall_timeout": "1s", "setup_timeout": "2s"} | dicom
        settings = ", ".join(f"{name}: {value}" for name, value in timers.items())
        self.node, self.spare = RawNode(manners), RawNode()
        self.port, self.pair_port = free_port(), free_port()
        check = "health: {check: tcp, interval: 1h}"
        bad, spare = f"{{address: '127.0.0.1:{self.node.port}'}}", f"{{address: '127.0.0.1:{self.spare.port}'}}"
        self.balancer = Balancer(
            f"""site: hostile
services:
  raw:
    protocol: dicom
    listen: 127.0.0.1:{self.port}
    balance: first_up
    {check}
    dicom: {{{settings}}}
    nodes: {{bad: {bad}}}
  pair:
    protocol: dicom
    listen: 127.0.0.1:{self.pair_port}
    passive_health: {{failures: 0}} # the bad node is to be asked again and again
    balance: first_up
    {check}
    dicom: {{{settings}}}
    nodes: {{bad: {bad}, spare: {spare}}}
""",
            prefix,
        )
        self.clients: list[RawClient] = []

    def __enter__(self) -> "HostileSite":
        self.balancer.start()
        for service, node in (("raw", "bad"), ("pair", "bad"), ("pair", "spare")):
            self.balancer.wait_state(service, node, "up")
        self.log = EndedLog(self.balancer.home / "state/events.jsonl")
        self.gateway = self.balancer.gateway_pids()[0]
        self.open_files = self._open_files_at_rest()
        self.echo = EchoLoop(self.port, self.gateway)
        self.clients.append(self.echo.client)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.echo.stop()
        for client in self.clients:
            client.close()
        self.node.close()
        self.spare.close()
        self.balancer.__exit__(kind, error, trace)

    # Callers

    def caller(self, called: str = "GOOD", port: int | None = None, *, receive_bytes: int = 0) -> RawClient:
        """Return a client that has connected and sent nothing; every one of them must get its one event."""
        client = RawClient(port or self.port, called, receive_bytes=receive_bytes)
        while client.address in {known.address for known in self.clients}:  # the kernel gives ports away again
            self.clients.append(client)
            client = RawClient(port or self.port, called, receive_bytes=receive_bytes)
        self.clients.append(client)
        return client

    def ended(self, client: RawClient, within_s: float = 10.0) -> dict[str, Any]:
        """Return how the association of this client ended."""

        def look() -> list[dict[str, Any]]:
            self.log.read()
            return [event for event in self.log.ended if event["client"] == client.address]

        events = eventually(look, within_s, f"an association.ended event of {client.address}")
        assert len(events) == 1, events
        return events[0]

    def all_ended(self, count: int, within_s: float = 20.0) -> list[dict[str, Any]]:
        """Wait until `count` associations have ended in all, and return the events."""

        def look() -> bool:
            self.log.read()
            return len(self.log.ended) >= count

        with contextlib.suppress(AssertionError):  # who is missing says more than that some are
            eventually(look, within_s)
        ended = Counter(event["client"] for event in self.log.ended)
        made = Counter(client.address for client in self.clients)
        assert ended == made, f"missing: {made - ended}; too many: {ended - made}"
        return self.log.ended

    # What must hold all the time

    @contextlib.contextmanager
    def unharmed(self) -> Iterator[None]:
        """Hold that the good association goes on meanwhile, and that nothing breaks inside."""
        before = self.echo.count
        self.echo.clear()
        yield
        eventually(lambda: self.echo.failure or self.echo.count > before, what="an answer to the good association")
        assert self.echo.failure == ""
        assert self.echo.most_work_s < MOST_WORK_S
        assert self.echo.slowest_s < SLOWEST_ANSWER_S
        self.log.read()
        assert self.log.bugs == []

    def seen(self) -> None:
        """Return when the gateway has seen what came to it so far: it has answered others since."""
        before = self.echo.count
        eventually(lambda: self.echo.failure or self.echo.count > before + 3, what="answers to the good association")

    def settled(self) -> None:
        """End everything, and hold that it is given back: one event each, descriptors, counters."""
        self.echo.stop()
        for client in self.clients:
            client.close()
        self.all_ended(len(self.clients))
        eventually(lambda: self._open_counts() == {0}, 20, "all counters 0")
        eventually(lambda: self.count_open_files() <= self.open_files, 20, f"{self.open_files} open files")

    def _open_counts(self) -> set[int]:
        services = self.balancer.status()["services"].values()
        return {int(each["connections"]) for service in services for each in (service, *service["nodes"].values())}

    def count_open_files(self) -> int:
        """Return how many descriptors the gateway has."""
        return len(list(Path(f"/proc/{self.gateway}/fd").iterdir()))

    def _open_files_at_rest(self) -> int:
        """Return how many there are when the connections of the checks are closed."""
        counts = [0]

        def look() -> bool:
            time.sleep(0.2)
            counts.append(self.count_open_files())
            return counts[-1] == counts[-2]

        eventually(look, what="descriptors that stay")
        return counts[-1]

    def resident_bytes(self) -> int:
        """Return the gateway's resident set size."""
        status = Path(f"/proc/{self.gateway}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024

"""The balancer as its users run it: a process of its own, asked through its API, with directories of its own."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx

Found = TypeVar("Found")
PATIENCE_S = 30.0  # things happen within a second or two; the machine may be a slow and busy one


def eventually(look: Callable[[], Found | None], within_s: float = PATIENCE_S, what: str = "it") -> Found:
    """Return what `look` finds as soon as it finds something."""
    deadline = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about within {within_s} s; last seen: {found!r}")
        time.sleep(0.02)


class Balancer:
    """One instance of Equipoise; ends whatever it started.

    Args:
        site: The document.
        prefix: A program that starts it, with options: `setpriv`, `prlimit`.
    """

    def __init__(self, site: str, prefix: Sequence[str] = ()) -> None:
        self._prefix = list(prefix)
        self._directory = tempfile.TemporaryDirectory(prefix="eq-", dir="/tmp")
        self.home = Path(self._directory.name)
        self.site = self.home / "site.yaml"
        self.site.write_text(site)
        self.environment = {
            **os.environ,
            "EQUIPOISE_RUNTIME_DIR": str(self.home / "run"),
            "EQUIPOISE_STATE_DIR": str(self.home / "state"),
            "NO_COLOR": "1",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Balancer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pids = self.gateway_pids() if self.process is not None else []
        try:
            if self.process is not None and self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                time.sleep(0.1)
                self.process.send_signal(signal.SIGTERM)
                self.process.wait(20)
        finally:
            for pid in pids:
                _kill(pid)
            if error is not None:
                sys.stderr.write(self.log())
            self._directory.cleanup()

    def start(self, *, wait: bool = True) -> None:
        """Start the supervisor."""
        with (self.home / "run.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._prefix, sys.executable, "-m", "equipoise", "run", str(self.site)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            self.wait_answer()

    def wait_answer(self, within_s: float = 60) -> None:
        """Wait until the supervisor that was started answers."""
        eventually(self._answers, within_s, "the API")

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the supervisor ended with {self.process.returncode}: {self.log()}")
        try:
            return bool(self.get("identity")["pid"] == self.process.pid)
        except httpx.TransportError:
            return False

    def log(self) -> str:
        """Return what supervisor and gateways have written."""
        logs = [self.home / "run.log", self.home / "state/gateway.log"]
        return "\n".join(path.read_text() for path in logs if path.exists())

    def client(self) -> httpx.Client:
        """Return a client of the API."""
        transport = httpx.HTTPTransport(uds=str(self.home / "run/api.sock"))
        return httpx.Client(transport=transport, base_url="http://equipoise/api/v1/", timeout=PATIENCE_S)

    def get(self, path: str) -> Any:
        """Ask the API."""
        with self.client() as client:
            answer = client.get(path)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, **body: Any) -> httpx.Response:
        """Tell the API."""
        with self.client() as client:
            return client.post(path, json=body)

    def cli(self, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        return subprocess.run(
            [sys.executable, "-m", "equipoise", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=check,
            stdin=subprocess.DEVNULL,
        )

    def status(self, service: str | None = None) -> Any:
        """Return the status, of one service where it is named."""
        document = self.get("status")
        return document if service is None else document["services"][service]

    def wait_state(self, service: str, node: str, state: str, within_s: float = PATIENCE_S) -> None:
        """Wait until a node has a state that a check has confirmed."""

        def look() -> bool:
            shown = self.status(service)["nodes"][node]
            return shown["state"] == state and shown["check"] is not None

        eventually(look, within_s, f"{service}/{node} {state}")

    def events(self, kind: str = "", limit: int = 5000) -> list[dict[str, Any]]:
        """Return the events of a kind, oldest first."""
        found: list[dict[str, Any]] = self.get(f"events?limit={limit}")["events"]
        return [event for event in found if event["kind"].startswith(kind)]

    def ended(self, count: int, within_s: float = PATIENCE_S) -> list[dict[str, Any]]:
        """Wait for `count` associations to have ended and return their events."""

        def look() -> list[dict[str, Any]]:
            events = self.events("association.ended")
            return events if len(events) >= count else []

        return eventually(look, within_s, f"{count} association.ended events")

    def gateway_pids(self) -> list[int]:
        """Return the gateway processes of this instance."""
        ours = f"equipoise.engines.gateway.process\0--socket\0{self.home}/run/"
        return sorted(int(entry.name) for entry in Path("/proc").iterdir() if ours in _command_line(entry))

    def kill_supervisor(self) -> None:
        """End the supervisor as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace")
    except OSError:
        return ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return

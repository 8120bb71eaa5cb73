"""DCMTK's programs as peers: an independent implementation, started on ports of their own."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

BIN = Path("/usr/bin")  # other packages put scripts of the same names first in PATH
# Without it DCMTK's programs wait 40 ms for a delayed acknowledgement in each small exchange.
_ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}

# storescu -v says "Sending file: NAME", then "Received Store Response (Success)"
_SENT = re.compile(r"Sending file: (\S+)|Received Store Response \((\w+)")


def run(program: str, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a client to its end."""
    return subprocess.run(
        [str(BIN / program), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env=_ENVIRONMENT,
        errors="replace",
    )


def acknowledged(log: str) -> set[str]:
    """Return the names of the files that `storescu -v` was told are stored, from what it printed."""
    found, name = set(), ""
    for sent, status in _SENT.findall(log):
        if sent:
            name = Path(sent).stem
        elif status == "Success":
            found.add(name)
    return found


class Peer:
    """A server that runs until it is left; `kill` ends it as a crash would, `start` brings it back."""

    def __init__(self, command: Sequence[str], port: int, directory: Path) -> None:
        self._command = list(command)
        self.port = port
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Peer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start, and wait until it listens."""
        self.process = subprocess.Popen(
            self._command,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=_ENVIRONMENT,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """End it and its children at once."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def storescp(port: int, directory: Path, *options: str) -> Peer:
    """Return a storage server that keeps files in `directory`, one process an association."""
    directory.mkdir(exist_ok=True)
    return Peer([str(BIN / "storescp"), "--fork", *options, "-od", str(directory), str(port)], port, directory)


def dcmqrscp(port: int, directory: Path, title: str, destinations: dict[str, int] | None = None) -> Peer:
    """Return an archive with a database, which accepts every calling title and moves to `destinations`."""
    store = directory / "db"
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir(parents=True)
    hosts = "\n".join(f"{name} = ({name}, 127.0.0.1, {at})" for name, at in (destinations or {}).items())
    configuration = directory / "dcmqrscp.cfg"
    configuration.write_text(
        f"""MaxPDUSize = 16384
MaxAssociations = 64
HostTable BEGIN
{hosts}
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
{title} {store} RW (1000, 1024mb) ANY
AETable END
"""
    )
    return Peer([str(BIN / "dcmqrscp"), "-c", str(configuration), str(port)], port, directory)

"""node-hl7-client and node-hl7-server, of npm, as a sender and as a receiver: `npm/hl7_client.js`, `npm/hl7_server.js`.

Pinned and installed with dcmjs-dimse: see `dcmjs.py`.
"""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equipoise.sim.ports import free_port
from tests.system.balancer import eventually
from tests.system.certificates import Issued
from tests.system.dcmjs import installed_modules
from tests.system.hl7_peers import ONE_MESSAGE, Sent
from tests.system.hl7_raw import answered

_FOLDER = Path(__file__).parent / "npm"
VERSION = "2.5"  # of the messages that are sent: MSH-12


def send(port: int, messages: Sequence[bytes], tls: tuple[Issued, Path] | None = None) -> Sent:
    """Send messages of VERSION with node-hl7-client."""
    texts = [message.decode() for message in messages]
    with tempfile.TemporaryDirectory() as folder:
        job = _job(Path(folder), tls, port=port, messages=texts, version=VERSION)
        done = subprocess.run(
            ["node", str(_FOLDER / "hl7_client.js"), str(job)], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    # What it passes on ends its lines with a CR, but for the last one.
    answers = tuple(answered(text.encode()) for text in said["answers"])
    return Sent(tuple(text.encode() for text in said["sent"]), answers)


class NodeReceiver:
    """node-hl7-server; it ends each connection after one message, unless `keeps_connections`."""

    idle_timeout = ONE_MESSAGE

    def __init__(self, tls: tuple[Issued, Path] | None = None, *, keeps_connections: bool = False) -> None:
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        job = _job(folder, tls, port=self.port, keepsConnections=keeps_connections)
        self._said, self._errors = folder / "said", folder / "errors"
        with self._said.open("wb") as said, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                ["node", str(_FOLDER / "hl7_server.js"), str(job)], stdout=said, stderr=errors
            )
        eventually(lambda: self._lines() or self._process.poll() is not None, 30, "a server of node")
        assert self._process.poll() is None, self._errors.read_text()

    @property
    def contents(self) -> list[bytes]:
        """Return what arrived, in order."""
        return [line["raw"].encode() for line in self._lines() if "raw" in line]

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._said.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _job(folder: Path, tls: tuple[Issued, Path] | None, **keys: Any) -> Path:
    """Write the file that tells a program what to do; messages are too long for an argument."""
    files = {"cert": str(tls[0].cert), "key": str(tls[0].key), "ca": str(tls[1])} if tls is not None else None
    path = folder / "job.json"
    path.write_text(json.dumps({"modules": str(installed_modules().parent), "tls": files, **keys}))
    return path

"""What crosses a host's cable, as tcpdump sees it.  Leaves out what packets hold: it counts them and their bytes."""

import signal
import struct
import subprocess
import time
from pathlib import Path
from types import TracebackType

from tests.system.netns import Host

_QUIET_S, _SETTLES_WITHIN_S = 0.3, 5.0  # where somebody goes on sending, it ends all the same
_FILE_HEADER_BYTES, _PACKET = 24, struct.Struct("=IIII")  # pcap-savefile(5): seconds, microseconds, captured, length


class Capture:
    """A capture on a device, from when it is entered until it is left."""

    def __init__(self, host: Host, file: Path, expression: str, device: str = "eth0") -> None:
        # -s 96: headers alone.  -Z root: else it changes its user, who may not write there.
        options = (
            "-i",
            device,
            "-p",
            "-n",
            "--immediate-mode",
            "-U",
            "-s",
            "96",
            "-B",
            "16384",
            "-Z",
            "root",
            "-w",
            str(file),
        )
        self._command = [*host.prefix, "tcpdump", *options, expression]
        self._file = file
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Capture":
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        while said and b"listening on" not in said:
            said = self._process.stderr.readline()
        assert said, f"{self._command} ended before it listened"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._settle()
        self._process.send_signal(signal.SIGINT)
        _, said = self._process.communicate(timeout=30)
        dropped = [line for line in said.decode().splitlines() if "dropped by kernel" in line]
        if error is None:
            assert dropped == ["0 packets dropped by kernel"], said

    def _settle(self) -> None:
        """Let it write down what it has seen: what is in its buffer when it ends is lost, and not told of."""
        until_s, before = time.monotonic() + _SETTLES_WITHIN_S, -1
        while time.monotonic() < until_s and (size := self._file.stat().st_size) != before:
            before = size
            time.sleep(_QUIET_S)

    def bytes_of(self, expression: str = "") -> int:
        """Return how many bytes on the wire the packets had that match; after the capture has ended."""
        command = ["tcpdump", "-r", str(self._file), "-Z", "root", "-w", "-", *([expression] if expression else [])]
        kept = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
        total, at = 0, _FILE_HEADER_BYTES
        while at < len(kept):
            _, _, captured, length = _PACKET.unpack_from(kept, at)
            total, at = total + length, at + _PACKET.size + captured
        return total

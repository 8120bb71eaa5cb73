"""The disk of a machine in the laboratory: a small file system for its state directory, which can be full or read-only.

It is mounted in a mount namespace of its own, so that the machine that runs the tests does not see it.  It outlives
the balancer, as disks do.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

_SIZE = "8m"  # a session of tests leaves some hundred kB there
_MOUNT = f"""
mountpoint -q "$EQUIPOISE_STATE_DIR" || {{
    mkdir -p "$EQUIPOISE_STATE_DIR" && mount -t tmpfs -o size={_SIZE} none "$EQUIPOISE_STATE_DIR"
}} && exec "$@"
"""


class Disk:
    """A disk; `through` are programs that start others with their state on it."""

    def __init__(self) -> None:
        # A namespace is there as long as a process is in it.
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; exec sleep infinity"]
        self._holder = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n", "no mount namespace here"
        self._inside = ("nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--")

    def __enter__(self) -> "Disk":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.kill()
        self._holder.communicate()

    @property
    def through(self) -> tuple[str, ...]:
        """Return the programs, for a balancer whose environment names its state directory."""
        return (*self._inside, "sh", "-c", _MOUNT, "sh")

    @contextmanager
    def full(self, folder: str) -> Iterator[str]:
        """Have no byte left meanwhile; yield what the kernel says of it."""
        self._run("sh", "-c", 'cat /dev/zero >"$1/filler" 2>/dev/null || true', "sh", folder)
        try:
            yield "No space left on device"
        finally:
            self._run("rm", f"{folder}/filler")

    @contextmanager
    def read_only(self, folder: str) -> Iterator[str]:
        """Have nothing written meanwhile, but for what is open already; yield what the kernel says of it."""
        self._run("mount", "--bind", folder, folder)
        self._run("mount", "-o", "remount,bind,ro", folder)
        try:
            yield "Read-only file system"
        finally:
            self._run("umount", folder)

    def _run(self, *command: str) -> None:
        subprocess.run([*self._inside, *command], check=True, timeout=30, capture_output=True)

"""A network of its own on this machine: hosts with addresses and ports of their own, which can be pulled off the net.

Each host is a network namespace with one cable (veth) to a switch (a bridge in a namespace of its own); nothing of it
is seen outside.  Needs root and `ip`.  Leaves out routing: all hosts are of one network.
"""

import os
import secrets
import signal
import subprocess
from contextlib import suppress
from types import TracebackType

_PREFIX_BITS = 24


class Host:
    """A machine of the network; its processes see no other network than this."""

    def __init__(self, namespace: str, address: str, port: str, switch: str) -> None:
        self.namespace, self.address = namespace, address
        self._port, self._switch = port, switch
        # Unlike `ip netns exec` it leaves the file systems as they are, and becomes the program that it runs.
        self.prefix = ("nsenter", f"--net=/run/netns/{namespace}", "--")

    def run(self, *command: str, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
        """Run a program here to its end."""
        return subprocess.run(
            [*self.prefix, *command],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TCP_NODELAY": "1"},  # DCMTK's programs wait 40 ms in each exchange without it
        )

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a program here and wait for its first line."""
        process = subprocess.Popen([*self.prefix, *command], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert process.stdout is not None
        assert process.stdout.readline(), f"{command} ended before it was ready"
        return process

    def unplug(self) -> None:
        """Pull its cable: it is not refused, it does not answer."""
        _ip("-n", self._switch, "link", "set", self._port, "down")

    def plug(self) -> None:
        """Put its cable back."""
        _ip("-n", self._switch, "link", "set", self._port, "up")

    def pids(self) -> list[int]:
        """Return what runs here."""
        return [int(pid) for pid in _ip("netns", "pids", self.namespace).split()]


class Network:
    """A switch and the hosts on it; leaving it ends every process there."""

    def __init__(self) -> None:
        self._token = f"eq{secrets.token_hex(3)}"
        self._switch = f"{self._token}-switch"
        self._hosts: list[Host] = []

    def __enter__(self) -> "Network":
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "switch", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self._hosts:
            for pid in host.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _ip("netns", "delete", host.namespace)
        _ip("netns", "delete", self._switch)

    def host(self, name: str, address: str) -> Host:
        """Return a new host."""
        namespace, port = f"{self._token}-{name}", f"to-{name}"
        _ip("netns", "add", namespace)
        host = Host(namespace, address, port, self._switch)
        self._hosts.append(host)
        _ip("link", "add", port, "netns", self._switch, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("-n", self._switch, "link", "set", port, "master", "switch", "up")
        _ip("-n", namespace, "address", "add", f"{address}/{_PREFIX_BITS}", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", namespace, "link", "set", device, "up")
        return host


def missing() -> str | None:
    """Return why there can be no such network here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Network() as network:
            tried = network.host("try", "10.0.0.1").run("true")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespaces with veth and bridge here: {error}"
    return None if tried.returncode == 0 else f"nsenter does not work here: {tried.stderr.strip()}"


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout

"""A network of its own on this machine: hosts with addresses and ports of their own, which can be pulled off the net.

Each host is a network namespace with a cable (veth) to a switch (a bridge in a namespace of its own), or with several;
nothing of it is seen outside.  Needs root and `ip`.  Leaves out which of them routes for the others: tests/lab.
"""

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import TypeVar

Result = TypeVar("Result")
_SWITCH = "switch"
_CLONE_NEWNET = 0x40000000  # <linux/sched.h>
# Without it DCMTK's programs wait 40 ms in each exchange.
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}


class Host:
    """A machine of the network; its processes see no other network than this."""

    def __init__(self, namespace: str, address: str, switches: str) -> None:
        self.namespace, self.address = namespace, address
        self._switches = switches
        self._ports: dict[str, str] = {}  # by device
        # Unlike `ip netns exec` it leaves the file systems as they are, and becomes the program that it runs.
        self.prefix = ("nsenter", f"--net=/run/netns/{namespace}", "--")

    def run(self, *command: str, timeout_s: float = 30, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program here to its end; it reads what is `given`."""
        return subprocess.run(
            [*self.prefix, *command],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            input=given,
            env=ENVIRONMENT,
        )

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a program here and wait for its first line."""
        process = subprocess.Popen([*self.prefix, *command], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert process.stdout is not None
        assert process.stdout.readline(), f"{command} ended before it was ready"
        return process

    def inside(self, do: Callable[[], Result]) -> Result:
        """Do something here, in a thread of this process: sockets that it makes are this host's for good."""

        def enter() -> Result:
            space = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(space, _CLONE_NEWNET) != 0:  # of this thread alone: setns(2)
                    raise OSError(ctypes.get_errno(), f"setns to {self.namespace}")
            finally:
                os.close(space)
            return do()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(enter).result()

    def connect(self, address: str, port: int, *, source: str = "", timeout_s: float = 10) -> socket.socket:
        """Return a connection from here, from one of this host's addresses."""
        where = (source, 0) if source else None
        return self.inside(lambda: socket.create_connection((address, port), timeout_s, where))

    def must(self, *command: str, given: str = "") -> str:
        """Run a program that has to succeed; return what it printed."""
        done = self.run(*command, given=given)
        assert done.returncode == 0, f"{self.namespace}: {' '.join(command)}: {done.stderr.strip()}"
        return done.stdout

    def ip(self, *arguments: str) -> str:
        """Run `ip` for this host."""
        return _ip("-n", self.namespace, *arguments)

    def set_kernel(self, **settings: int) -> None:
        """Write settings below /proc/sys/net; `__` in a name is a slash, as in `ipv4__ip_forward=1`."""
        lines = [f"echo {value} >/proc/sys/net/{name.replace('__', '/')}" for name, value in settings.items()]
        self.must("sh", "-e", given="\n".join(lines))

    def add_cable(self, device: str, segment: str, *addresses: str) -> None:
        """Plug a new device into a segment; addresses have their prefix length."""
        port = f"{self.namespace.rpartition('-')[2][:10]}-{device}"
        _ip(
            "link",
            "add",
            port,
            "netns",
            self._switches,
            "type",
            "veth",
            "peer",
            "name",
            device,
            "netns",
            self.namespace,
        )
        _ip("-n", self._switches, "link", "set", port, "master", segment, "up")
        self._ports[device] = port
        for address in addresses:
            self.add_address(address, device)
        self.ip("link", "set", device, "up")

    def add_address(self, address: str, device: str = "eth0") -> None:
        """Give it one more address; nobody is asked whether it is free, which would take seconds."""
        self.ip("address", "add", address, "dev", device, *(["nodad"] if ":" in address else []))

    @property
    def devices(self) -> tuple[str, ...]:
        """Return the devices that have a cable."""
        return tuple(self._ports)

    def cable(self, device: str = "eth0") -> tuple[str, ...]:
        """Return the other end of a cable, as options of `ip`; a word behind them sets it `up` or `down`."""
        return "-n", self._switches, "link", "set", self._ports[device]

    def unplug(self, device: str = "eth0") -> None:
        """Pull its cable: it is not refused, it does not answer."""
        _ip(*self.cable(device), "down")

    def plug(self, device: str = "eth0") -> None:
        """Put its cable back."""
        _ip(*self.cable(device), "up")

    def sent(self, device: str = "eth0") -> str:
        """Return what matches all that it sends on a cable, for `Network.lose`."""
        return f'iifname "{self._ports[device]}"'

    def heard(self, device: str = "eth0") -> str:
        """Return what matches all that reaches it on a cable, for `Network.lose`."""
        return f'oifname "{self._ports[device]}"'

    def lose_power(self) -> None:
        """Pull its cables, then end every process: nobody says goodbye."""
        for device in self.devices:
            self.unplug(device)
        while pids := self.pids():  # what is ended may just have started something
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def mac(self, device: str = "eth0") -> str:
        """Return the hardware address of a device."""
        return self.ip("-brief", "link", "show", device).split()[2]

    def set_mac(self, mac: str, device: str = "eth0") -> None:
        """Change it, as a new network card would."""
        self.ip("link", "set", device, "address", mac)

    def pids(self) -> list[int]:
        """Return what runs here."""
        return [int(pid) for pid in _ip("netns", "pids", self.namespace).split()]


class Network:
    """A switch and the hosts on it; leaving it ends every process there.  More segments are as many more switches."""

    def __init__(self) -> None:
        self._token = f"eq{secrets.token_hex(3)}"
        self._switches = f"{self._token}-{_SWITCH}"
        self._hosts: list[Host] = []

    def __enter__(self) -> "Network":
        _ip("netns", "add", self._switches)
        try:
            self.add_segment(_SWITCH)
        except BaseException:
            _ip("netns", "delete", self._switches)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self._hosts:
            for pid in host.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _ip("netns", "delete", host.namespace)
        _ip("netns", "delete", self._switches)

    def add_segment(self, name: str) -> None:
        """Put up one more switch."""
        _ip("-n", self._switches, "link", "add", name, "type", "bridge")
        _ip("-n", self._switches, "link", "set", name, "up")

    def host(self, name: str, address: str, *, segment: str = _SWITCH, also: Sequence[str] = ()) -> Host:
        """Return a new host with one cable, `eth0`.

        Args:
            name: Of few letters.
            address: Its IPv4 address, of a network of 24 bits.
            segment: The switch that it is at.
            also: More addresses, with their prefix lengths.
        """
        namespace = f"{self._token}-{name}"
        _ip("netns", "add", namespace)
        host = Host(namespace, address, self._switches)
        self._hosts.append(host)
        host.ip("link", "set", "lo", "up")
        host.add_cable("eth0", segment, f"{address}/24", *also)
        return host

    def lose(self, *matches: str) -> None:
        """Have the switches lose what matches one of these, in place of what they lost before; with none, nothing."""
        rules = "".join(f"{match} drop; " for match in matches)
        chain = f"chain forward {{ type filter hook forward priority 0; {rules}}}"
        table = "table bridge loss"
        given = f"{table}; delete {table}; {table} {{ {chain}; }};\n"
        command = ["ip", "netns", "exec", self._switches, "nft", "-f", "-"]
        subprocess.run(command, input=given, text=True, check=True, timeout=10, capture_output=True)


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

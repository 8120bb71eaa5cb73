"""Read what is to be known of this machine: /proc, limits, directories, libraries.  Changes nothing, needs no root.

Source: proc(5), tcp(7), ip(7), adjtimex(2); Documentation/networking/ip-sysctl and nf_conntrack-sysctl of the kernel.
"""

import ctypes
import os
import pwd
import re
import resource
import ssl
import sys
from pathlib import Path

from equipoise.app.doctor.facts import ClockState, Conntrack, Directory, FileLimit, Kernel, Machine, Running, Software
from equipoise.base.paths import Directories
from equipoise.base.rights import effective
from equipoise.engines.haproxy.artifact import DIRECTORY, MASTER_SOCKET

_UNSYNCHRONISED = 0x40  # STA_UNSYNC of linux/timex.h
_KEEPERS = {  # `comm` has 15 characters
    "chronyd": "chronyd",
    "ntpd": "ntpd",
    "systemd-timesyn": "systemd-timesyncd",
    "phc2sys": "phc2sys",
    "ptp4l": "ptp4l",
    "vmtoolsd": "VMware Tools",
}
_GATEWAY_SOCKET = "gateway-00.XXXXXX.sock"  # the longest name that the runtime directory gets
_UNPRIVILEGED_FROM = 1024
_LISTENING = 0x10000  # __SO_ACCEPTCON in /proc/net/unix
_TIMEX_BYTES = 256  # more than any kernel writes


class _Timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint),  # 0: only read
        ("offset", ctypes.c_long),
        ("frequency", ctypes.c_long),
        ("max_error_us", ctypes.c_long),
        ("estimated_error_us", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * _TIMEX_BYTES),
    )


def gather_machine(directories: Directories, running: Running | None, proc: Path = Path("/proc")) -> Machine:
    """Return what this machine is like; limits are those of the running supervisor where there is one."""
    return Machine(
        user=_user(),
        capabilities=effective(proc / "self/status"),
        clock=clock_state(proc),
        files=file_limit(proc, running),
        kernel=kernel(proc),
        runtime=directory(directories.runtime, "EQUIPOISE_RUNTIME_DIR"),
        state=directory(directories.state, "EQUIPOISE_STATE_DIR"),
        engines=listening_engines(proc, directories.runtime),
        longest_socket_path=len(os.fsencode(directories.runtime / _GATEWAY_SOCKET)),
        software=Software(
            sys.version_info[:3], ssl.OPENSSL_VERSION, ssl.OPENSSL_VERSION_INFO[:3], tls_1_3=ssl.HAS_TLSv1_3
        ),
    )


def clock_state(proc: Path) -> ClockState:
    """Return what the kernel says of its clock; asking needs no right."""
    timex = _Timex()
    state = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    synchronised = None if state < 0 else not timex.status & _UNSYNCHRONISED
    return ClockState(synchronised, timex.max_error_us / 1e6, _keeper(proc))


def _keeper(proc: Path) -> str:
    names = (_text(path) for path in proc.glob("[0-9]*/comm"))
    return next((_KEEPERS[name] for name in names if name in _KEEPERS), "")


def file_limit(proc: Path, running: Running | None) -> FileLimit:
    """Return the limit of the supervisor, which gateways inherit, or of this shell."""
    if running is not None and (limits := _text(proc / str(running.pid) / "limits")):
        found = re.search(r"^Max open files +(\d+) +(\d+)", limits, re.MULTILINE)
        if found:
            return FileLimit(int(found[1]), int(found[2]), "the running balancer")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return FileLimit(soft, hard, "this shell")


def kernel(proc: Path) -> Kernel:
    """Return the network settings."""
    settings = _Settings(proc / "sys/net")
    local_ports = settings.numbers("ipv4/ip_local_port_range")
    return Kernel(
        somaxconn=settings.last("core/somaxconn"),
        receive_max_bytes=settings.last("ipv4/tcp_rmem"),
        send_max_bytes=settings.last("ipv4/tcp_wmem"),
        window_scaling=settings.flag("ipv4/tcp_window_scaling"),
        abort_on_overflow=settings.flag("ipv4/tcp_abort_on_overflow"),
        keepalive_s=settings.last("ipv4/tcp_keepalive_time"),
        first_free_port=_first_free_port(proc),
        local_ports=(local_ports[0], local_ports[1]) if len(local_ports) == 2 else None,
        reserved_ports=_port_ranges(_text(proc / "sys/net/ipv4/ip_local_reserved_ports")),
        conntrack=_conntrack(proc),
        missing=tuple(settings.missing),
    )


class _Settings:
    """Numbers below one directory of /proc/sys; remembers those that are not there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.missing: list[str] = []

    def numbers(self, name: str) -> tuple[int, ...]:
        """Return the numbers of a setting."""
        found = tuple(int(word) for word in _text(self._directory / name).split() if word.isdecimal())
        if not found:
            self.missing.append(f"net.{name.replace('/', '.')}")
        return found

    def last(self, name: str) -> int | None:
        """Return the last number, which is the largest of three."""
        return next(iter(self.numbers(name)[-1:]), None)

    def flag(self, name: str) -> bool | None:
        """Return a setting that is on or off."""
        number = self.last(name)
        return None if number is None else number != 0


def _first_free_port(proc: Path) -> int:
    text = _text(proc / "sys/net/ipv4/ip_unprivileged_port_start")
    return int(text) if text.isdecimal() else _UNPRIVILEGED_FROM


def _port_ranges(text: str) -> tuple[tuple[int, int], ...]:
    """Return what `8080,9148-9150` says."""
    ends = [part.partition("-") for part in text.split(",") if part]
    return tuple((int(first), int(last or first)) for first, _, last in ends)


def _conntrack(proc: Path) -> Conntrack | None:
    numbers = [
        _text(proc / "sys/net/netfilter" / f"nf_conntrack_{name}")
        for name in ("max", "count", "tcp_timeout_established")
    ]
    if not (numbers[0].isdecimal() and numbers[1].isdecimal()):
        return None
    return Conntrack(int(numbers[0]), int(numbers[1]), int(numbers[2]) if numbers[2].isdecimal() else None)


def directory(path: Path, variable: str) -> Directory:
    """Return what a directory of ours is like, or the one that it will be made in."""
    nearest = next((each for each in (path, *path.parents) if _is_there(each)), Path("/"))
    room = os.statvfs(nearest)
    return Directory(
        path=path,
        variable=variable,
        exists=nearest == path,
        writable=os.access(nearest, os.W_OK | os.X_OK),
        free_bytes=room.f_bavail * room.f_frsize,
        free_files=room.f_favail if room.f_files else None,  # some file systems do not count files
    )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # below a directory that we may not enter
        return False


def listening_engines(proc: Path, runtime: Path) -> int:
    """Return how many gateways, and HAProxy, of this runtime directory listen; asking the kernel disturbs none."""
    found = 0
    for line in _text(proc / "net/unix").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and int(fields[3], 16) & _LISTENING:
            path = Path(fields[7])
            is_gateway = path.parent == runtime and path.name.startswith("gateway-")
            found += is_gateway or path == runtime / DIRECTORY / MASTER_SOCKET
    return found


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"


def _text(path: Path) -> str:
    """Return what a file of /proc says, or nothing: processes end, and containers hide settings."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""

"""Look at what a pair needs: programs, rights, the link, and whether the peer answers.  Changes nothing.

Leaves out what the two machines tell each other, which `equipoise cluster status` shows, and strangers with the same
router identifier: keepalived hears its peer alone, and a rule keeps out what others send.

Source: linux/capability.h, netdevice(7) for the flags of an interface, systemd.unit(5).
"""

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from equipoise.app.doctor.facts import Running
from equipoise.app.doctor.facts_pair import Link, PairFacts, Tracking
from equipoise.base import rights
from equipoise.base.paths import Directories
from equipoise.base.processes import find_program
from equipoise.engines.sockets import is_local
from equipoise.plan.model import Cluster, Plan

_PEER_S = 1.5  # a peer on the same segment answers within a millisecond
_SIOCGIFFLAGS = 0x8913
_IFREQ = "16sH14x"  # a name; flags
_UP_AND_RUNNING = 0x1 | 0x40  # IFF_UP: it is switched on; IFF_RUNNING: it has a carrier
_UNIT = "systemd/system/multi-user.target.wants/keepalived.service"
_CONFIGURATION = "keepalived/keepalived.conf"  # without it Debian's unit does not start


def gather_pair(
    plan: Plan,
    running: Running | None,
    user: str,
    directories: Directories,
    *,
    proc: Path = Path("/proc"),
    etc: Path = Path("/etc"),
    path: str | None = None,
) -> PairFacts | None:
    """Return what a plan's pair finds here; None where it has none.  `path` is where programs are: `find_program`."""
    cluster = plan.cluster
    if cluster is None:
        return None
    acting = proc / ("self" if running is None else str(running.pid)) / "status"
    return PairFacts(
        keepalived=find_program("keepalived", path) or "",
        nft=find_program("nft", path) or "",
        strangers=tuple(sorted(_strangers(proc, directories.runtime))),
        starts_itself=os.path.lexists(etc / _UNIT) and (etc / _CONFIGURATION).exists(),
        whose=user if running is None else "the running balancer",
        lacking=rights.missing(acting),
        link=_link(cluster.interface),
        has_address=is_local(cluster.address),
        unreachable=_unreachable(cluster) if cluster.secured is not None else None,
        tracking=_tracking(plan, proc, directories.runtime, path),
        tracking_file=str(directories.runtime / "conntrackd.conf"),
    )


def _strangers(proc: Path, runtime: Path) -> Iterator[int]:
    """Yield keepalived's processes that were not started with a file of ours."""
    for pid, words in _programs(proc, "keepalived"):
        if not _names(words, runtime):
            yield pid


def _tracking(plan: Plan, proc: Path, runtime: Path, path: str | None) -> Tracking | None:
    if not any(service.mode == "l4_nat" for service in plan.services):
        return None
    found = [words for _, words in _programs(proc, "conntrackd")]
    if any(_names(words, runtime) for words in found):
        return "ours"
    if found:
        return "other"
    return "stopped" if find_program("conntrackd", path) else "absent"


def _names(words: tuple[str, ...], runtime: Path) -> bool:
    return any(str(runtime) in word for word in words)


def _programs(proc: Path, name: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the processes of a program with their command lines, of this network alone: containers have their own."""
    network = _network(proc / "self")
    for entry in proc.glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().strip() != name:
                continue
            line = (entry / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if _network(entry) in (network, None):  # None: not ours to look at, so it counts
            yield int(entry.name), tuple(os.fsdecode(word) for word in line.split(b"\0") if word)


def _network(process: Path) -> str | None:
    try:
        return os.readlink(process / "ns/net")
    except OSError:
        return None


def _link(name: str) -> Link:
    """Return how an interface is; asked by ioctl, as /sys may show another network's."""
    request = struct.pack(_IFREQ, name.encode()[:15], 0)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            flags: int = struct.unpack(_IFREQ, fcntl.ioctl(asking, _SIOCGIFFLAGS, request))[1]
    except OSError:
        return "missing"
    return "up" if flags & _UP_AND_RUNNING == _UP_AND_RUNNING else "down"


def _unreachable(cluster: Cluster) -> str:
    """Return why nobody takes a connection where the peer should; nothing is said on it."""
    family = socket.AF_INET6 if ":" in cluster.peer else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as called:
            called.settimeout(_PEER_S)
            called.bind((cluster.address, 0))
            called.connect((cluster.peer, cluster.port))
    except TimeoutError:
        return f"no answer within {_PEER_S:g} s"
    except OSError as error:
        return error.strerror or str(error)
    return ""

"""What a process costs: CPU seconds and memory, as the kernel counts them.

Source: proc(5), /proc/PID/stat fields 4, 14 and 15; /proc/PID/smaps_rollup.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of some processes; `pss_bytes` counts a shared page in equal parts for each who shares it."""

    rss_bytes: int
    pss_bytes: int


def _stat(pid: int) -> list[str]:
    """Return the fields from the third on: the second is a name that may hold anything, in brackets."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def cpu_s(pids: Iterable[int]) -> float:
    """Return user and system seconds of these processes, all threads; one that has ended counts nothing."""
    ticks = 0
    for pid in pids:
        try:
            fields = _stat(pid)
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def is_running(pid: int) -> bool:
    """Say whether any thread of a process has work to do, whether or not a core is free for it."""
    return any((task / "stat").read_text().rpartition(")")[2].split()[0] in "RD" for task in _tasks(pid))


def _tasks(pid: int) -> list[Path]:
    try:
        return list((_PROC / str(pid) / "task").iterdir())
    except OSError:
        return []


def memory(pids: Iterable[int]) -> Memory:
    """Return the resident memory of these processes.  Raises: OSError."""
    sums = {"Rss:": 0, "Pss:": 0}
    for pid in pids:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            fields = line.split()
            if fields[0] in sums:
                sums[fields[0]] += int(fields[1]) * 1024
    return Memory(rss_bytes=sums["Rss:"], pss_bytes=sums["Pss:"])


def family(supervisor: int, variable: str) -> set[int]:
    """Return the descendants of a process and all that carry `variable` (NAME=VALUE), without the process itself."""
    parents, members = {}, {supervisor}
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parents[int(entry.name)] = int(_stat(int(entry.name))[1])
            if variable.encode() in (entry / "environ").read_bytes().split(b"\0"):
                members.add(int(entry.name))
        except OSError:
            continue  # it has ended, or is not ours
    while added := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= added
    return members - {supervisor, os.getpid()}

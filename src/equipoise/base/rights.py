"""What a process may do that others may not, as the kernel shows it.  Source: capabilities(7), linux/capability.h."""

from pathlib import Path

NETWORK = {12: "CAP_NET_ADMIN", 13: "CAP_NET_RAW"}  # to change addresses and rules; to speak ARP and VRRP
SETGID = 6
_OWN = Path("/proc/thread-self/status")


def effective(status: Path = _OWN) -> int:
    """Return the effective capabilities of a process, by default this one, as a bit mask; none if it cannot be read."""
    try:
        lines = status.read_text(errors="replace").splitlines()
    except OSError:
        return 0
    line = next((line for line in lines if line.startswith("CapEff:")), "CapEff: 0")
    return int(line.split()[1], 16)


def missing(status: Path = _OWN) -> tuple[str, ...]:
    """Return which of the two rights a process lacks that addresses, and keepalived, need."""
    mask = effective(status)
    return tuple(name for bit, name in NETWORK.items() if not mask >> bit & 1)

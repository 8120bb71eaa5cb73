"""The configuration of conntrackd, by which the other machine of a pair knows translated connections.

The engine writes it; conntrackd itself is the operator's to run, as root, on both machines.  Entries go straight into
the other kernel's table (no external cache), so nothing has to be run when addresses move.  Marks are names' hashes,
with the table's name: both machines need the same runtime directory, which they have where both use the usual one.

Tried with 1.4.7: connections are told by the addresses that speak at both ends, the client's and the node's, so a
filter knows nodes, and never the VIP that lies between them; and with `TCPWindowTracking yes` the first packets after
a move are taken for wrong ones.
Source: conntrackd.conf(5); docs/adr/0012-layer-4.md for `l4_nat`.
"""

from collections.abc import Sequence
from pathlib import Path

from equipoise.base.errors import EngineError
from equipoise.base.paths import replace_file
from equipoise.plan.model import Cluster, Service

PORT_AFTER = 2  # the first is that of the supervisors, the second of the HAProxies
_BUFFER_BYTES = 2_097_152  # a burst of some thousand connections
_LARGEST_BUFFER_BYTES = 8_388_608
_STATES = "SYN_RECV ESTABLISHED FIN_WAIT CLOSE_WAIT LAST_ACK TIME_WAIT CLOSED"  # not what nobody has answered
_TEXT = """\
# What conntrackd tells the other machine of the pair: translated connections and their nodes.  Written by equipoise.
# Both machines need net.netfilter.nf_conntrack_tcp_be_liberal=1: else a connection that went on at the other machine
# is taken for a forged one when it comes back.
Sync {{
    Mode FTFW {{
        DisableExternalCache yes
        StartupResync yes
    }}
    UDP {{
        {address}
        {peer}
        Port {port}
        Interface {interface}
        SndSocketBuffer {buffer}
        RcvSocketBuffer {buffer}
        Checksum yes
    }}
    Options {{
        TCPWindowTracking no
    }}
}}
General {{
    HashSize 32768
    HashLimit 524288
    LogFile no
    Syslog no
    LockFile /var/lock/conntrack.lock
    UNIX {{
        Path /var/run/conntrackd.ctl
    }}
    NetlinkBufferSize {buffer}
    NetlinkBufferSizeMaxGrowth {largest}
    Filter From Userspace {{
        Protocol Accept {{
            TCP
        }}
        State Accept {{
            {states} for TCP
        }}
        Address Accept {{
{nodes}
        }}
    }}
}}
"""


def render(cluster: Cluster | None, translated: Sequence[Service]) -> str:
    """Return what conntrackd is to be told for these services of `l4_nat`; nothing without a peer or without nodes."""
    nodes = sorted({node.host for service in translated for node in service.nodes if node.host is not None})
    if cluster is None or not nodes:
        return ""
    return _TEXT.format(
        address=_line("address", cluster.address),
        peer=_line("Destination_Address", cluster.peer),
        port=cluster.port + PORT_AFTER,
        interface=cluster.interface,
        buffer=_BUFFER_BYTES,
        largest=_LARGEST_BUFFER_BYTES,
        states=_STATES,
        nodes="\n".join(f"            {_line('address', node)}" for node in nodes),
    )


def keep(file: Path, text: str) -> None:
    """Have a file hold this text, and none be there for an empty one.  Raises: EngineError."""
    try:
        if not text:
            file.unlink(missing_ok=True)
        elif not file.exists() or file.read_text() != text:
            replace_file(file, text.encode())
    except OSError as error:
        raise EngineError(
            f"cannot write {file}: {error.strerror}; make room there, or give this user the right to write"
        ) from None


def _line(word: str, address: str) -> str:
    return f"{'IPv6' if ':' in address else 'IPv4'}_{word} {address}"

"""Read and cut the connections that conntrack follows, by mark, through ctnetlink.

The kernel itself picks the entries by mark, so that those of others are neither read nor touched.  Leaves out which
mark is whose, and what the numbers are for.

Source: linux/netfilter/nfnetlink_conntrack.h, whose names (IPCTNL_MSG_*, CTA_*) stand beside the numbers;
linux/netfilter/nf_conntrack_tcp.h for the states; tried on Linux 6.18.
"""

import socket
import struct
from collections import Counter
from collections.abc import Iterator, Mapping

from equipoise.engines.layer4.netlink import NETLINK_NETFILTER, Netlink, nfgen, number32, refusal

_SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK, linux/netfilter/nfnetlink.h
_GET, _DELETE = _SUBSYSTEM | 1, _SUBSYSTEM | 2  # IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE
_PROTOINFO, _MARK, _MARK_MASK = 4, 8, 21  # CTA_*
_PROTOINFO_TCP, _TCP_STATE = 1, 1  # CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE
_WHOLE = 0xFFFFFFFF

# enum tcp_conntrack: SYN_SENT to CLOSE_WAIT, and SYN_SENT2 (both sides opened); the others are over.
_LIVE = frozenset({1, 2, 3, 4, 5, 9})

_NFGEN_BYTES = 4
_ATTRIBUTE = struct.Struct("=HH")
_MARK_HEADER = _ATTRIBUTE.pack(8, _MARK)
_STATE_HEADER = _ATTRIBUTE.pack(5, _TCP_STATE)


def count_by_mark(prefix: int, mask: int) -> Mapping[int, int]:
    """Return the live TCP entries of each mark, of those with `mark & mask == prefix`.  Raises: EngineError.

    Live is from SYN_SENT to CLOSE_WAIT; what waits for its last acknowledgement, or only for time to pass, is over.
    """
    counted: Counter[int] = Counter()
    for mark, state in _entries(prefix, mask):
        if state in _LIVE:
            counted[mark] += 1
    return counted


def cut(mark: int) -> None:
    """Forget every entry with this mark, whatever its state.

    Raises: EngineError; ValueError for mark 0, which is everybody's.
    """
    if not 0 < mark <= _WHOLE:
        raise ValueError(f"mark {mark:#x} is not from 1 to {_WHOLE:#x}")
    try:
        with Netlink(NETLINK_NETFILTER) as kernel:
            kernel.request(_DELETE, _marked(mark, _WHOLE))
    except FileNotFoundError:
        return  # there is none
    except OSError as error:
        raise refusal(error, f"cut the connections with mark {mark:#x}") from None


def _entries(prefix: int, mask: int) -> Iterator[tuple[int, int]]:
    """Return mark and TCP state of each entry; 50 000 take 0.18 s of a core, most of it the kernel's."""
    try:
        with Netlink(NETLINK_NETFILTER) as kernel:
            answers = kernel.messages(_GET, _marked(prefix, mask))
    except OSError as error:
        raise refusal(error, "read conntrack's entries") from None
    places: dict[int, tuple[int, int]] = {}  # by length of the entry: where its mark and its state are
    for _, entry in answers:
        mark_at, state_at = places.get(len(entry), (0, 0))
        if not _fits(entry, mark_at, state_at):
            found = _places(entry)
            if found is None:
                continue  # not TCP
            mark_at, state_at = places[len(entry)] = found
        yield int.from_bytes(entry[mark_at + 4 : mark_at + 8], "big"), entry[state_at + 4]


def _marked(prefix: int, mask: int) -> bytes:
    return nfgen(socket.AF_UNSPEC, number32(_MARK, prefix), number32(_MARK_MASK, mask))


def _fits(entry: bytes, mark_at: int, state_at: int) -> bool:
    return entry[mark_at : mark_at + 4] == _MARK_HEADER and entry[state_at : state_at + 4] == _STATE_HEADER


def _places(entry: bytes) -> tuple[int, int] | None:
    """Return where the headers of mark and TCP state are in an entry."""
    outer = _headers(entry, _NFGEN_BYTES)
    if _MARK not in outer or _PROTOINFO not in outer:
        return None
    tcp = _headers(entry, outer[_PROTOINFO] + 4).get(_PROTOINFO_TCP)
    state = None if tcp is None else _headers(entry, tcp + 4).get(_TCP_STATE)
    return None if state is None else (outer[_MARK], state)


def _headers(data: bytes, start: int) -> dict[int, int]:
    """Return by type where each attribute begins, from `start` on; of equal types the first one."""
    found: dict[int, int] = {}
    while start + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        found.setdefault(kind & 0x3FFF, start)
        start += max(length, _ATTRIBUTE.size) + 3 & ~3
    return found

"""Change elements of maps that packets fill, by netlink: the program nft takes three times as long for as many.

Everything else in the tables is written by nft.  Leaves out why an element is changed (`ledger.py`).
Source: linux/netfilter/nf_tables.h, whose names (NFT_MSG_*, NFTA_*) stand beside the numbers.
"""

import errno
import struct
from collections.abc import Sequence

from equipoise.engines.layer4.ledger import Change
from equipoise.engines.layer4.netlink import NETLINK_NETFILTER, Netlink, attribute, nfgen, refusal, text

_NFTABLES = 10  # NFNL_SUBSYS_NFTABLES, linux/netfilter/nfnetlink.h
_NEWSETELEM, _DELSETELEM = (_NFTABLES << 8 | kind for kind in (12, 14))  # NFT_MSG_*
_CREATE = 0x400  # NLM_F_CREATE, without NLM_F_EXCL: to add what is there with the same value is no error
_TABLE, _SET, _ELEMENTS = 1, 2, 3  # NFTA_SET_ELEM_LIST_*
_ELEMENT, _KEY, _DATA, _TIMEOUT, _VALUE = 1, 1, 2, 4, 1  # NFTA_LIST_ELEM, NFTA_SET_ELEM_*, NFTA_DATA_VALUE
_HEADER_BYTES, _MARK_BYTES, _TIMEOUT_BYTES = 4, 4, 8

MOST_CHANGES = 1000  # at once: an attribute has 64 KiB at the most, an element here 52 bytes
_STAYS_S = 3600.0  # of an element that is deleted by the same transaction
# A packet was faster than we (the second, on older kernels), or the map has no room.
_LOST = (errno.EEXIST, errno.EBUSY, errno.ENFILE)


def change(family: int, table: str, name: str, changes: Sequence[Change]) -> bool:
    """Change at most `MOST_CHANGES` elements of a map, all or none; return whether it was done.

    It is not where a packet was faster, or where there is no room.

    One that is there is added once more before it is deleted: it may have run out since it was seen, and to delete
    what is not there is an error, while to add what is there is none.  Raises: EngineError.
    """
    old = [Change(each.key, None, each.before, _STAYS_S) for each in changes if each.before is not None]
    new = [each for each in changes if each.after is not None]
    at = text(_TABLE, table), text(_SET, name)
    steps = (_NEWSETELEM, _CREATE, _added(old)), (_DELSETELEM, 0, _named(old)), (_NEWSETELEM, _CREATE, _added(new))
    messages = [
        (kind, flags, nfgen(family, *at, attribute(_ELEMENTS, elements))) for kind, flags, elements in steps if elements
    ]
    try:
        with Netlink(NETLINK_NETFILTER) as kernel:
            kernel.change(_NFTABLES, messages)
    except OSError as error:
        if error.errno in _LOST:
            return False
        raise refusal(error, f"change nf_tables' map {name!r} in table {table!r}") from None
    return True


def _added(changes: Sequence[Change]) -> bytes:
    """Return the attributes of elements, whose keys are of one length, that lead to `after`: 1 us each."""
    size = len(changes[0].key) if changes else 0
    form = struct.Struct(f"=6H{size}s4H{_MARK_BYTES}s2H{_TIMEOUT_BYTES}s")
    of_key = form.size, _ELEMENT, size + 2 * _HEADER_BYTES, _KEY, size + _HEADER_BYTES, _VALUE
    of_mark = _MARK_BYTES + 2 * _HEADER_BYTES, _DATA, _MARK_BYTES + _HEADER_BYTES, _VALUE
    of_timeout = _TIMEOUT_BYTES + _HEADER_BYTES, _TIMEOUT
    return b"".join(
        form.pack(*of_key, key, *of_mark, after, *of_timeout, _milliseconds(left_s))
        for key, _, after, left_s in changes
    )


def _milliseconds(left_s: float) -> bytes:
    return max(1, round(left_s * 1000)).to_bytes(_TIMEOUT_BYTES, "big")


def _named(changes: Sequence[Change]) -> bytes:
    return b"".join(attribute(_ELEMENT, attribute(_KEY, attribute(_VALUE, each.key))) for each in changes)

"""Read nf_tables by netlink: what is in a table, its counters, the marks in its maps, its flows.

Reading never changes anything, and never names another program's table.  Leaves out writing (the program `nft`, and
`kernel_elements.py`), and what the names mean.

The kernel begins a dump of a hash map anew for every 32 KiB that it fills and steps over what it gave before, so a
whole dump costs the square of its length: 0.03 s of a core for 20 000 flows, 3 s for 200 000 (Linux 6.18).  Therefore
`count_values` can stop early: the kernel walks the map in the order of a hash with a secret seed, so its first
elements are a fair sample, and Linux 6.16 and later says how many there are in all.

Source: linux/netfilter/nf_tables.h, whose names (NFT_MSG_*, NFTA_*) stand beside the numbers.
"""

import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from equipoise.base.errors import EngineError
from equipoise.engines.layer4.netlink import (
    NETLINK_NETFILTER,
    Netlink,
    attribute_list,
    attributes,
    messages,
    name_of,
    nfgen,
    number32,
    number_of,
    refusal,
    text,
)

_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES, linux/netfilter/nfnetlink.h
# enum nf_tables_msg_types: NFT_MSG_*
_GETTABLE, _GETCHAIN, _GETRULE, _GETSET, _GETSETELEM, _GETGEN, _GETOBJ = (
    _SUBSYSTEM | kind for kind in (1, 4, 7, 10, 13, 16, 19)
)
_TABLE = (
    1  # NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE, NFTA_OBJ_TABLE, NFTA_SET_ELEM_LIST_TABLE
)
_CHAIN_NAME, _CHAIN_HOOK = 3, 4  # NFTA_CHAIN_*
_HOOK_DEV, _HOOK_DEVS, _DEVICE_NAME = 3, 4, 1  # NFTA_HOOK_DEV, NFTA_HOOK_DEVS, NFTA_DEVICE_NAME
_IS_MAP = 0x8  # NFT_SET_MAP
_SET_NAME, _SET_FLAGS, _SET_COUNT = 2, 3, 20  # NFTA_SET_NAME, NFTA_SET_FLAGS; NFTA_SET_COUNT, since Linux 6.16
_OBJ_NAME, _OBJ_TYPE, _OBJ_DATA, _COUNTER = 2, 3, 4, 1  # NFTA_OBJ_*, NFT_OBJECT_COUNTER
_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2  # NFTA_COUNTER_*
_GEN_ID = 1  # NFTA_GEN_ID
_LIST_SET, _LIST_ELEMENTS = 2, 3  # NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS
_KEY, _DATA, _EXPIRATION, _VALUE = 1, 2, 5, 1  # NFTA_SET_ELEM_*; NFTA_DATA_VALUE
_FOR_EVER = b"\xff" * 8

MOST_READ = 40_000  # elements: 0.06 s of a core; a tenth of 200 000 flows is known to 1.3 % (standard deviation)
_NFGEN_BYTES = 4
_ELEMENT_BYTES = 64  # of an IPv4 flow with its timeout; an IPv6 one has 88, so fewer of them are read
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class Names:
    """What a table holds.

    Attributes:
        chains: Base chains too.
        sets: Without maps.
        maps: Also those that lead to verdicts.
        counters: The named ones.
        hooks: Each base chain and those of its devices that exist now.  In family netdev a chain without one sees no
            packet: since Linux 6.16 it outlives its device, before that it went with it.  In family inet, none.
    """

    chains: frozenset[str]
    sets: frozenset[str]
    maps: frozenset[str]
    counters: frozenset[str]
    hooks: Mapping[str, frozenset[str]]


def generation() -> int:
    """Return the number of the last change to the rules, anybody's; packets change none.  Raises: EngineError."""
    try:
        with Netlink(NETLINK_NETFILTER) as kernel:
            _, body = kernel.request(_GETGEN, nfgen(0))[0]
    except OSError as error:
        raise refusal(error, "read the number of the last change to nf_tables") from None
    return number_of(attributes(body, _NFGEN_BYTES)[_GEN_ID])


def names(family: int, table: str) -> Names | None:
    """Return what a table holds, None where there is no such table.  Raises: EngineError."""
    try:
        with Netlink(NETLINK_NETFILTER) as kernel:
            kernel.request(_GETTABLE, nfgen(family, text(_TABLE, table)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refusal(error, f"read nf_tables' table {table!r}") from None
    chains = {name_of(chain[_CHAIN_NAME]): chain.get(_CHAIN_HOOK) for chain in _entries(_GETCHAIN, family, table)}
    keyed = {
        name_of(found[_SET_NAME]): _SET_FLAGS in found and bool(number_of(found[_SET_FLAGS]) & _IS_MAP)
        for found in _entries(_GETSET, family, table)
    }
    present = frozenset(name for _, name in socket.if_nameindex())
    return Names(
        chains=frozenset(chains),
        sets=frozenset(name for name, is_map in keyed.items() if not is_map),
        maps=frozenset(name for name, is_map in keyed.items() if is_map),
        counters=frozenset(counters(family, table)),
        hooks={name: _devices(hook) & present for name, hook in chains.items() if hook is not None},
    )


def rules(family: int, table: str) -> int:
    """Return the number of rules in a table, 0 where there is none.  Raises: EngineError."""
    return sum(1 for _ in _entries(_GETRULE, family, table))


def sizes(family: int, table: str) -> Mapping[str, int | None]:
    """Return each set's and map's number of elements, None where the kernel does not say (before Linux 6.16).

    It costs nothing however large they are.  What has run out counts until it is collected, about a second later.
    Raises: EngineError.
    """
    return {
        name_of(found[_SET_NAME]): number_of(found[_SET_COUNT]) if _SET_COUNT in found else None
        for found in _entries(_GETSET, family, table)
    }


def counters(family: int, table: str) -> Mapping[str, tuple[int, int]]:
    """Return packets and bytes of each named counter.  Raises: EngineError."""
    found = {}
    for counter in _entries(_GETOBJ, family, table, number32(_OBJ_TYPE, _COUNTER)):
        values = attributes(counter[_OBJ_DATA])
        found[name_of(counter[_OBJ_NAME])] = number_of(values[_COUNTER_PACKETS]), number_of(values[_COUNTER_BYTES])
    return found


def count_values(
    family: int, table: str, name: str, most_read: int | None = MOST_READ, quiet: range = range(0)
) -> tuple[Mapping[int, int], Mapping[int, int]]:
    """Return how many elements of a map lead to each mark, and how many of these are not quiet.

    Exact up to about `most_read` elements, or with None; of a larger map so many are read as a sample and the numbers
    are scaled up, so a mark with very few elements may be missing (before Linux 6.16 everything is read).

    Args:
        family: That of the table.
        table: Its name.
        name: The map's.
        most_read: How many elements are read at the most.
        quiet: An element is quiet that has so many milliseconds left.

    Raises: EngineError, where there is no such map too.
    """
    total = None if most_read is None else sizes(family, table).get(name)
    if most_read is None or total is None or total <= most_read:
        return _count(_dump(family, table, name), quiet)
    counted, talking = _count(_dump(family, table, name, most_bytes=most_read * _ELEMENT_BYTES), quiet)
    factor = max(1.0, total / max(1, counted.total()))
    return _scaled(counted, factor), _scaled(talking, factor)


def elements(family: int, table: str, name: str, most: int) -> tuple[Mapping[bytes, tuple[bytes, int]], bool]:
    """Return mark and milliseconds left by key, as the kernel has them, and whether these are all elements of a map.

    Elements that stay for ever are left out.  Of a map with more than about `most` a part is read, mostly the same one.
    Raises: EngineError, where there is no such map too.
    """
    most_bytes = most * _ELEMENT_BYTES
    datagrams = _dump(family, table, name, most_bytes)
    found: dict[bytes, tuple[bytes, int]] = {}
    for listed in _lists(datagrams):
        found.update((key, (mark, left)) for key, mark, left in _keyed(listed))
    return found, sum(len(datagram) for datagram in datagrams) < most_bytes


def _scaled(counted: Mapping[int, int], factor: float) -> dict[int, int]:
    return {mark: round(number * factor) for mark, number in counted.items()}


def _entries(kind: int, family: int, table: str, *filters: bytes) -> Iterator[dict[int, bytes]]:
    """Return what a table has of one kind; chains come from every table, whatever is asked for."""
    try:
        with Netlink(NETLINK_NETFILTER) as kernel:
            for _, body in kernel.messages(kind, nfgen(family, text(_TABLE, table), *filters)):
                entry = attributes(body, _NFGEN_BYTES)
                if name_of(entry[_TABLE]) == table:
                    yield entry
    except FileNotFoundError:
        return
    except OSError as error:
        raise refusal(error, f"read nf_tables' table {table!r}") from None


def _dump(family: int, table: str, name: str, most_bytes: int | None = None) -> list[bytes]:
    asked = nfgen(family, text(_TABLE, table), text(_LIST_SET, name))
    try:
        with Netlink(NETLINK_NETFILTER) as kernel:
            return kernel.dump(_GETSETELEM, asked, most_bytes)
    except FileNotFoundError:
        raise EngineError(
            f"nf_tables has no set or map {name!r} in table {table!r}: another program removed it; apply again"
        ) from None
    except OSError as error:
        raise refusal(error, f"read nf_tables' map {name!r} in table {table!r}") from None


def _count(datagrams: list[bytes], quiet: range) -> tuple[Counter[int], Counter[int]]:
    """Count the marks, and those of elements that are not quiet; at C speed where a datagram has one form."""
    counted: Counter[int] = Counter()
    talking: Counter[int] = Counter()
    first, last = quiet.start.to_bytes(8, "big"), quiet.stop.to_bytes(8, "big")
    for listed in _lists(datagrams):
        form = _form(listed)
        pairs = (
            list(form.iter_unpack(listed)) if form is not None else [_pair(each) for _, each in attribute_list(listed)]
        )
        counted.update(mark for mark, _ in pairs)
        talking.update(mark for mark, left in pairs if not first <= left < last)
    return counted, talking


def _pair(element: bytes) -> tuple[int, bytes]:
    """Return mark and time left of an element, which is big-endian, and for one that stays, for ever."""
    found = attributes(element)
    return int.from_bytes(attributes(found[_DATA])[_VALUE], sys.byteorder), found.get(_EXPIRATION, _FOR_EVER)


def _form(listed: bytes) -> struct.Struct | None:
    """Return what takes mark and time left from each element of a list, None where they differ in form.

    Lengths are compared, never patterns looked for: an address that a client chose must not be taken for a mark.
    """
    length, _ = _ATTRIBUTE.unpack_from(listed)
    number, rest = divmod(len(listed), length)
    at = dict(_places(listed[:length]))
    data_at, left_at = at.get(_DATA, length), at.get(_EXPIRATION, length)
    if rest or length % 4 or not data_at + 12 <= left_at <= length - 12:
        return None
    fixed = (0, 1, 2, 3, *range(data_at, data_at + 8), *range(left_at, left_at + 4))  # the headers of all that is read
    if any(listed[i::length] != listed[i : i + 1] * number for i in fixed):
        return None
    # In a register a mark is the host's own number, not big-endian as netfilter's attributes are.
    return struct.Struct(f"={data_at + 8}xI{left_at + 4 - data_at - 12}x8s{length - left_at - 12}x")


def _keyed(listed: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield key, mark and milliseconds left of each element of a list; at C speed where they have one form."""
    form = _keyed_form(listed)
    if form is not None:
        yield from form.iter_unpack(listed)
        return
    for _, element in attribute_list(listed):
        found = attributes(element)
        if _EXPIRATION in found:
            key, mark = (attributes(found[kind])[_VALUE] for kind in (_KEY, _DATA))
            yield key, mark, number_of(found[_EXPIRATION])


def _keyed_form(listed: bytes) -> struct.Struct | None:
    """Return what takes key, mark and time left from each element, None where they differ in form."""
    length, _ = _ATTRIBUTE.unpack_from(listed)
    at = dict(_places(listed[:length]))
    if _form(listed) is None or _EXPIRATION not in at or at.get(_KEY, length) + 8 > at[_DATA]:
        return None
    headers = range(at[_KEY], at[_KEY] + 8)
    if any(listed[i::length] != listed[i : i + 1] * (len(listed) // length) for i in headers):
        return None
    key_at, data_at, left_at = (at[kind] + 8 for kind in (_KEY, _DATA, _EXPIRATION))
    key_bytes = _ATTRIBUTE.unpack_from(listed, key_at - 4)[0] - 4
    gaps = key_at, data_at - key_at - key_bytes, left_at - 4 - data_at - 4, length - left_at - 4
    return struct.Struct(">{}x{}s{}x4s{}xQ{}x".format(gaps[0], key_bytes, *gaps[1:]))


def _places(element: bytes) -> Iterator[tuple[int, int]]:
    """Yield type and place of each attribute of an element."""
    place = _ATTRIBUTE.size
    while place + _ATTRIBUTE.size <= len(element):
        size, kind = _ATTRIBUTE.unpack_from(element, place)
        yield kind & 0x3FFF, place
        place += max(size, _ATTRIBUTE.size) + 3 & ~3


def _lists(datagrams: list[bytes]) -> Iterator[bytes]:
    for _, body in messages(datagrams):
        if listed := attributes(body, _NFGEN_BYTES).get(_LIST_ELEMENTS):
            yield listed


def _devices(hook: bytes) -> frozenset[str]:
    found = attributes(hook)
    devices = [name_of(found[_HOOK_DEV])] if _HOOK_DEV in found else []
    several = attribute_list(found.get(_HOOK_DEVS, b""))
    return frozenset([*devices, *(name_of(name) for kind, name in several if kind == _DEVICE_NAME)])

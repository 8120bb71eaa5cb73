"""How a client, or a flow, is called when a peer is told of it: the parts of a map's key, with spaces between them.

What a peer says is taken apart into addresses and numbers, so that nothing else reaches the kernel.
Leaves out where it is remembered (`ledger.py`).
Source: the keys of the maps in `render_direct.py` and `render_parts.py`; in the kernel each part fills whole words of
four bytes, addresses and ports as on the wire, hashes as numbers of the machine.
"""

import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

_LONGEST = 64  # characters: two addresses and two ports of IPv4 have 43, an address of IPv6 39


@dataclass(frozen=True, slots=True)
class _Part:
    """One part of a key: its length in the kernel, how it is written, and how it is read.

    Attributes:
        parse: Raises ValueError or OSError where the text is none.
    """

    size_bytes: int
    write: Callable[[bytes], str]
    parse: Callable[[str], bytes]


def _number(text: str, limit: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and str(int(text)) == text and int(text) < limit):
        raise ValueError(f"{text!r} is not a number from 0 to {limit - 1}")
    return int(text)


_ADDRESS = _Part(4, socket.inet_ntoa, lambda text: socket.inet_pton(socket.AF_INET, text))
_ADDRESS6 = _Part(
    16,
    lambda value: socket.inet_ntop(socket.AF_INET6, value),
    lambda text: socket.inet_pton(socket.AF_INET6, text),
)
_PORT = _Part(
    4,
    lambda value: str(int.from_bytes(value[:2], "big")),
    lambda text: _number(text, 1 << 16).to_bytes(2, "big") + b"\0\0",
)
_HASH = _Part(
    4,
    lambda value: str(int.from_bytes(value, sys.byteorder)),
    lambda text: _number(text, 1 << 32).to_bytes(4, sys.byteorder),
)

Form = tuple[_Part, ...]
FLOW: Form = (_ADDRESS, _PORT, _ADDRESS, _PORT)
FLOW6: Form = (_HASH, _HASH)
CLIENT: Form = (_ADDRESS,)
CLIENT6: Form = (_ADDRESS6,)


def said(form: Form, key: bytes) -> str:
    """Return what a peer is told for a key of the kernel."""
    if len(key) != sum(part.size_bytes for part in form):
        raise ValueError(f"a key of {len(key)} bytes is not one of {len(form)} parts")
    found, at = [], 0
    for part in form:
        found.append(part.write(key[at : at + part.size_bytes]))
        at += part.size_bytes
    return " ".join(found)


def heard(form: Form, text: str) -> bytes | None:
    """Return the kernel's key for what a peer said, None where it is no such key."""
    words = text.split(" ") if len(text) <= _LONGEST else []
    if len(words) != len(form):
        return None
    try:
        return b"".join(part.parse(word) for part, word in zip(form, words, strict=True))
    except (ValueError, OSError):  # the latter says inet_pton
        return None

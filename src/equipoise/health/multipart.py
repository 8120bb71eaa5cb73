"""Read a multipart body, of which there may be only the beginning: its parts, their headers, what is in them.

Leaves out transfer encodings: on HTTP a part is sent as it is.
Source: RFC 2046 section 5.1 (multipart), RFC 2387 (multipart/related), RFC 9110 section 5.6.6 (parameters).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from equipoise.base.errors import PeerError

_MOST_PARTS = 64
_MAX_BOUNDARY_CHARACTERS = 256  # RFC 2046 says 70; Java frameworks have been seen to write more
_PARAMETER = re.compile(r';\s*([A-Za-z0-9_-]{1,64})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))')


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a body.

    Attributes:
        headers: By their name in small letters.
        whole: Whether its end was seen.
    """

    headers: Mapping[str, str]
    content: bytes
    whole: bool

    @property
    def content_id(self) -> str:
        """Its Content-ID, without the brackets."""
        return self.headers.get("content-id", "").strip("<>")


def parameters(content_type: str) -> dict[str, str]:
    """Return the parameters of a Content-Type field, their names in small letters; of two, the first counts."""
    found: dict[str, str] = {}
    for match in _PARAMETER.finditer(content_type):
        quoted, bare = match[2], match[3]
        found.setdefault(match[1].lower(), bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
    return found


def read_parts(content_type: str, body: bytes) -> list[Part]:
    """Return the parts that have come so far, at most the first 64.  Raises: PeerError where it is no multipart."""
    boundary = parameters(content_type).get("boundary", "")
    if not 1 <= len(boundary) <= _MAX_BOUNDARY_CHARACTERS:
        raise PeerError("a multipart answer whose Content-Type names no boundary")
    # What stands before the first line with the boundary is for no one, and so is what follows the last.
    _, *pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1", "replace"), _MOST_PARTS)
    last = len(pieces) - 1
    return [_part(piece, whole=at < last) for at, piece in enumerate(pieces) if not piece.startswith(b"--")]


def _part(piece: bytes, *, whole: bool) -> Part:
    head, _, content = piece.lstrip(b" \t").partition(b"\r\n\r\n")
    headers: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    return Part(headers, content, whole)

"""MTOM: a SOAP envelope and the documents that it includes, as one multipart body; read and written.

Bodies are held in memory, up to a limit that the caller has.  Documents are taken as bytes, whatever they hold.
Source: W3C MTOM and XOP (2005), sections 3.1 and 4; RFC 2046 section 5.1.1; RFC 2387; IHE ITI TF-2, appendix V.3.6.
"""

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message as HeaderText
from email.parser import BytesHeaderParser
from urllib.parse import unquote

from equipoise.base.errors import PeerError
from equipoise.sim.soap import CONTENT_TYPE, Element

XOP = "http://www.w3.org/2004/08/xop/include"
_XOP_TYPE = "application/xop+xml"
_MOST_PARTS = 1000


@dataclass(frozen=True, slots=True)
class Package:
    """One multipart body: the envelope, and the other parts by content id."""

    envelope: bytes
    parts: Mapping[str, bytes]


def is_mtom(content_type: str) -> bool:
    """Say whether a body of this type is MTOM."""
    header = _header(content_type)
    return header.get_content_type() == "multipart/related" and header.get_param("type", "") == _XOP_TYPE


def read(content_type: str, body: bytes) -> Package:
    """Return what a multipart body holds.  Raises: PeerError."""
    header = _header(content_type)
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not 1 <= len(boundary) <= 70:  # RFC 2046 section 5.1.1
        raise PeerError(f"multipart without a boundary: {content_type!r}")
    parts = _parts(body, boundary.encode("ascii", "replace"))
    root = str(header.get_param("start", "")).strip("<>") or next(iter(parts))
    if root not in parts:
        raise PeerError(f"the part {root!r}, which `start` names, is not there")
    return Package(parts.pop(root), parts)


def write(envelope: bytes, parts: Mapping[str, bytes], action: str) -> tuple[str, bytes]:
    """Return content type and body."""
    boundary, root = f"part-{uuid.uuid4().hex}", "envelope@equipoise.invalid"
    content_type = (
        f'multipart/related; boundary="{boundary}"; type="{_XOP_TYPE}"; start="<{root}>"; '
        f'start-info="{CONTENT_TYPE}"; action="{action}"'
    )
    first = _head(boundary, f'{_XOP_TYPE}; charset=UTF-8; type="{CONTENT_TYPE}"', root)
    pieces = [first, envelope]
    for content_id, content in parts.items():
        pieces += [b"\r\n", _head(boundary, "application/octet-stream", content_id), content]
    return content_type, b"".join([*pieces, f"\r\n--{boundary}--\r\n".encode()])


def include(parent: Element, content_id: str) -> None:
    """Let an element have the content of a part."""
    reference = parent.makeelement(f"{{{XOP}}}Include", {"href": f"cid:{content_id}"})
    parent.append(reference)


def inline(body: Element, parts: Mapping[str, bytes]) -> None:
    """Put the content of each part where it is included, in base64: the same message without MTOM."""
    for element in body.iter():
        if (reference := element.find(f"{{{XOP}}}Include")) is not None:
            element.text = base64.b64encode(included(element, parts)).decode("ascii")
            element.remove(reference)


def included(element: Element, parts: Mapping[str, bytes]) -> bytes:
    """Return the content of an element, from the part that it includes or in base64.  Raises: PeerError."""
    reference = element.find(f"{{{XOP}}}Include")
    if reference is None:
        try:
            return base64.b64decode("".join((element.text or "").split()), validate=True)
        except ValueError:
            raise PeerError(f"{element.tag} neither includes a part nor holds base64") from None
    content_id = unquote(reference.get("href", "").removeprefix("cid:"))
    if content_id not in parts:
        raise PeerError(f"the part {content_id!r} is not there")
    return parts[content_id]


def _header(content_type: str) -> "HeaderText[str, str]":
    header: HeaderText[str, str] = HeaderText()
    header["content-type"] = content_type
    return header


def _head(boundary: str, content_type: str, content_id: str) -> bytes:
    return (
        f"--{boundary}\r\nContent-Type: {content_type}\r\nContent-Transfer-Encoding: binary\r\n"
        f"Content-ID: <{content_id}>\r\n\r\n"
    ).encode()


def _parts(body: bytes, boundary: bytes) -> dict[str, bytes]:
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary, _MOST_PARTS)
    if len(pieces) < 3 or not pieces[-1].startswith(b"--"):
        raise PeerError("a multipart body that is cut short, or has too many parts")
    found: dict[str, bytes] = {}
    for piece in pieces[1:-1]:
        head, gap, content = piece.lstrip(b" \t").removeprefix(b"\r\n").partition(b"\r\n\r\n")
        if not gap:
            raise PeerError("a part without an end of its headers")
        headers = BytesHeaderParser().parsebytes(head)
        if str(headers.get("content-transfer-encoding", "binary")).lower() not in {"binary", "8bit", "7bit"}:
            raise PeerError("a part that is encoded; XOP parts are binary")
        found[str(headers.get("content-id", len(found))).strip("<> ")] = content
    return found

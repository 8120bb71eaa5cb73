"""SOAP 1.2 with WS-Addressing over HTTP: one request of ours, plain or as MTOM, and the answer's body or fault.

Leaves out WS-Security, attachments, which are never looked at, and every text of an answer: it may be a patient's.
XML is read without DTD, so without entities but the five of XML itself, and with bounds.
Source: SOAP 1.2 part 1, section 5; WS-Addressing 1.0 SOAP binding; MTOM and XOP 1.0; IHE ITI TF-2, appendix V.3.
"""

import re
from dataclasses import dataclass
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat
from xml.sax.saxutils import escape

from equipoise.base.errors import PeerError
from equipoise.health.multipart import parameters, read_parts
from equipoise.health.web import Answer

ENVELOPE = "http://www.w3.org/2003/05/soap-envelope"
ADDRESSING = "http://www.w3.org/2005/08/addressing"
_ENVELOPE_1_1 = "http://schemas.xmlsoap.org/soap/envelope/"
_MOST_DEEP = 64  # elements in elements; answers have ten
_MOST_ELEMENTS = 50_000  # a list of all that a patient has; reading it takes 60 ms
_MAX_NAMESPACE_CHARACTERS = 256  # every name repeats its own: 1 MiB of XML could cost 50 GiB
_MULTIPART, _XOP = "multipart/related", "application/xop+xml"
_XML_TYPES = frozenset({"application/soap+xml", "text/xml", "application/xml", _XOP})
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Fault:
    """A SOAP fault: the local names of its code and of the codes within, such as `Sender` and `ActionNotSupported`."""

    codes: tuple[str, ...]

    def __str__(self) -> str:
        return "/".join(self.codes) or "without a code"


def envelope(action: str, to: str, message_id: str, body: str) -> bytes:
    """Return a request; `body` is XML that declares its namespaces, `message_id` a UUID that was never used."""
    header = (
        f'<a:Action s:mustUnderstand="1">{escape(action)}</a:Action>'
        f"<a:MessageID>urn:uuid:{message_id}</a:MessageID>"
        f"<a:ReplyTo><a:Address>{ADDRESSING}/anonymous</a:Address></a:ReplyTo>"
        f'<a:To s:mustUnderstand="1">{escape(to)}</a:To>'
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<s:Envelope xmlns:s="{ENVELOPE}" xmlns:a="{ADDRESSING}">'
        f"<s:Header>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>"
    ).encode()


def plain(message: bytes, action: str) -> tuple[str, bytes]:
    """Return Content-Type and body of a plain request, "simple SOAP" as IHE calls it."""
    return f'application/soap+xml; charset=UTF-8; action="{action}"', message


def mtom(message: bytes, action: str, message_id: str) -> tuple[str, bytes]:
    """Return Content-Type and body of an MTOM request without attachments."""
    boundary, root = f"MIMEBoundary_{message_id}", f"<0.{message_id}@equipoise>"
    kind = (
        f'{_MULTIPART}; boundary="{boundary}"; type="{_XOP}"; start="{root}"; '
        f'start-info="application/soap+xml"; action="{action}"'
    )
    head = (
        f'--{boundary}\r\nContent-Type: {_XOP}; charset=UTF-8; type="application/soap+xml"\r\n'
        f"Content-Transfer-Encoding: binary\r\nContent-ID: {root}\r\n\r\n"
    )
    return kind, head.encode() + message + f"\r\n--{boundary}--\r\n".encode()


def speaks_xml(answer: Answer) -> bool:
    """Say whether an answer claims to be SOAP, plain or MTOM."""
    return answer.media_type in _XML_TYPES or answer.media_type == _MULTIPART


def read(answer: Answer) -> Element | Fault:
    """Return the first element of the answer's body, or its fault.  Raises: PeerError."""
    root = read_xml(_message(answer))
    if root.tag != f"{{{ENVELOPE}}}Envelope":
        version = "SOAP 1.1, where IHE wants 1.2" if root.tag == f"{{{_ENVELOPE_1_1}}}Envelope" else "XML, no SOAP"
        raise PeerError(f"answered in {version}; correct health.path")
    first = next(iter(root.find(f"{{{ENVELOPE}}}Body") or ()), None)
    if first is None:
        raise PeerError("answered with a SOAP envelope that has nothing in its body; the node's log says why")
    return Fault(tuple(_codes(first))) if first.tag == f"{{{ENVELOPE}}}Fault" else first


def _message(answer: Answer) -> bytes:
    """Return the XML of an answer: all of it, or the root part of a multipart."""
    if answer.media_type != _MULTIPART:
        content, whole = answer.body, answer.whole
    else:
        parts = read_parts(answer.content_type, answer.body)
        start = parameters(answer.content_type).get("start", "").strip("<>")
        root = next((part for part in parts if start and part.content_id == start), parts[0] if parts else None)
        if root is None:
            raise PeerError("a multipart answer with no part in it; the node's log says why")
        content, whole = root.content, root.whole
    if not whole:
        raise PeerError(f"no end of the SOAP message within {len(answer.body)} bytes; the node's log says why")
    return content


def _codes(fault: Element) -> list[str]:
    """Return the local names of code and subcodes; what is no name is left out."""
    found, at = [], fault.find(f"{{{ENVELOPE}}}Code")
    while at is not None:
        text = (at.findtext(f"{{{ENVELOPE}}}Value") or "").strip().rpartition(":")[2]
        found += [text] if _NAME.fullmatch(text) else []
        at = at.find(f"{{{ENVELOPE}}}Subcode")
    return found


def read_xml(data: bytes) -> Element:
    """Return the root element, names as `{namespace}name`.  Raises: PeerError: no XML, a DTD, out of bounds."""
    tree, parser = _Tree(), expat.ParserCreate(namespace_separator="}")
    parser.StartElementHandler, parser.EndElementHandler = tree.start, tree.end
    parser.CharacterDataHandler = tree.builder.data
    parser.StartNamespaceDeclHandler = _bound_namespace
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise PeerError(f"answered with broken XML: {expat.ErrorString(error.code)}; correct health.path") from None
    except (ValueError, LookupError):  # an encoding that nobody knows
        raise PeerError("answered with XML in an unknown encoding; correct health.path") from None
    root: Element = tree.builder.close()
    return root


class _Tree:
    """Builds the elements, and counts them."""

    def __init__(self) -> None:
        self.builder = TreeBuilder()
        self._depth = self._count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._count += 1
        if self._depth > _MOST_DEEP or self._count > _MOST_ELEMENTS:
            raise PeerError(
                f"answered with XML of more than {_MOST_DEEP} elements in each other, or {_MOST_ELEMENTS} in all; "
                "the node's log says why"
            )
        self.builder.start(_clark(name), {_clark(key): value for key, value in attributes.items()})

    def end(self, name: str) -> None:
        self._depth -= 1
        self.builder.end(_clark(name))


def _bound_namespace(_: str | None, uri: str | None) -> None:
    if len(uri or "") > _MAX_NAMESPACE_CHARACTERS:
        raise PeerError(f"answered with XML that has a namespace of more than {_MAX_NAMESPACE_CHARACTERS} characters")


def _refuse_doctype(*_: object) -> None:
    # SOAP 1.2 part 1, section 5: no document type declaration; without one nothing can be expanded or fetched.
    raise PeerError("answered with XML that has a DTD, which SOAP does not allow; correct health.path")


def _clark(name: str) -> str:
    return f"{{{name}" if "}" in name else name

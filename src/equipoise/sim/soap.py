"""SOAP 1.2 messages with WS-Addressing: read without document types or entities, written with unique prefixes.

Leaves out attachments (`mtom.py`) and security headers.
Source: SOAP 1.2 part 1, sections 5.1 and 5.4; WS-Addressing 1.0 SOAP binding; IHE ITI TF-2, appendix V.3.
"""

import uuid
from dataclasses import dataclass
from typing import TypeAlias
from xml.etree import ElementTree
from xml.parsers import expat

from equipoise.base.errors import PeerError

Element: TypeAlias = ElementTree.Element

ENVELOPE = "http://www.w3.org/2003/05/soap-envelope"
ADDRESSING = "http://www.w3.org/2005/08/addressing"
_ANONYMOUS = f"{ADDRESSING}/anonymous"
CONTENT_TYPE = "application/soap+xml"
_MOST_DEPTH = 100  # an envelope with ebRIM in it has about fifteen levels


@dataclass(frozen=True, slots=True)
class Message:
    """What one envelope says."""

    action: str
    message_id: str
    relates_to: str
    body: Element


class SoapFaultError(PeerError):
    """The other side answered with a fault; the text is its reason."""


def parse_xml(content: bytes) -> Element:
    """Return the root of a document.  Raises: PeerError, also for a document type, which may hold entities."""
    builder, depth = ElementTree.TreeBuilder(), 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MOST_DEPTH:
            raise PeerError(f"XML of more than {_MOST_DEPTH} levels")
        builder.start(_clark(name), {_clark(key): value for key, value in attributes.items()})

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_clark(name))

    def refuse(*_: object) -> None:
        raise PeerError("XML with a document type is not read")

    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise PeerError(f"not XML: {error}") from None
    return builder.close()


def read(content: bytes) -> Message:
    """Return what an envelope says.  Raises: PeerError, and SoapFaultError where it is a fault."""
    envelope = parse_xml(content)
    body = envelope.find(f"{{{ENVELOPE}}}Body")
    if envelope.tag != f"{{{ENVELOPE}}}Envelope" or body is None or not len(body):
        raise PeerError(f"not a SOAP 1.2 envelope with a body: {envelope.tag}")
    if body[0].tag == f"{{{ENVELOPE}}}Fault":
        raise SoapFaultError(" ".join("".join(body[0].itertext()).split()))
    header = envelope.find(f"{{{ENVELOPE}}}Header")
    return Message(
        action=_addressing(header, "Action"),
        message_id=_addressing(header, "MessageID"),
        relates_to=_addressing(header, "RelatesTo"),
        body=body[0],
    )


def request(action: str, to: str, body: Element) -> bytes:
    """Return an envelope that asks."""
    header = [_said("To", to), _said("MessageID", _new_id()), _said("Action", action, must_understand=True)]
    reply_to = _element("ReplyTo")
    reply_to.append(_said("Address", _ANONYMOUS))
    return _envelope([*header, reply_to], body)


def response(action: str, asked: Message, body: Element) -> bytes:
    """Return the envelope that answers `asked`."""
    header = [_said("Action", action, must_understand=True), _said("MessageID", _new_id())]
    return _envelope([*header, _said("RelatesTo", asked.message_id)], body)


def fault(code: str, reason: str, relates_to: str = "") -> bytes:
    """Return an envelope with a fault; `code` is Sender, Receiver or MustUnderstand."""
    content = ElementTree.Element(f"{{{ENVELOPE}}}Fault")
    value = ElementTree.SubElement(ElementTree.SubElement(content, f"{{{ENVELOPE}}}Code"), f"{{{ENVELOPE}}}Value")
    value.text = f"env:{code}"
    texts = ElementTree.SubElement(content, f"{{{ENVELOPE}}}Reason")
    text = ElementTree.SubElement(texts, f"{{{ENVELOPE}}}Text")
    text.set("{http://www.w3.org/XML/1998/namespace}lang", "en")
    text.text = reason
    header = [_said("Action", f"{ADDRESSING}/soap/fault", must_understand=True)]
    return _envelope([*header, *([_said("RelatesTo", relates_to)] if relates_to else [])], content)


def _clark(name: str) -> str:
    return "{" + name if "}" in name else name


def _addressing(header: Element | None, name: str) -> str:
    found = header.find(f"{{{ADDRESSING}}}{name}") if header is not None else None
    return (found.text or "").strip() if found is not None else ""


def _element(name: str) -> Element:
    return ElementTree.Element(f"{{{ADDRESSING}}}{name}")


def _said(name: str, text: str, *, must_understand: bool = False) -> Element:
    element = _element(name)
    element.text = text
    if must_understand:
        element.set(f"{{{ENVELOPE}}}mustUnderstand", "true")
    return element


def _new_id() -> str:
    return f"urn:uuid:{uuid.uuid4()}"


def _envelope(header: list[Element], body: Element) -> bytes:
    envelope = ElementTree.Element(f"{{{ENVELOPE}}}Envelope")
    ElementTree.SubElement(envelope, f"{{{ENVELOPE}}}Header").extend(header)
    ElementTree.SubElement(envelope, f"{{{ENVELOPE}}}Body").append(body)
    return serialized(envelope)


def serialized(element: Element) -> bytes:
    """Return a document of this element.

    The standard library's writer keeps prefixes in a table of the whole process; `env`, which a fault's code refers to
    by name, is bound here instead.
    """
    content = ElementTree.tostring(element, encoding="unicode")
    if 'xmlns:env="' not in content:
        head, angle, rest = content.partition(">")
        content = f'{head} xmlns:env="{ENVELOPE}"{angle}{rest}'
    return b'<?xml version="1.0" encoding="UTF-8"?>' + content.encode("utf-8")

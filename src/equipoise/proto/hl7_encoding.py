"""How an HL7 message says which bytes separate its parts, and its first line cut into fields.

Bytes throughout: a message's character set is not looked at.  What cannot be read is refused in words that tell what
it is and never quote it, for it may be a patient's.
Source: HL7 version 2.5.1, sections 2.5.4 (delimiters), 2.15.9.1 and 2.15.9.2 (MSH-1, MSH-2).
"""

from typing import NamedTuple

from equipoise.base.errors import PeerError

HEAD_BYTES = 64 * 1024  # no line is read further than this
BATCH_STARTS = (b"FHS", b"BHS")
_STARTS = (b"MSH", *BATCH_STARTS)
_BOM = b"\xef\xbb\xbf"
_BEFORE = b"\r\n "  # what some senders put before MSH; harmless, for no segment begins with it
_XML_STARTS = (b"<",)
_WIDE_STARTS = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff", b"M\0", b"\0M", b"\0\0\0M", b"<\0", b"\0<", b"F\0", b"B\0")
_EBCDIC_MSH = bytes.fromhex("d4e2c8")


class NotHl7Error(PeerError):
    """The content of a frame is not an HL7 version 2 message."""


class Separators(NamedTuple):
    """One byte each; empty where the message has none, so that such a part is never cut."""

    field: bytes
    component: bytes
    repetition: bytes
    escape: bytes
    subcomponent: bytes


def begin(content: bytes) -> bytes:
    """Return the content from MSH, FHS or BHS on: without a byte order mark or blank lines.  Raises: NotHl7Error."""
    if content.startswith(_STARTS):
        return content
    stripped = content.removeprefix(_BOM).lstrip(_BEFORE).removeprefix(_BOM)
    if stripped.startswith(_STARTS):
        return stripped
    raise NotHl7Error(f"not an HL7 message: {_class_of(content, stripped)}")


def first_line(content: bytes, fields: int) -> list[bytes]:
    """Return the segment name, then MSH-2 and so on (MSH-n is at n - 1), at most so many, and one with the rest.

    `content` is as from `begin`.  Raises: NotHl7Error.
    """
    separator = content[3:4]
    if separator.isalnum() or separator in b"\0\t\n\v\f\r ":  # an empty one is in there, too
        raise NotHl7Error(_why_no_separator(content[:3].decode(), separator))
    line = content[:HEAD_BYTES] if (end := line_end(content)) < 0 else content[:end]
    found = line.split(separator, fields)
    if len(found) == 1 or not found[1]:
        raise NotHl7Error(f"not an HL7 message: {content[:3].decode()} ends before its second field (the separators)")
    return found


def separators(content: bytes) -> Separators:
    """Return the separators of a message; `content` is as from `begin`.  Raises: NotHl7Error."""
    written = first_line(content, 2)[1]
    return Separators(content[3:4], written[0:1], written[1:2], written[2:3], written[3:4])


def line_end(content: bytes, start: int = 0) -> int:
    """Return where the line that begins at `start` ends, by CR or LF; -1 where neither comes within HEAD_BYTES."""
    limit = start + HEAD_BYTES
    carriage_return = content.find(b"\r", start, limit)
    line_feed = content.find(b"\n", start, limit if carriage_return < 0 else carriage_return)
    return line_feed if line_feed >= 0 else carriage_return


def _why_no_separator(name: str, separator: bytes) -> str:
    if separator in (b"", b"\r", b"\n"):
        return f"not an HL7 message: it has {name} and then nothing on that line"
    kind = "a letter or digit" if separator.isalnum() else "a blank or control byte"
    return f"not an HL7 message: the byte behind {name}, which separates its fields, is {kind}"


def _class_of(content: bytes, stripped: bytes) -> str:
    """Say what this begins with, without a byte of it."""
    if not stripped:
        return "the frame is empty" if not content else "the frame holds only blanks"
    if content.startswith(_WIDE_STARTS):
        return "it is UTF-16 or UTF-32, which MLLP cannot carry; have the sender use UTF-8 (UNICODE UTF-8 in MSH-18)"
    if content.startswith(_EBCDIC_MSH):
        return "it is EBCDIC; have the sender use ASCII or UTF-8"
    if stripped[:3].upper() in _STARTS:
        return "its segment name MSH has lower-case letters; it must be MSH"
    if stripped.startswith(_XML_STARTS):
        return "it begins like XML; this service takes HL7 version 2 with separators (MSH|^~\\&)"
    if stripped.startswith((b"{", b"[")):
        return "it begins like JSON; this service takes HL7 version 2 with separators (MSH|^~\\&)"
    return f"it begins with {_kind_of_byte(stripped)}, not with MSH; see what the sender puts before MSH"


def _kind_of_byte(stripped: bytes) -> str:
    first, name = stripped[:1], stripped[:3]
    if len(name) == 3 and name.isalnum() and name.isupper() and not stripped[3:4].isalnum():
        return "another segment"
    kinds = {
        "letters": first.isalpha(),
        "digits": first.isdigit(),
        "a byte above 0x7F": first >= b"\x80",
        "a control byte": first < b" ",
    }
    return next((kind for kind, applies in kinds.items() if applies), "a punctuation mark")

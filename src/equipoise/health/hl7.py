"""The HL7 message that a check sends: checked where it is read, given a time and a control ID of its own each time.

Leaves out what comes back (`checks/hl7_ack.py`), and everything in a message that is not MSH.
Source: HL7 version 2.5.1, sections 2.5 (segments), 2.15.9 (MSH) and 14.3.1 (NMQ^N01); table 0155 (MSH-15 and MSH-16).
"""

import re
from datetime import UTC, datetime

# A question about the receiver's own statistics.  NCK would ask for its clock, and may set it.
QUERY = "MSH|^~\\&|EQUIPOISE||||||NMQ^N01^NMQ_N01||P|2.5.1\rNST|N\r"
_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}")
_MAX_CHARACTERS = 64 * 1024
_ASKED_FOR = frozenset({"AL", "SU"})  # the acknowledgements that a message without a fault gets


def checked(text: str) -> str:
    """Return a message as HL7 writes it, with a CR behind each segment.

    Raises: ValueError, with the line, the rule and a way out.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"the message has {len(text)} characters; a check sends at most {_MAX_CHARACTERS}")
    lines = [line.strip(" ") for line in re.split(r"\r\n|\r|\n", text.strip(" \t\r\n"))]
    _check_first(lines[0])
    fields = _msh(lines[0])
    for number, line in enumerate(lines[1:], start=2):
        _check_segment(number, line, fields[0][3:])
    _check_characters(lines, fields)
    _check_msh(fields)
    return "\r".join(lines) + "\r"


def filled_in(message: str, control_id: str, wall_s: float) -> bytes:
    """Return the message with this MSH-10, and with this time as MSH-7, in seconds since 1970."""
    first, _, rest = message.partition("\r")
    separator, fields = first[3], first.split(first[3])
    fields[6], fields[9] = datetime.fromtimestamp(wall_s, UTC).strftime("%Y%m%d%H%M%S+0000"), control_id
    return f"{separator.join(fields)}\r{rest}".encode()


def _msh(line: str) -> list[str]:
    """Return the fields of MSH from the first on: MSH-1 is the separator, behind the name of the segment."""
    return [line[:4], *line[4:].split(line[3])]


def _field(fields: list[str], number: int) -> str:
    return fields[number - 1] if number <= len(fields) else ""


def _check_first(line: str) -> None:
    if not line.startswith("MSH"):
        raise ValueError("line 1 does not begin with MSH; a message does, and a batch (FHS, BHS) is none")
    if len(line) < 5 or line[3].isalnum() or not "!" <= line[3] <= "~":
        raise ValueError("line 1: MSH is not followed by a separator (MSH-1); write 'MSH|^~\\&|...'")
    encoding = _msh(line)[1]
    if (
        not 4 <= len(encoding) <= 5
        or len({*encoding, line[3]}) <= len(encoding)
        or re.search(r"[A-Za-z0-9 ]", encoding)
    ):
        raise ValueError("line 1: MSH-2 is not four different characters; write '^~\\&'")


def _check_segment(number: int, line: str, separator: str) -> None:
    name, rest = line[:3], line[3:]
    if not _SEGMENT.fullmatch(name) or (rest and not rest.startswith(separator)):
        raise ValueError(
            f"line {number} is no segment: three capitals or digits, then {separator!r}; a text of several lines has "
            "\\.br\\ within its field"
        )
    if name == "MSH":
        raise ValueError(f"line {number} is a second MSH; a check sends one message")


def _check_characters(lines: list[str], fields: list[str]) -> None:
    says_utf8 = "UNICODE UTF-8" in _field(fields, 18)
    for number, line in enumerate(lines, start=1):
        if bad := [c for c in line if c < " " or c == "\x7f"]:
            raise ValueError(f"line {number} contains {bad[0]!r}, a control character; take it out")
        if not line.isascii() and not says_utf8:
            raise ValueError(
                f"line {number} has a character that is not ASCII, and MSH-18 does not say so; write "
                "'UNICODE UTF-8' there, or take it out"
            )


def _check_msh(fields: list[str]) -> None:
    kind = _field(fields, 9)
    if not kind or kind.startswith("ACK"):
        raise ValueError(f"line 1: MSH-9 is {kind!r}, not a type that is acknowledged; write for example 'ADT^A01'")
    for number, name, example in ((11, "the processing ID", "P"), (12, "the version", "2.5.1")):
        if not _field(fields, number):
            raise ValueError(f"line 1: MSH-{number}, {name}, is empty; write for example {example!r}")
    wanted = _field(fields, 15), _field(fields, 16)
    if any(wanted) and not _ASKED_FOR.intersection(wanted):
        raise ValueError(
            f"line 1: MSH-15 and MSH-16 are {wanted[0]!r} and {wanted[1]!r}, so a message that is taken gets no "
            "acknowledgement; write 'AL' into one of them, or leave both empty"
        )

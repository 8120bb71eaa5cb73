"""Whom an HL7 message is about: the identifiers of PID-3, and those of MRG-1, which a merge retires.

Leaves out PID-2 and PID-4, also where PID-3 is empty: they are other numbers (external, alternate) of the patient, and
PID-3 is required; a message without it names nobody here.  Escape sequences stay as they are written.
Source: HL7 version 2.5.1, sections 3.4.2.3 (PID-3), 3.4.9.1 (MRG-1) and 2.A.14 (data type CX).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from equipoise.base.errors import PeerError
from equipoise.proto.hl7_encoding import HEAD_BYTES, Separators, begin, line_end, separators

_MOST_IDENTIFIERS = 10_000  # 0.01 seconds of work; a message has a handful, a large batch some thousands
_FIRST_BYTES = 1024  # enough for all that may stand before MSH-2
_NULL = b'""'  # section 2.5.3.3: delete what you have; it is nobody's identifier
_AUTHORITY = 3  # CX-4, counted from 0
_FIELDS = {b"PID": 3, b"MRG": 1}
_LINE_STARTS = tuple(ending + name for ending in (b"\r", b"\n") for name in _FIELDS)
_NAME_BYTES = 4  # a line's ending and the name


@dataclass(frozen=True, slots=True)
class Patients:
    """Identifiers as `id^authority` (CX-1 and the first subcomponent of CX-4), each once, in the message's order."""

    current: tuple[bytes, ...]
    merged: tuple[bytes, ...]


def read_patients(chunks: Sequence[bytes]) -> Patients:
    """Return every repetition of PID-3 and MRG-1, of all such segments; the chunks are not joined.

    Raises: NotHl7Error; PeerError for more identifiers than a message can mean.
    """
    reader = _Reader(separators(begin(_first_bytes(chunks))))
    carry = b""
    for place, chunk in enumerate(chunks):
        carry = reader.read(carry + chunk if carry else chunk, is_last=place == len(chunks) - 1)
    return Patients(tuple(reader.found[b"PID"]), tuple(reader.found[b"MRG"]))


def _first_bytes(chunks: Sequence[bytes]) -> bytes:
    first = b""
    for chunk in chunks:
        first += chunk
        if len(first) >= _FIRST_BYTES:
            break
    return first


class _Reader:
    """Looks for the two segments, in pieces of a message that follow each other."""

    def __init__(self, by: Separators) -> None:
        self._by = by
        self._read = 0
        self.found: dict[bytes, dict[bytes, None]] = {name: {} for name in _FIELDS}

    def read(self, data: bytes, *, is_last: bool) -> bytes:
        """Read what is whole, and return what must stand before the next piece."""
        for at in self._segments(data):
            name = data[at + 1 : at + _NAME_BYTES]
            end = line_end(data, at + 1)
            line = data[at + 1 : at + 1 + HEAD_BYTES if end < 0 else end]
            fields = line.split(self._by.field, _FIELDS[name] + 1)
            whole = is_last or end >= 0 or len(line) == HEAD_BYTES or len(fields) > _FIELDS[name] + 1
            if not whole:
                return data[at:]
            if len(fields) > _FIELDS[name]:
                self._add(self.found[name], fields[_FIELDS[name]])
        return data[-_NAME_BYTES:]

    def _segments(self, data: bytes) -> Iterable[int]:
        """Yield where a line's ending stands before one of the segments, in order."""
        patterns = [start + self._by.field for start in _LINE_STARTS]
        places = [data.find(pattern) for pattern in patterns]
        while (at := min((place for place in places if place >= 0), default=-1)) >= 0:
            yield at
            which = places.index(at)
            places[which] = data.find(patterns[which], at + 1)

    def _add(self, found: dict[bytes, None], field: bytes) -> None:
        repetitions = field.split(self._by.repetition) if self._by.repetition else [field]
        self._read += len(repetitions)
        if self._read > _MOST_IDENTIFIERS:
            raise PeerError(
                f"the message has more than {_MOST_IDENTIFIERS} patient identifiers in PID-3 and MRG-1; have its "
                "sender make several messages of it, or do not set hl7.key to patient"
            )
        for repetition in repetitions:
            if identifier := _identifier(repetition, self._by):
                found[identifier] = None


def _identifier(repetition: bytes, by: Separators) -> bytes:
    """Return `id^authority`; empty where there is no id."""
    components = repetition.split(by.component, _AUTHORITY + 1)
    number = components[0].strip(b" ")
    if not number or number == _NULL:
        return b""
    authority = components[_AUTHORITY] if len(components) > _AUTHORITY else b""
    if by.subcomponent:
        authority = authority.partition(by.subcomponent)[0]
    return number + b"^" + authority.strip(b" ")

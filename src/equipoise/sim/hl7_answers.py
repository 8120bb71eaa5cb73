"""What a simulated receiver answers to a message: an acknowledgement, or the response to a query.

Any separators are answered in kind.  Leaves out ERR segments and what the message means.
Source: HL7 version 2.5.1, chapters 2.9 (acknowledgement), 2.15.8 (MSA) and 5.4 (RSP^K22).
"""

from equipoise.proto.hl7 import Header


def answer(content: bytes, header: Header, code: str, number: int) -> bytes:
    """Return the answer to a message.

    Args:
        content: The message, or its beginning.
        header: What the codec read of it.
        code: MSA-1: AA, AE, AR, CA, CE, CR.
        number: Of our answer, which makes its own control ID.
    """
    segments = _segments(content)
    bar, hat = segments[0][3:4], segments[0][4:5]
    fields = [*segments[0].split(bar), *[b""] * 12]
    is_query = header.kind.startswith("QBP") and code == "AA"
    version = b"2.5.1" if header.is_batch else fields[11].partition(hat)[0]
    told = [
        b"MSH" + bar + fields[1],
        *(fields[4], fields[5], fields[2], fields[3], fields[6], b""),
        hat.join((b"RSP", b"K22") if is_query else (b"ACK", *header.kind.encode("ascii", "replace").split(b"^")[1:2])),
        b"SIM%d" % number,
        *(b"P", version),
    ]
    lines = [bar.join(told), bar.join((b"MSA", code.encode(), control_id(content, header)))]
    if is_query:
        lines += _found(segments, bar, hat)
    return b"".join(line + b"\r" for line in lines)


def control_id(content: bytes, header: Header) -> bytes:
    """Return MSH-10, or FHS-11 of a batch."""
    if not header.is_batch:
        return header.control_id
    first = _segments(content)[0]
    return [*first.split(first[3:4]), *[b""] * 11][10]


def _found(segments: list[bytes], bar: bytes, hat: bytes) -> list[bytes]:
    """Return one patient, who answers every query."""
    query = next((segment for segment in segments if segment.startswith(b"QPD" + bar)), bar.join((b"QPD", b"", b"")))
    tag = [*query.split(bar), b"", b""][2]
    patient = bar.join((b"PID", b"1", b"", hat.join((b"SIM0001", b"", b"", b"SIM")), b"", hat.join((b"SIM", b"ONE"))))
    return [bar.join((b"QAK", tag, b"OK")), query, patient]


def _segments(content: bytes) -> list[bytes]:
    return [segment for segment in content.replace(b"\n", b"\r").split(b"\r") if segment]

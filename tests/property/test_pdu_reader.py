from contextlib import suppress
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from equipoise.proto.dicom.pdu import Pdu, PduError, PduReader, PduType

PDUS = st.lists(st.builds(Pdu, st.sampled_from(PduType), st.binary(max_size=64)))


@given(PDUS, st.data())
def test_any_cut_of_the_stream_gives_the_same_pdus(pdus: list[Pdu], data: st.DataObject) -> None:
    wire = b"".join(pdu.encode() for pdu in pdus)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)))))
    reader, got = PduReader(max_body_bytes=64), []
    for start, end in pairwise([0, *cuts, len(wire)]):
        reader.feed(memoryview(wire)[start:end])
        while (pdu := reader.next_pdu()) is not None:
            got.append(pdu)
    assert got == pdus
    assert len(reader) == 0


@given(st.lists(st.binary(max_size=40)))
def test_arbitrary_bytes_raise_nothing_but_pdu_error(pieces: list[bytes]) -> None:
    reader = PduReader(max_body_bytes=32)
    with suppress(PduError):
        for piece in pieces:
            reader.feed(piece)
            while reader.next_pdu() is not None:
                pass
            assert len(reader) < 6 + 32

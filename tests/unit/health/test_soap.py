"""Reading SOAP and multipart that nobody should send: one kind of error, within bounds of time and memory."""

import contextlib
import random
import time

import pytest

from equipoise.base.errors import PeerError
from equipoise.health import soap
from equipoise.health.multipart import parameters, read_parts
from equipoise.health.web import Answer
from tests.unit.health.peers.xds_registry import FAILURE, enveloped, errors, fault, queried
from tests.unit.health.peers.xds_repository import MTOM, packed, retrieved

LONG = b"u" * 500_000


@pytest.mark.parametrize(
    "content",
    [
        b"<a>" + b"<x/>" * 250_000 + b"</a>",
        b'<a xmlns="' + LONG + b'">' + b"<x/>" * 100_000 + b"</a>",
        b'<a xmlns:p="' + LONG + b'">' + b'<x p:y=""/>' * 40_000 + b"</a>",
        b"<a>" * 300_000,
        b'<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;&x;">]><a>&z;</a>',
    ],
)
def test_xml_made_to_cost_is_refused_soon(content: bytes) -> None:
    began = time.monotonic()
    with pytest.raises(PeerError):
        soap.read_xml(content)
    assert time.monotonic() - began < 2


def test_names_carry_their_namespace() -> None:
    root = soap.read_xml(b'<p:a xmlns:p="urn:1" xmlns="urn:2" q="1" p:r="2"><b>t</b></p:a>')
    assert (root.tag, root.attrib) == ("{urn:1}a", {"q": "1", "{urn:1}r": "2"})
    assert [(each.tag, each.text) for each in root] == [("{urn:2}b", "t")]


def test_a_fault_is_told_by_its_codes() -> None:
    read = soap.read(Answer(500, (), enveloped(fault("Sender", "ActionNotSupported")), whole=True))
    assert read == soap.Fault(("Sender", "ActionNotSupported"))
    read = soap.read(Answer(500, (), enveloped("<soapenv:Fault/>"), whole=True))
    assert str(read) == "without a code"


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ('a/b; boundary="x y"; type=c', {"boundary": "x y", "type": "c"}),
        (r'a/b;Boundary="x\"y";boundary=z', {"boundary": 'x"y'}),
        ('a/b; start-info="c;action="urn:x"";boundary=k', {"start-info": "c;action=", "boundary": "k"}),
        ("a/b; ; =; x", {}),
        ("", {}),
    ],
)
def test_parameters(content_type: str, expected: dict[str, str]) -> None:
    assert parameters(content_type) == expected


def test_every_cut_of_a_multipart_gives_the_parts_that_are_there() -> None:
    body = packed(retrieved(FAILURE), b"document")
    whole = read_parts(MTOM, body)
    assert [part.content_id for part in whole] == ["0.7@example.org", "1@example.org"]
    assert [part.whole for part in whole] == [True, True]
    for end in range(len(body)):
        parts = read_parts(MTOM, body[:end])
        assert all(part == other for part, other in zip(parts, whole, strict=False) if part.whole)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_comes_is_an_answer_or_one_kind_of_error(seed: int) -> None:
    random_ = random.Random(seed)
    samples = [
        ("application/soap+xml", enveloped(queried(FAILURE, errors("XDSRegistryBusy")))),
        (MTOM, packed(retrieved(FAILURE, errors("XDSRepositoryBusy")), b"x")),
    ]
    for _ in range(300):
        kind, content = random_.choice(samples)
        bent = bytearray(content)
        for _ in range(random_.randrange(1, 6)):
            at = random_.randrange(len(bent))
            bent[at : at + random_.randrange(4)] = random_.randbytes(random_.randrange(4))
        with contextlib.suppress(PeerError):
            soap.read(Answer(200, (("Content-Type", kind),), bytes(bent), whole=random_.random() < 0.9))

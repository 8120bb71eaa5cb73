"""What is asked of a node: equal questions are asked once, and TLS and the PROXY header go where they belong."""

from typing import Any

import pytest

from equipoise.config.base import CheckParams
from equipoise.config.parts import Part
from equipoise.health.checks.all_of import Params as AllParams
from equipoise.health.checks.dicom_echo import Params as EchoParams
from equipoise.health.checks.http import Params as HttpParams
from equipoise.health.checks.script import Params as ScriptParams
from equipoise.health.question import Question
from equipoise.plan.model import Endpoint, ProxyProtocol, Service
from tests.unit.health.plans import node, node_tls, service

TLS = node_tls(ca="/ca.pem", verify="name")


def asked(params: CheckParams, address: str = "10.0.0.11:104", port: int | None = 104, **changed: Any) -> Question:
    return Question.of(service("dicom_echo", params, **changed), node(address, port=port))


@pytest.mark.parametrize(
    "other",
    [
        {"interval": 6},
        {"timeout": 2},
        {"source_address": "127.0.0.2"},
        {"port": 105},
        {"tls": True},
        {"called_ae": "PACS"},
        {"calling_ae": "LB2"},
    ],
)
def test_what_makes_another_question(other: dict[str, object]) -> None:
    one = asked(EchoParams())
    assert one == asked(EchoParams(rise=7, fall=7, port=104, timeout=3, tls=False), address="pacs:99", port=99)
    assert one != asked(EchoParams.model_validate(other))
    assert one != Question.of(service("dicom_echo", EchoParams()), node(host="10.0.0.12"))


def test_another_service_asks_the_same_except_of_a_script() -> None:
    def both(check: str, params: CheckParams) -> list[Question]:
        listens = ((Endpoint("10.0.0.100", 104),), (Endpoint("10.0.0.101", 104),), ())
        return [Question.of(service(check, params, listen=listen), node()) for listen in listens]

    assert len(set(both("dicom_echo", EchoParams()))) == 1
    script = ScriptParams(program="/check")
    assert [each.service for each in both("script", script)] == [
        Endpoint("10.0.0.100", 104),
        Endpoint("10.0.0.101", 104),
        None,
    ]
    parts = (Part("dicom_echo", EchoParams()), Part("script", script))
    first, second, _ = both("all_of", AllParams(checks=parts))
    assert first != second
    assert first.parts[0] == second.parts[0]


def test_a_node_without_a_port_is_asked_at_the_services_first() -> None:
    listen = (Endpoint("10.0.0.100", 104), Endpoint("10.0.0.100", 11112))
    question = asked(EchoParams(), address="10.0.0.11", port=None, listen=listen, node_tls=TLS)
    assert (question.port, question.tls is not None) == (104, True)
    other = asked(EchoParams(port=11112), address="10.0.0.11", port=None, listen=listen, node_tls=TLS)
    assert (other.port, other.tls is not None) == (11112, True)


@pytest.mark.parametrize(
    ("tls", "port", "has_node_tls", "spoken"),
    [
        (None, None, False, False),
        (None, None, True, True),
        (None, 104, True, True),
        (None, 8042, True, False),  # another port: nobody said that it speaks TLS
        (True, 8042, True, True),
        (True, None, False, True),
        (False, None, True, False),
    ],
)
def test_when_tls_is_spoken(tls: bool | None, port: int | None, has_node_tls: bool, spoken: bool) -> None:
    question = asked(EchoParams(tls=tls, port=port), node_tls=TLS if has_node_tls else None)
    assert (question.tls is not None) == spoken
    if question.tls is not None:
        assert question.tls.ca == ("/ca.pem" if has_node_tls else None)
        assert question.tls.verify == "name"


@pytest.mark.parametrize(
    ("address", "configured", "name"),
    [
        ("10.0.0.11:104", None, "10.0.0.11"),
        ("pacs-a.example:104", None, "pacs-a.example"),
        ("[2001:db8::11]:104", None, "2001:db8::11"),
        ("10.0.0.11:104", "pacs.example", "pacs.example"),
        ("pacs-a.example.:104", None, "pacs-a.example"),
        ("10.0.0.11:104", "pacs.example.", "pacs.example"),
    ],
)
def test_whose_certificate_must_be_shown(address: str, configured: str | None, name: str) -> None:
    question = asked(EchoParams(), address=address, node_tls=node_tls(server_name=configured))
    assert question.tls is not None
    assert question.tls.server_name == name


@pytest.mark.parametrize(("port", "sent"), [(None, "v2"), (104, "v2"), (8042, "none")])
def test_the_proxy_header_goes_to_the_nodes_own_port(port: int | None, sent: str) -> None:
    assert asked(EchoParams(port=port), proxy_protocol=ProxyProtocol(send="v2")).proxy == sent


def test_each_part_has_its_own_way_and_takes_the_rest_from_the_whole() -> None:
    parts = (
        Part("dicom_echo", EchoParams()),
        Part("http", HttpParams(port=8042, source_address="10.0.0.5")),
        Part("http", HttpParams(port=8043, tls=True)),
    )
    whole: Service = service(
        "all_of",
        AllParams(checks=parts, source_address="10.0.0.9"),
        node_tls=TLS,
        proxy_protocol=ProxyProtocol(send="v1"),
    )
    found = [
        (part.port, part.tls is not None, part.proxy, part.params.source_address)
        for part in Question.of(whole, node()).parts
    ]
    assert found == [
        (104, True, "v1", "10.0.0.9"),
        (8042, False, "none", "10.0.0.5"),
        (8043, True, "none", "10.0.0.9"),
    ]

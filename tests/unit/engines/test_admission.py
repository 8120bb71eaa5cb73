from dataclasses import replace
from typing import Any

import msgspec
import pytest

from equipoise.engines.gateway.admission import Admitted, Door, Refused
from equipoise.plan.model import ProxyProtocol
from equipoise.proto.dicom.association import AssociateRequest, parse_request
from equipoise.proto.dicom.pdu import REJECT_CALLED_AE, REJECT_CALLING_AE, REJECT_NO_REASON, REJECT_VERSION, Reject
from tests.playbook.scene import SOURCE, route, task
from tests.unit.proto.captures import ECHOSCU_RQ, HEADER_BYTES

REQUEST = parse_request(ECHOSCU_RQ[HEADER_BYTES:])  # MODALITY calls ARCHIVE
ELSEWHERE = ("198.51.100.0/24",)


def admit(request: AssociateRequest = REQUEST, source: str = SOURCE, **settings: Any) -> Admitted | Refused:
    return Door.of(task(**settings), {}).admit(request, source)


def routed(target: dict[str, Any], **own: Any) -> Admitted | Refused:
    """Ask at the door of a service that leads everything to another one."""
    front = task("front", [route("pacs")], nodes="", **own)
    return Door.of(front, {"pacs": task("pacs", **target)}).admit(REQUEST, SOURCE)


@pytest.mark.parametrize(
    ("title", "patterns", "allowed"),
    [
        ("PACS", (), True),
        ("PACS", ("PACS",), True),
        ("PACS", ("RIS", "PACS"), True),
        ("PACS2", ("PACS",), False),
        ("XPACS", ("PACS",), False),
        ("pacs", ("PACS",), False),  # titles are case-sensitive: PS3.5 section 6.2, AE
        ("PACS2", ("PACS?",), True),
        ("PACS", ("PACS?",), False),
        ("PACS_WEST", ("PACS*",), True),
        ("PACS", ("P.CS",), False),
        ("A", ("[A-Z]",), False),
        ("A+B(1)", ("A+B(1)",), True),
        ("ABC", ("A|ABC",), False),
        ("A", ("A", "B|"), True),
        ("", (), False),
    ],
)
def test_only_stars_and_question_marks_are_special(title: str, patterns: tuple[str, ...], allowed: bool) -> None:
    answer = admit(replace(REQUEST, called_ae=title), called_ae_allow=patterns)
    assert isinstance(answer, Admitted) is allowed


@pytest.mark.parametrize(
    ("request_", "settings", "reject"),
    [
        (REQUEST, {"called_ae_allow": ("X",), "allow_from": ELSEWHERE}, REJECT_NO_REASON),
        (replace(REQUEST, protocol_version=2), {"called_ae_allow": ("X",)}, REJECT_VERSION),
        (REQUEST, {"called_ae_allow": ("X",), "calling_ae_allow": ("Y",)}, REJECT_CALLED_AE),
        (REQUEST, {"calling_ae_allow": ("Y",)}, REJECT_CALLING_AE),
    ],
)
def test_the_source_comes_first_then_the_version_then_the_titles(
    request_: AssociateRequest, settings: dict[str, Any], reject: Reject
) -> None:
    refused = admit(request_, **settings)
    assert isinstance(refused, Refused)
    assert (refused.reject, refused.ended) == (reject, "refused")


@pytest.mark.parametrize(
    ("source", "networks", "allowed"),
    [
        ("192.0.2.1", ("192.0.2.0/24",), True),
        ("192.0.2.1", ("198.51.100.0/24", "192.0.2.1"), True),
        ("192.0.2.1", ("2001:db8::/32",), False),
        ("2001:db8::7", ("2001:db8::/32",), True),
        ("::ffff:192.0.2.1", ("192.0.2.0/24",), True),  # a client of a socket that takes both
        ("::ffff:192.0.2.1", ("198.51.100.0/24",), False),
    ],
)
def test_a_source_is_in_one_of_the_networks(source: str, networks: tuple[str, ...], allowed: bool) -> None:
    assert isinstance(admit(source=source, allow_from=networks), Admitted) is allowed


def test_behind_an_outer_balancer_allow_from_is_not_about_the_client() -> None:
    behind = msgspec.structs.replace(task(allow_from=ELSEWHERE), proxy_protocol=ProxyProtocol(accept=True))
    assert isinstance(Door.of(behind, {}).admit(REQUEST, SOURCE), Admitted)


def test_a_route_leads_to_the_settings_of_its_target() -> None:
    admitted = routed({"node_called_ae": "PACS", "slow_response_s": 7.0}, node_called_ae="FRONT")
    assert isinstance(admitted, Admitted)
    assert (admitted.pool, admitted.settings.node_called_ae, admitted.slow_response_s) == ("pacs", "PACS", 7.0)


@pytest.mark.parametrize(
    ("lists", "reject"),
    [
        ({"called_ae_allow": ("X",)}, REJECT_CALLED_AE),
        ({"calling_ae_allow": ("X",)}, REJECT_CALLING_AE),
        ({"allow_from": ELSEWHERE}, REJECT_NO_REASON),
    ],
)
def test_both_services_must_let_a_routed_request_in(lists: dict[str, Any], reject: Reject) -> None:
    first, second = routed({}, **lists), routed(lists)
    assert isinstance(first, Refused)
    assert isinstance(second, Refused)
    assert first.reject == second.reject == reject
    assert not first.reason.startswith("route to")
    assert second.reason == f"route to pacs: {first.reason}"


def test_a_route_to_a_service_that_is_being_taken_out_leads_there_still() -> None:
    """Who asks that service for a node hears that it is gone."""
    admitted = Door.of(task(routes=[route("nowhere", called_ae="*")]), {}).admit(REQUEST, SOURCE)
    assert isinstance(admitted, Admitted)
    assert admitted.pool == "nowhere"


def test_a_request_that_no_pool_takes_is_rejected_with_its_reason() -> None:
    refused = Door.of(task("front", [route("pacs", called_ae="X")], nodes=""), {"pacs": task()}).admit(REQUEST, SOURCE)
    assert isinstance(refused, Refused)
    assert (refused.reject, refused.ended) == (REJECT_NO_REASON, "refused")
    assert "front has no nodes" in refused.reason

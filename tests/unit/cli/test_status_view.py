"""What a person sees of certificates near their end, rested nodes, HL7 messages and services that only lead on."""

import io
import math
from typing import Any

import pytest
from rich.console import Console

from equipoise.base.clock import rfc3339
from equipoise.cli.status_view import view

NOW_S = 1_900_000_000.0


def node(**changes: Any) -> dict[str, Any]:
    usual = {"address": "10.0.0.11:104", "state": "up", "weight": 100, "connections": 1, "bytes_in": 1, "bytes_out": 1}
    return {**usual, "rested": None, "check": None, **changes}


def service(**changes: Any) -> dict[str, Any]:
    usual = {"protocol": "dicom", "mode": "l7_snat", "listen": ["10.0.0.1:104"], "state": "up", "connections": 3}
    return {**usual, "nodes": {"a": node()}, **changes}


def file(days_left: float | None = 5, **changes: Any) -> dict[str, Any]:
    """Return a file of the status; `days_left` also as a part of a day."""
    not_after = None if days_left is None else rfc3339(NOW_S + days_left * 86400)
    floor = None if days_left is None else math.floor(days_left)
    return {"path": "/etc/pacs.pem", "names": ["pacs"], "not_after": not_after, "days_left": floor, **changes}


def shown(**services: Any) -> str:
    out = io.StringIO()
    document = {"site": "general", "plan": "0123456789ab", "services": services}
    Console(file=out, width=300, color_system=None).print(view(document, NOW_S))
    return out.getvalue()


@pytest.mark.parametrize(
    ("days_left", "said"),
    [
        (29.9, "ends in 29 days"),
        (12, "ends in 12 days"),
        (1.5, "ends in 1 day"),
        (0.5, "ends in less than a day"),
        (0, "ended less than a day ago"),
        (-1 / 24, "ended less than a day ago"),
        (-1, "ended 1 day ago"),
        (-40, "ended 40 days ago"),
    ],
)
def test_a_certificate_near_its_end_is_named_with_what_to_do(days_left: float, said: str) -> None:
    text = shown(pacs=service(tls={"tls.cert": file(days_left)}))
    (line,) = [each for each in text.splitlines() if "certificate" in each]
    assert line.strip().startswith(f"pacs tls.cert: the certificate {said} (/etc/pacs.pem); have it renewed")


def test_a_certificate_with_time_is_not_spoken_of() -> None:
    assert "certificate" not in shown(pacs=service(tls={"tls.cert": file(30), "node_tls.ca": file(4000)}))


def test_a_file_that_cannot_be_read_says_why() -> None:
    text = shown(pacs=service(tls={"node_tls.ca": file(None, problem="/etc/ca.pem: there is no such file")}))
    assert "pacs node_tls.ca: /etc/ca.pem: there is no such file" in text


def test_what_a_file_says_does_not_steer_the_terminal() -> None:
    text = shown(pacs=service(tls={"tls.cert": file(3, path="/etc/\x1b[2Jx.pem")}))
    assert "\x1b" not in text
    assert "[2Jx.pem" in text


def test_a_rested_node_says_why_above_and_in_its_line() -> None:
    text = shown(pacs=service(nodes={"a": node(rested="5 failures in 30 s; asked again in 8 s"), "b": node()}))
    assert "pacs/a is rested for failures in its traffic: 5 failures in 30 s; asked again in 8 s" in text
    assert text.count("up, rested") == 1
    assert "pacs/b is" not in text


def test_a_rested_node_that_is_also_down_is_shown_as_down() -> None:
    text = shown(pacs=service(state="down", nodes={"a": node(state="down", rested="5 failures")}))
    assert "up, rested" not in text
    assert "pacs is DOWN" in text


def test_a_service_that_leads_on_says_where_it_hurts() -> None:
    text = shown(
        door=service(
            nodes={},
            routes=["mwl", "pacs"],
            state="degraded",
            reason="its routes lead to: mwl is down",
        ),
        mwl=service(listen=[], state="down", nodes={"a": node(state="down")}),
        up=service(nodes={}, routes=["pacs"], reason=""),
    )
    assert "door is DEGRADED: its routes lead to: mwl is down" in text
    assert "by routes" in text
    assert "2 of 3 services in trouble" in text
    assert text.index("mwl is DOWN") < text.index("door is DEGRADED"), "the worst first"


def test_a_node_behind_routes_is_asked_at_its_own_port() -> None:
    check = {"name": "tcp", "ok": False, "reason": "refused", "at": "2030-03-17T17:46:30.000Z", "took_ms": 1.0}
    text = shown(mwl=service(listen=[], state="down", nodes={"a": node(state="down", check=check)}))
    assert "equipoise probe tcp 10.0.0.11:104" in text
    assert "(10 s ago)" in text


def test_a_node_without_a_port_behind_routes_breaks_nothing() -> None:
    """It has the port that the client came to, which no address of its own service tells."""
    check = {"name": "tcp", "ok": False, "reason": "refused", "at": "2030-03-17T17:46:30.000Z", "took_ms": 1.0}
    broken = node(state="down", address="10.0.0.11", check=check)
    assert "10.0.0.11" in shown(mwl=service(listen=[], state="down", nodes={"a": broken}))


def said_of(check: str, reason: str) -> str:
    failed = {"name": check, "ok": False, "reason": reason, "at": "2030-03-17T17:46:30.000Z", "took_ms": 1.0}
    return " ".join(shown(pacs=service(state="down", nodes={"a": node(state="down", check=failed)})).split())


def test_a_check_that_can_be_asked_by_hand_is() -> None:
    text = said_of("dicom_echo", "connection refused")
    assert "look whether it runs, then ask it by hand, with the settings under health: `equipoise probe dicom_" in text


@pytest.mark.parametrize("check", ["all_of", "script"])
def test_a_check_that_one_line_cannot_say_is_not_asked_by_hand(check: str) -> None:
    text = said_of(check, "exit status 1")
    assert "look whether it runs" in text
    assert "equipoise probe" not in text


def test_a_reason_that_lies_here_does_not_send_anybody_to_the_node() -> None:
    assert "look whether" not in said_of("script", "/opt/ask does not exist on this balancer; put it there")
    text = said_of("http", "answered 403; allow this balancer there, or ask for another health.path")
    assert "look whether" not in text
    assert "ask it by hand" in text


def messages(**changes: Any) -> dict[str, Any]:
    usual = {"by_type": {}, "in_flight": 0, "held": 0, "resent": 0, "receivers_closed": {}}
    return {**usual, "latency_ms": {"count": 0, "mean": None, "p50": None, "p99": None}, **changes}


def said_of_messages(**changes: Any) -> str:
    text = shown(adt=service(protocol="hl7", messages=messages(**changes)))
    (line,) = [each.strip() for each in text.splitlines() if "messages" in each]
    return line


def test_what_became_of_messages_is_one_line_between_the_service_and_its_nodes() -> None:
    line = said_of_messages(
        by_type={
            "ADT^A01": {"AA": 1200, "AE": 3, "closed": 2},
            "ORU^R01": {"AA": 4, "none": 7},
            "FHS": {"answered": 8},
        },
        in_flight=1,
        held=2,
        resent=5,
        receivers_closed={"lost": 4, "unmatched": 1},
        latency_ms={"count": 1207, "mean": 2.1, "p50": 2, "p99": 2000},
    )
    assert line == (
        "messages: 1,204 answered AA, 3 answered AE, 8 answered without a code, 7 that asked for no answer, "
        "2 not answered (the sender's connection was closed); 1 under way, 2 held; 5 sent again; "
        "receivers failed: 4 lost, 1 unmatched; half answered within 2 ms, 99 % within 2 s"
    )
    text = shown(adt=service(protocol="hl7", messages=messages(in_flight=1)))
    lines = text.splitlines()
    assert [lines[number].split()[0] for number in (2, 3, 4)] == ["adt", "messages:", "node"]


def test_only_numbers_that_there_are_stand_in_the_line_and_without_any_there_is_none() -> None:
    assert said_of_messages(held=3) == "messages: 3 held"
    latency = {"count": 1, "mean": 0.4, "p50": 0.5, "p99": None}
    assert said_of_messages(by_type={"ADT^A08": {"CA": 1}}, latency_ms=latency) == (
        "messages: 1 answered CA; half answered within 0.5 ms"
    )
    alike = {"count": 9, "mean": 3.0, "p50": 5, "p99": 5}
    assert said_of_messages(latency_ms=alike) == "messages: 99 % answered within 5 ms"
    beyond = {"count": 3, "mean": 40_000.0, "p50": None, "p99": None}
    assert said_of_messages(latency_ms=beyond) == "messages: half took longer than is measured"
    assert "messages" not in shown(adt=service(protocol="hl7", messages=messages()))
    assert "messages" not in shown(pacs=service())


def test_what_a_receiver_answers_does_not_steer_the_terminal() -> None:
    assert said_of_messages(by_type={"ADT^A01": {"\x1b[2J": 1}}) == "messages: 1 answered \\x1b[2J"


def test_what_the_peer_of_a_pair_serves_is_said_and_is_no_trouble() -> None:
    two = ["10.0.0.1:104", "10.0.0.2:104"]
    text = shown(pacs=service(at_peer=["10.0.0.1"]), ris=service(listen=two, at_peer=["10.0.0.2"]), web=service())
    assert "all 3 services up, 2 of them at the peer" in text
    assert "pacs  dicom  10.0.0.1:104  up  at the peer  3 open" in text
    assert "up  10.0.0.2 at the peer  3 open" in text
    assert "its service is up, at the peer" in shown(pacs=service(at_peer=["10.0.0.1"]))
    assert "its service is in trouble, at the peer" in shown(pacs=service(at_peer=["10.0.0.1"], state="degraded"))

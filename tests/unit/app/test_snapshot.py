"""The status: what follows from routes, certificates, rests and HL7 messages."""

import json
from pathlib import Path
from typing import Any

import pytest

from equipoise.app.certificates import CertificateState
from equipoise.app.nodes import NodeBook
from equipoise.app.snapshot import status_document
from equipoise.app.wiring import catalogue
from equipoise.config.loading import load
from equipoise.engines.base import LATENCY_BOUNDS_MS, Messages, NodeCount, Observation
from equipoise.health.asking import Outcome
from equipoise.plan.compile import compile_plan
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Plan

SITE = """site: general
services:
  door:
    protocol: dicom
    listen: 127.0.0.1:104
    routes:
      - {called_ae: "WL*", to: mwl}
      - {service: [store], to: pacs}
      - {service: [query], to: pacs}
  both:
    protocol: dicom
    listen: 127.0.0.1:105
    nodes: {x: {address: "127.0.0.9:104"}}
    routes: [{called_ae: "WL*", to: mwl}]
  mwl:
    protocol: dicom
    nodes: {a: {address: "127.0.0.2:104"}}
  pacs:
    protocol: dicom
    listen: 127.0.0.3:104
    nodes: {a: {address: "127.0.0.2:104"}, b: {address: "127.0.0.4:104"}}
  adt:
    protocol: hl7
    listen: 127.0.0.1:2575
    nodes: {a: {address: "127.0.0.2:2575"}}
"""


@pytest.fixture
def plan() -> Plan:
    return compile_plan(load(SITE, "site.yaml", catalogue()).site, HostFacts())


@pytest.fixture
def book(plan: Plan, tmp_path: Path) -> NodeBook:
    """Return what is known where all nodes are up."""
    book = NodeBook(tmp_path / "overrides.json")
    book.configure(plan, {}, forget=True)
    for key in book.states():
        hear(book, key, ok=True)
    return book


def hear(book: NodeBook, key: str, *, ok: bool) -> None:
    for number in range(3):
        book.heard(key, Outcome(ok=ok, reason="said so", took_ms=1.0, at_wall_s=1_900_000_000.0 + number))


def services(plan: Plan, book: NodeBook, observed: Observation | None = None, **more: Any) -> Any:
    return status_document(plan, book, observed or Observation(), more.pop("absent", ()), **more)["services"]


def test_routes_are_shown_once_each_and_in_order(plan: Plan, book: NodeBook) -> None:
    shown = services(plan, book)
    assert shown["door"]["routes"] == ["mwl", "pacs"]
    assert shown["both"]["routes"] == ["mwl"]
    assert "routes" not in shown["pacs"]
    assert shown["mwl"]["listen"] == []
    assert {name: each["state"] for name, each in shown.items()} == dict.fromkeys(shown, "up")
    assert not any(each.get("reason") for each in shown.values())


def test_a_service_without_nodes_is_as_its_routes_are(plan: Plan, book: NodeBook) -> None:
    hear(book, "pacs/b", ok=False)
    shown = services(plan, book)
    assert (shown["pacs"]["state"], shown["door"]["state"]) == ("degraded", "degraded")
    assert shown["door"]["reason"] == "its routes lead to: pacs is degraded"
    hear(book, "mwl/a", ok=False)
    shown = services(plan, book)
    assert (shown["mwl"]["state"], shown["door"]["state"]) == ("down", "degraded")
    assert shown["door"]["reason"] == "its routes lead to: mwl is down, pacs is degraded"
    hear(book, "pacs/a", ok=False)
    shown = services(plan, book)
    assert (shown["door"]["state"], shown["both"]["state"]) == ("down", "up")


def test_one_with_nodes_of_its_own_is_as_they_are(plan: Plan, book: NodeBook) -> None:
    hear(book, "both/x", ok=False)
    shown = services(plan, book)["both"]
    assert (shown["state"], shown["reason"]) == ("down", "no node takes new work")


def test_an_address_that_is_not_here_comes_before_where_routes_lead(plan: Plan, book: NodeBook) -> None:
    shown = services(plan, book, absent={"127.0.0.1"})["door"]
    assert shown["state"] == "waiting"
    assert "127.0.0.1 is not an address of this machine" in shown["reason"]
    shown = services(plan, book, absent={"127.0.0.3"})
    assert (shown["pacs"]["state"], shown["door"]["state"]) == ("waiting", "degraded")


def test_clients_of_a_route_are_shown_at_the_pool(plan: Plan, book: NodeBook) -> None:
    observed = Observation({"mwl/a": NodeCount(2, 7, 10, 20)}, {"mwl": 2, "door": 1})
    shown = services(plan, book, observed)
    assert (shown["door"]["connections"], shown["mwl"]["connections"]) == (1, 2)
    assert shown["door"]["nodes"] == {}
    assert shown["mwl"]["nodes"]["a"]["connections"] == 2


def test_a_rested_node_says_why(plan: Plan, book: NodeBook) -> None:
    observed = Observation({"pacs/a": NodeCount(rested="5 failures in 30 s")})
    shown = services(plan, book, observed)["pacs"]
    assert [shown["nodes"][name]["rested"] for name in "ab"] == ["5 failures in 30 s", None]
    assert shown["nodes"]["a"]["state"] == "up"


def test_files_of_tls_are_shown_with_their_service(plan: Plan, book: NodeBook) -> None:
    states = [
        CertificateState("pacs", "tls.cert", "/x.pem", ("pacs.example",), 1_900_000_000.0, 12),
        CertificateState("pacs", "node_tls.ca", "/y.pem", problem="/y.pem: there is no such file"),
        CertificateState("gone", "tls.cert", "/z.pem"),
    ]
    shown = services(plan, book, certificates=states)
    assert shown["pacs"]["tls"] == {
        "tls.cert": {
            "path": "/x.pem",
            "names": ["pacs.example"],
            "not_after": "2030-03-17T17:46:40.000Z",
            "days_left": 12,
        },
        "node_tls.ca": {
            "path": "/y.pem",
            "names": [],
            "not_after": None,
            "days_left": None,
            "problem": "/y.pem: there is no such file",
        },
    }
    assert "tls" not in shown["mwl"]
    assert "gone" not in shown


def test_a_node_that_its_engine_refuses_is_down_though_our_check_passes(plan: Plan, book: NodeBook) -> None:
    observed = Observation({"pacs/a": NodeCount(refused="connection refused")})
    shown = services(plan, book, observed)["pacs"]
    assert shown["nodes"]["a"]["state"] == "down"
    assert shown["nodes"]["a"]["refused"] == "connection refused"
    assert shown["nodes"]["a"]["check"]["ok"] is True
    assert (shown["state"], shown["reason"]) == ("degraded", "down: a")


def test_an_operators_word_stands_before_what_an_engine_refuses(plan: Plan, book: NodeBook) -> None:
    book.override("pacs/a", "drain", None)
    observed = Observation({"pacs/a": NodeCount(refused="connection refused")})
    assert services(plan, book, observed)["pacs"]["nodes"]["a"]["state"] == "drain"


def test_a_service_that_nobody_carries_is_down_and_one_that_lacks_something_degraded(
    plan: Plan, book: NodeBook
) -> None:
    shown = services(plan, book, Observation(unserved={"pacs": "HAProxy does not run"}, problems={"mwl": "no TLS"}))
    assert (shown["pacs"]["state"], shown["pacs"]["reason"]) == ("down", "HAProxy does not run")
    assert (shown["mwl"]["state"], shown["mwl"]["reason"]) == ("degraded", "no TLS")


def latencies(**counts: int) -> tuple[int, ...]:
    """Return the classes with so many messages in each that is named, `ms_2` or `beyond`."""
    classes = [f"ms_{bound:g}".replace(".", "_") for bound in LATENCY_BOUNDS_MS] + ["beyond"]
    assert counts.keys() <= set(classes)
    return tuple(counts.get(each, 0) for each in classes)


def messages_shown(plan: Plan, book: NodeBook, messages: Messages) -> Any:
    return services(plan, book, Observation(messages={"adt": messages}))["adt"]["messages"]


def test_messages_are_shown_for_hl7_alone(plan: Plan, book: NodeBook) -> None:
    shown = services(plan, book)
    assert shown["adt"]["messages"] == {
        "by_type": {},
        "in_flight": 0,
        "held": 0,
        "resent": 0,
        "receivers_closed": {},
        "latency_ms": {"count": 0, "mean": None, "p50": None, "p99": None},
    }
    assert [name for name, each in shown.items() if "messages" in each] == ["adt"]


def test_messages_are_shown_by_type_and_answer_in_a_fixed_order(plan: Plan, book: NodeBook) -> None:
    messages = Messages(
        by_type={"ORU^R01": {"closed": 1}, "ADT^A01": {"AE": 2, "AA": 12}},
        in_flight=1,
        held=3,
        resent=2,
        receivers_closed={"unmatched": 1, "lost": 4},
        latency_ms=latencies(ms_1=6, ms_2=7, ms_20=1),
        latency_sum_ms=28.0014,
    )
    shown = messages_shown(plan, book, messages)
    assert json.dumps(shown) == json.dumps(
        {
            "by_type": {"ADT^A01": {"AA": 12, "AE": 2}, "ORU^R01": {"closed": 1}},
            "in_flight": 1,
            "held": 3,
            "resent": 2,
            "receivers_closed": {"lost": 4, "unmatched": 1},
            "latency_ms": {"count": 14, "mean": 2.0, "p50": 2, "p99": 20},
        }
    )


@pytest.mark.parametrize(
    ("counts", "p50", "p99"),
    [
        ({"ms_0_5": 1}, 0.5, 0.5),
        ({"ms_1": 50, "ms_2": 50}, 1, 2),
        ({"ms_1": 49, "ms_2": 50}, 2, 2),
        ({"ms_1": 99, "ms_30000": 1}, 1, 1),
        ({"ms_1": 98, "ms_30000": 2}, 1, 30000),
        ({"ms_1": 98, "beyond": 2}, 1, None),
        ({"beyond": 1}, None, None),
    ],
)
def test_a_percentile_is_the_bound_within_which_so_many_were_answered(
    plan: Plan, book: NodeBook, counts: dict[str, int], p50: float | None, p99: float | None
) -> None:
    shown = messages_shown(plan, book, Messages(latency_ms=latencies(**counts)))["latency_ms"]
    assert (shown["count"], shown["p50"], shown["p99"]) == (sum(counts.values()), p50, p99)


def test_a_gateway_that_counted_no_latency_breaks_nothing(plan: Plan, book: NodeBook) -> None:
    """As from one that was started by another version and knows fewer classes, or none."""
    assert messages_shown(plan, book, Messages(latency_ms=()))["latency_ms"]["p50"] is None


def test_connections_are_those_of_senders_at_the_service_and_to_receivers_at_the_node(
    plan: Plan, book: NodeBook
) -> None:
    shown = services(plan, book, Observation({"adt/a": NodeCount(connections=2)}, {"adt": 30}))["adt"]
    assert (shown["connections"], shown["nodes"]["a"]["connections"]) == (30, 2)


def test_an_address_that_the_peer_of_a_pair_has_is_no_trouble(plan: Plan, book: NodeBook) -> None:
    absent = {"127.0.0.3", "127.0.0.1"}
    services = status_document(plan, book, Observation(), absent, standby={"127.0.0.3"})["services"]
    assert (services["pacs"]["state"], services["pacs"]["at_peer"]) == ("up", ["127.0.0.3"])
    assert (services["adt"]["state"], "at_peer" in services["adt"]) == ("waiting", False), "nobody has that one"
    hear(book, "pacs/b", ok=False)
    services = status_document(plan, book, Observation(), absent, standby=absent)["services"]
    assert services["pacs"]["state"] == "degraded", "as it would be here"
    assert services["adt"]["state"] == "up"

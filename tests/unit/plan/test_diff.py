"""Every field that changes has a line, in the keys and units of the document, and nothing else has one."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.config.base import CheckParams
from equipoise.health.checks import hl7_ack
from equipoise.plan.diff import Change, What, diff, to_text
from equipoise.plan.model import (
    CertificateFile,
    Dicom,
    Endpoint,
    Hl7,
    Layer4,
    ManagedAddress,
    Node,
    NodeTls,
    PassiveHealth,
    Persistence,
    Plan,
    ProxyProtocol,
    Route,
    Service,
    Timeouts,
    Tls,
)

NODES = tuple(
    Node(f"pacs-{letter}", f"10.0.0.{number}:104", f"10.0.0.{number}", 104, 100, None, backup=False)
    for number, letter in enumerate("abc", start=11)
)
CT = Service(
    name="ct",
    protocol="dicom",
    mode="l7_snat",
    engine="gateway",
    listen=(Endpoint("10.0.0.100", 104),),
    balance="least_connections",
    persistence=Persistence("none", 1800, 32, 64),
    health=CheckParams(),
    check="tcp",
    nodes=NODES,
    allow_from=(),
    max_connections=None,
    queue_wait_s=5,
    source_address=None,
    dicom=Dicom((), (), None, 2, 20, 30, 43200, 120, 131072),
)
PLAN = Plan("here", (CT, replace(CT, name="mr")), 1, 30, "0" * 12)


def with_service(**changed: Any) -> Plan:
    return replace(PLAN, services=(replace(CT, **changed), PLAN.services[1]))


def with_node(**changed: Any) -> Plan:
    return with_service(nodes=(replace(NODES[0], **changed), *NODES[1:]))


@pytest.mark.parametrize(
    ("new", "line"),
    [
        (replace(PLAN, site="there"), "~ site: here -> there"),
        (replace(PLAN, gateway_workers=2), "~ gateway.workers: 1 -> 2"),
        (replace(PLAN, drain_timeout_s=60), "~ drain_timeout: 30s -> 1m"),
        (replace(PLAN, services=PLAN.services[:1]),
         "- services.mr: dicom on 10.0.0.100:104, least_connections, nodes pacs-a, pacs-b, pacs-c"),
        (replace(PLAN, services=(*PLAN.services, replace(CT, name="us", nodes=NODES[:1]))),
         "+ services.us: dicom on 10.0.0.100:104, least_connections, nodes pacs-a"),
        (with_service(listen=(Endpoint("fd00::1", 104),)), "~ services.ct.listen: 10.0.0.100:104 -> [fd00::1]:104"),
        (with_service(balance="first_up"), "~ services.ct.balance: least_connections -> first_up"),
        (with_service(max_connections=5), "~ services.ct.max_connections: none -> 5"),
        (with_service(check="dicom_echo"), "~ services.ct.health.check: tcp -> dicom_echo"),
        (with_service(health=CheckParams(interval=1)), "~ services.ct.health.interval: 5s -> 1s"),
        (with_service(persistence=Persistence("source_ip", 1800, 32, 64)),
         "~ services.ct.persistence.by: none -> source_ip"),
        (with_service(dicom=replace(CT.dicom, max_associate_bytes=65536)),
         "~ services.ct.dicom.max_associate: 128 KiB -> 64 KiB"),
        (with_service(dicom=replace(CT.dicom, max_associate_bytes=131073)),
         "~ services.ct.dicom.max_associate: 131072 -> 131073"),
        (with_service(dicom=replace(CT.dicom, called_ae_allow=("A", "B*"))),
         "~ services.ct.dicom.called_ae_allow: none -> A, B*"),
        (with_service(hl7=Hl7(key="patient")), "~ services.ct.hl7.key: connection -> patient"),
        (with_service(hl7=Hl7(hold_s=0)), "~ services.ct.hl7.hold: 3s -> 0s"),
        (with_service(hl7=Hl7(max_message_bytes=1 << 20)), "~ services.ct.hl7.max_message: 256 MiB -> 1 MiB"),
        (with_service(hl7=Hl7(try_next=True)), "~ services.ct.hl7.try_next: false -> true"),
        (with_service(nodes=NODES[:2]), "- services.ct.nodes.pacs-c: 10.0.0.13:104, weight 100"),
        (with_service(nodes=(NODES[0], NODES[2], NODES[1])),
         "~ services.ct.nodes: in the order pacs-a, pacs-b, pacs-c -> in the order pacs-a, pacs-c, pacs-b"),
        (with_node(weight=50), "~ services.ct.nodes.pacs-a.weight: 100 -> 50"),
        (with_node(backup=True), "~ services.ct.nodes.pacs-a.backup: false -> true"),
        (with_node(host=None), "~ services.ct.nodes.pacs-a.host: 10.0.0.11 -> unresolved"),
        (with_node(interface="eth0"), "~ services.ct.nodes.pacs-a.interface: none -> eth0"),
        (with_node(router="10.0.0.1"), "~ services.ct.nodes.pacs-a.router: none -> 10.0.0.1"),
        (with_service(on_down="cut"), "~ services.ct.on_down: keep -> cut"),
        (with_service(layer4=Layer4(interfaces=("eth0", "eth1"))), "~ services.ct.interfaces: none -> eth0, eth1"),
        (with_service(layer4=Layer4(masquerade=True)), "~ services.ct.masquerade: false -> true"),
        (with_service(layer4=Layer4(idle_s=21600)), "~ services.ct.timeouts.idle: 3h -> 6h"),
        (replace(PLAN, addresses=(ManagedAddress("10.0.0.100", "eth0"),)),
         "+ network.manage_addresses: 10.0.0.100 on eth0"),
        (with_node(address="10.0.0.9", host="10.0.0.9", port=None, interface="eth1", router="10.0.0.1"),
         "~ services.ct.nodes.pacs-a.address: 10.0.0.11:104 -> 10.0.0.9"),
        (with_node(address="10.0.0.9", host="10.0.0.9", port=None),
         "~ services.ct.nodes.pacs-a.address: 10.0.0.11:104 -> 10.0.0.9"),
    ],
)  # fmt: skip
def test_one_change_is_one_line(new: Plan, line: str) -> None:
    assert to_text(diff(PLAN, new)) == line


def test_another_mode_is_said_with_what_a_person_can_choose_and_nothing_that_only_follows() -> None:
    nodes = tuple(replace(node, interface="eth0") for node in CT.nodes)
    served = replace(CT, protocol="tcp", engine="haproxy", timeouts=Timeouts(idle_s=43200))
    direct = replace(
        served, mode="l4_dr", engine="layer4", on_down="cut", nodes=nodes, timeouts=Timeouts(),
        layer4=Layer4(("eth0",)),
    )  # fmt: skip
    old, new = (replace(PLAN, services=(each, PLAN.services[1])) for each in (served, direct))
    assert to_text(diff(old, new)).splitlines() == [
        "~ services.ct.mode: l7_snat -> l4_dr",
        "~ services.ct.engine: haproxy -> layer4",
        "~ services.ct.on_down: keep -> cut",
        "~ services.ct.interfaces: none -> eth0",
    ]
    assert len(diff(new, old)) == 4


def test_addresses_come_move_and_go() -> None:
    at = ManagedAddress
    old = replace(PLAN, addresses=(at("10.0.0.100", "eth0"), at("10.0.0.101", "eth0")))
    new = replace(PLAN, addresses=(at("10.0.0.101", "eth1"), at("fd00::1", "eth0")))
    assert to_text(diff(old, new)).splitlines() == [
        "- network.manage_addresses: 10.0.0.100 on eth0",
        "~ network.manage_addresses: 10.0.0.101 on eth0 -> 10.0.0.101 on eth1",
        "+ network.manage_addresses: fd00::1 on eth0",
    ]
    assert [change.path for change in diff(None, new)][:3] == ["site", *["network.manage_addresses"] * 2]


def test_from_nothing_everything_is_added() -> None:
    assert [(change.path, change.what) for change in diff(None, PLAN)] == [
        ("site", What.ADD),
        ("services.ct", What.ADD),
        ("services.mr", What.ADD),
    ]


def test_the_digest_is_no_change_and_no_change_says_so() -> None:
    assert to_text(diff(PLAN, replace(PLAN, digest="f" * 12))) == "no changes"


def test_a_change_as_json() -> None:
    change = Change("services.ct.nodes.a", What.ADD, None, "10.0.0.1")
    assert change.to_json() == {"path": "services.ct.nodes.a", "what": "add", "old": None, "new": "10.0.0.1"}


def other_value(value: Any, name: str = "") -> Any:
    if name == "hsts_s":
        return 86400.0
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, ProxyProtocol):
        return ProxyProtocol(send="v2")
    if isinstance(value, PassiveHealth):
        return PassiveHealth(failures=7)
    return ("x",) if isinstance(value, tuple) else "10.0.0.9"


def changed_plans() -> list[tuple[str, Plan]]:
    """Return, for every field of every value in a plan, the plan in which that field alone is different."""
    kept: tuple[str, ...] = (
        "name",
        "nodes",
        "services",
        "digest",
        "health",
        "persistence",
        "dicom",
        "routes",
        "tls",
        "node_tls",
    )
    kept = (
        *kept,
        "reads_http",
        "always_secure",
        "timeouts",
        "http",
        "hl7",
        "layer4",
        "addresses",
        "cluster",
    )  # the first two follow from others; of the last one: test_diff_cluster.py
    plans: list[tuple[str, Plan]] = []
    for owner, put in (
        (PLAN, lambda each: each),
        (CT, lambda each: replace(PLAN, services=(each, PLAN.services[1]))),
        (CT.persistence, lambda each: with_service(persistence=each)),
        (CT.dicom, lambda each: with_service(dicom=each)),
        (CT.timeouts, lambda each: with_service(timeouts=each)),
        (CT.http, lambda each: with_service(http=each)),
        (CT.hl7, lambda each: with_service(hl7=each)),
        (CT.layer4, lambda each: with_service(layer4=each)),
        (CT.passive_health, lambda each: with_service(passive_health=each)),
        (CT.proxy_protocol, lambda each: with_service(proxy_protocol=each)),
        (NODES[0], lambda each: with_service(nodes=(each, *NODES[1:]))),
    ):
        for name in (field.name for field in fields(owner) if field.name not in kept):
            plans.append(
                (
                    f"{type(owner).__name__}.{name}",
                    put(replace(owner, **{name: other_value(getattr(owner, name), name)})),
                )
            )
    for name, value in CheckParams(port=104):
        plans.append((f"health.{name}", with_service(health=CheckParams.model_construct(**{name: other_value(value)}))))
    return plans


@pytest.mark.parametrize(("name", "new"), changed_plans(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_field_that_changes_is_named(name: str, new: Plan) -> None:
    (change,) = diff(PLAN, new)
    key = (
        name.rpartition(".")[2].removesuffix("_s").removesuffix("_bytes").replace("gateway_workers", "gateway.workers")
    )
    assert key in change.path.split(".") or change.path.endswith(key)
    assert change.old != change.new


nodes = st.lists(st.sampled_from(NODES), unique_by=lambda node: node.name).map(tuple)
services = st.builds(replace, st.just(CT), name=st.sampled_from("abc"), nodes=nodes, queue_wait_s=st.floats(0.001, 10))
plans = st.lists(services, unique_by=lambda service: service.name).map(
    lambda found: replace(PLAN, services=tuple(sorted(found, key=lambda service: service.name)))
)


@given(plans, plans)
def test_there_is_a_change_exactly_where_plans_differ(old: Plan, new: Plan) -> None:
    assert diff(old, old) == ()
    assert bool(diff(old, new)) == (old != new)


TLS = Tls("/pacs.pem", None, None, "1.2", (), "0" * 12)
NODE_TLS = NodeTls(None, "name", None, None, None, "1.2", "0" * 12)
ROUTE = Route(("WL*",), (), ("worklist", "mpps"), ("10.0.0.0/8",), "mr")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {"tls": TLS}, "+ services.ct.tls: with /pacs.pem"),
        ({"tls": TLS}, {}, "- services.ct.tls: with /pacs.pem"),
        ({"tls": TLS}, {"tls": replace(TLS, ports=(2762,))}, "~ services.ct.tls.ports: none -> 2762"),
        (
            {"tls": TLS},
            {"tls": replace(TLS, fingerprint="1" * 12)},
            "~ services.ct.tls.content of the files: 000000000000 -> 111111111111",
        ),
        ({}, {"node_tls": NODE_TLS}, "+ services.ct.node_tls: on"),
        ({"node_tls": NODE_TLS}, {}, "- services.ct.node_tls: on"),
        (
            {},
            {"routes": (ROUTE,)},
            "~ services.ct.routes: none -> called_ae WL*, service worklist or mpps, from 10.0.0.0/8 to mr",
        ),
    ],
)
def test_parts_that_come_and_go(before: dict[str, Any], after: dict[str, Any], said: str) -> None:
    assert to_text(diff(with_service(**before), with_service(**after))) == said


def test_certificates_are_shown_by_their_files() -> None:
    tls = Tls("/a.pem", None, None, "1.2", (), "0" * 12)
    more = replace(tls, more_certificates=(CertificateFile("/b.pem", "/b.key"), CertificateFile("/c.pem", None)))
    old, new = (replace(PLAN, services=(replace(CT, tls=each), PLAN.services[1])) for each in (tls, more))
    (change,) = diff(old, new)
    assert change.to_text() == "~ services.ct.tls.more_certificates: none -> /b.pem, /c.pem"


def test_the_message_of_a_check_is_not_shown() -> None:
    def checked(patient: str) -> Plan:
        message = f"MSH|^~\\&|RIS||||||ADT^A08||P|2.5\rPID|||{patient}\r"
        return with_service(check="hl7_ack", health=hl7_ack.Params(message=message))

    (change,) = diff(checked("4711"), checked("4712"))
    assert change.path == "services.ct.health.message"
    assert change.old != change.new
    assert "471" not in change.to_text()
    assert change.to_text().startswith("~ services.ct.health.message: 2 segments (")

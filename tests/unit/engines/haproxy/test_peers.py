"""What a pair of machines means for HAProxy: who tells whom, with which files."""

from dataclasses import replace

import pytest

from equipoise.engines.haproxy.artifact import Artifact
from equipoise.engines.haproxy.files import listening
from equipoise.engines.haproxy.render import render
from equipoise.plan.model import Cluster, Endpoint, Secured
from tests.unit.engines.haproxy.rendered import plan_of, text_of

STICKY = """
web:
  protocol: tcp
  listen: 10.0.0.100:443
  persistence: {by: source_ip, ttl: 30m}
  max_per_source: 5
  nodes: {a: {address: 10.0.0.11}, b: {address: 10.0.0.12}}
"""
COOKIES = """
web:
  protocol: http
  listen: 10.0.0.100
  persistence: {by: cookie, fallback: none}
  nodes: {a: {address: 10.0.0.11}}
"""
PRIMARY = Cluster(
    role="primary",
    address="10.0.0.2",
    peer="10.0.0.3",
    interface="eth0",
    advert_s=0.2,
    preempt=False,
    port=11251,
    groups=(),
    secured=Secured("/etc/own.pem", "/etc/peer.pem", "f00d"),
)
SECONDARY = replace(PRIMARY, role="secondary", address="10.0.0.3", peer="10.0.0.2")


def artifact_of(services: str, cluster: Cluster | None) -> Artifact:
    return render(replace(plan_of(services), cluster=cluster))


def section(text: str) -> list[str]:
    """Return the lines of the section, without its title and comments."""
    lines = text.partition("\npeers pair\n")[2].partition("\n\n")[0].splitlines()
    return [line.strip() for line in lines if not line.strip().startswith("#")]


def test_each_names_itself_and_the_other_one() -> None:
    tls = 'ssl crt pair-own-f00d.pem ca-file "${EQUIPOISE_HAPROXY}/certs/pair-known-f00d.pem" verify required'
    text = text_of(artifact_of(STICKY, PRIMARY))
    assert "    localpeer primary\n" in text.partition("\ndefaults\n")[0]
    assert section(text) == [
        f"bind 10.0.0.2:11252 transparent {tls}",
        f"default-server {tls}",
        "server primary",
        "server secondary 10.0.0.3:11252",
    ]
    text = text_of(artifact_of(STICKY, SECONDARY))
    assert "    localpeer secondary\n" in text
    assert [line for line in section(text) if line.startswith("server")] == [
        "server secondary",
        "server primary 10.0.0.2:11252",
    ]


def test_ipv6_has_brackets_and_leaves_ipv4_alone() -> None:
    text = text_of(artifact_of(STICKY, replace(PRIMARY, address="2001:db8::2", peer="2001:db8::3")))
    assert section(text)[0].startswith("bind [2001:db8::2]:11252 transparent v6only ssl")
    assert section(text)[-1] == "server secondary [2001:db8::3]:11252"
    assert Endpoint("2001:db8::2", 11252) in set(listening(text))


def test_clients_nodes_are_shared_and_counts_of_connections_are_not() -> None:
    tables = [line.strip() for line in text_of(artifact_of(STICKY, PRIMARY)).splitlines() if "stick-table" in line]
    assert tables == [
        "stick-table type ipv6 size 100k expire 1m store conn_cur",
        "stick-table type ipv6 size 100k expire 30m peers pair",
    ]


def test_files_are_copied_and_the_port_is_looked_at_like_those_of_services() -> None:
    artifact = artifact_of(STICKY, PRIMARY)
    assert [(bundle.name, bundle.parts) for bundle in artifact.bundles] == [
        ("certs/pair-own-f00d.pem", ("/etc/own.pem",)),
        ("certs/pair-known-f00d.pem", ("/etc/peer.pem", "/etc/own.pem")),
    ]
    assert artifact.listen == (Endpoint("10.0.0.100", 443), Endpoint("10.0.0.2", 11252))
    assert set(listening(text_of(artifact))) == set(artifact.listen)


@pytest.mark.parametrize(
    ("services", "cluster"),
    [(STICKY, None), (STICKY, replace(PRIMARY, secured=None)), (COOKIES, PRIMARY)],
    ids=["alone", "not joined yet", "cookies alone"],
)
def test_without_need_there_is_no_section(services: str, cluster: Cluster | None) -> None:
    artifact = artifact_of(services, cluster)
    assert artifact == artifact_of(services, None)
    assert "peer" not in text_of(artifact).replace("# A peer that is gone", "")


def test_a_node_has_the_same_number_whoever_else_is_there() -> None:
    fewer = STICKY.replace("a: {address: 10.0.0.11}, ", "")
    whole, part = (artifact_of(services, PRIMARY).pools[0].nodes for services in (STICKY, fewer))
    assert part == {"b": whole["b"]}
    in_turn = STICKY.replace("protocol: tcp", "protocol: tcp\n  balance: first_up")
    assert artifact_of(in_turn, PRIMARY).pools[0].nodes == {"a": 1, "b": 2}, "there the number is the place"


def test_other_certificates_are_another_structure() -> None:
    renewed = replace(PRIMARY, secured=Secured("/etc/own.pem", "/etc/peer.pem", "beef"))
    assert artifact_of(STICKY, renewed).digest != artifact_of(STICKY, PRIMARY).digest

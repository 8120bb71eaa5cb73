"""What one protocol can do and another cannot: each key without an effect is refused, with the way out."""

import pytest

from equipoise.base.errors import ConfigError
from equipoise.config.loading import load
from equipoise.config.models import Catalogue

SITE = """\
site: general-hospital
services:
  web:
    protocol: {protocol}
    listen: 10.0.0.100:{port}
    nodes: {{a: {{address: 10.0.0.11:80}}}}
"""


def problems(protocol: str, lines: str, catalogue: Catalogue, port: int = 80) -> list[str]:
    text = SITE.format(protocol=protocol, port=port) + "".join(f"    {line}\n" for line in lines.splitlines())
    try:
        load(text, "site.yaml", catalogue)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


TLS = "tls: {cert: /pki/web.pem}\n"


@pytest.mark.parametrize(
    ("protocol", "lines", "said"),
    [
        ("dicom", "persistence: {by: cookie}", "7:23: services.web.persistence.by: 'cookie' is for web browsers, a DI"),
        ("dicom", "timeouts: {connect: 1s}", "services.web.timeouts: those of DICOM stand under dicom"),
        ("dicom", "http: {hsts: 1d}", "services.web.http: has no effect: dicom is not HTTP"),
        ("dicom", "on_down: cut", "services.web.on_down: 'cut' is for the other protocols"),
        ("dicom", "tls: {cert: /a, more_certificates: [{cert: /b}]}", "more_certificates: DICOM clients name no host"),
        ("http", "dicom: {artim: 10s}", "services.web.dicom: has no effect: it is for DICOM, and this service speaks"),
        ("http", "passive_health: {failures: 3}", "passive_health: has no effect: it is for DICOM and HL7, and this"),
        ("http", "hl7: {key: patient}", "services.web.hl7: has no effect: it is for HL7, and this service speaks http"),
        ("dicom", "hl7: {hold: 1s}", "services.web.hl7: has no effect: it is for HL7, and this service speaks dic"),
        ("http", "balance: least_work", "services.web.balance: 'least_work' weighs DICOM associations; write least_co"),
        ("http", "persistence: {by: calling_ae}", "by: 'calling_ae' is a title of DICOM, http has none; use source_ip"),
        ("http", "persistence: {by: source_ip, cookie: X}", "persistence.cookie: has no effect without `by: cookie`"),
        ("http", "persistence: {same_site: none}", "persistence.same_site: browsers take `none` only together with"),
        ("http", TLS, "services.web.tls: has no effect: http is plain; write `protocol: https`"),
        ("http", "http: {hsts: 1d}", "services.web.http.hsts: has no effect: browsers heed it within TLS alone"),
        ("http", "http: {redirect_to_https: true}", "http.redirect_to_https: there is no plain port to send from"),
        ("https", TLS + "http: {redirect_to_https: true}", "http.redirect_to_https: there is no plain port to send"),
        ("https", "tls: {cert: /a, client_ca: /b, client_names: x}", "tls.client_names: is for dicom and hl7; here "),
        ("https", "persistence: {by: cookie}", "by: 'cookie' cannot be read in https that is passed through (it has n"),
        ("https", "node_tls: {verify: none}", "services.web.node_tls: has no effect: without tls, https is passed thr"),
        ("https", "timeouts: {response: 1m}", "services.web.timeouts.response: has no effect: requests are not read"),
        ("https", TLS + "node_tls: {ca: /ca.pem}", "node_tls.verify: 'name' compares host names, and '10.0.0.11:80' ("),
        ("tcp", "persistence: {by: cookie}", "'cookie' cannot be read in tcp; use source_ip"),
        ("tcp", "http: {hsts: 1d}", "services.web.http: has no effect: requests are not read in tcp"),
        ("tcp", "timeouts: {request: 5s}", "services.web.timeouts.request: has no effect"),
        ("tcp", "routes: [{from: 10.0.0.0/8, to: web}]", "services.web.routes: has no effect: it is for DICOM"),
    ],
)  # fmt: skip
def test_what_a_protocol_can_make_nothing_of(protocol: str, lines: str, said: str, catalogue: Catalogue) -> None:
    richer = Catalogue(catalogue.checks, catalogue.balances | {"least_work"})
    found = problems(protocol, lines, richer)
    assert any(said in each for each in found), found


@pytest.mark.parametrize(
    ("protocol", "lines"),
    [
        ("http", ""),
        ("http", "persistence: {cookie: PORTAL, same_site: strict}"),
        ("http", "persistence: {by: none}\ntimeouts: {request: 5s}\non_down: cut"),
        ("https", ""),
        ("https", "persistence: {by: source_ip, mask: 24}\ntimeouts: {idle: 1h}"),
        ("https", TLS + "http: {hsts: 365d, trust_forwarded: 10.0.0.0/8}\npersistence: {same_site: none}"),
        ("https", TLS + "node_tls: {ca: /ca.pem, server_name: pacs.example}"),
        ("https", "tls: {cert: /a, more_certificates: [{cert: /b, key: /c}]}"),
        ("dicomweb", "balance: source_hash\nhttp: {retry_after: 30s}"),
        ("tcp", TLS + "persistence: {by: source_ip}\nproxy_protocol: v2"),
    ],
)
def test_what_suits(protocol: str, lines: str, catalogue: Catalogue) -> None:
    richer = Catalogue(catalogue.checks, catalogue.balances | {"source_hash"})
    assert problems(protocol, lines, richer) == []


def test_redirect_with_a_plain_port_suits(catalogue: Catalogue) -> None:
    lines = "ports: [80, 443]\ntls: {cert: /a, ports: 443}\nhttp: {redirect_to_https: true}"
    text = SITE.format(protocol="https", port=80).replace(":80\n", "\n", 1)
    load(text + "".join(f"    {line}\n" for line in lines.splitlines()), "site.yaml", catalogue)


def test_tcp_needs_a_port(catalogue: Catalogue) -> None:
    text = SITE.format(protocol="tcp", port=80).replace("100:80\n", "100\n", 1)
    with pytest.raises(ConfigError, match=r"listen: '10.0.0.100' names no port, and tcp has no usual one"):
        load(text, "site.yaml", catalogue)


def test_only_dicom_is_reached_by_routes(catalogue: Catalogue) -> None:
    text = SITE.format(protocol="http", port=80).replace("    listen: 10.0.0.100:80\n", "")
    with pytest.raises(ConfigError, match="listen: missing: nobody can reach this service"):
        load(text, "site.yaml", catalogue)


def test_a_route_leads_to_dicom_alone(catalogue: Catalogue) -> None:
    text = (
        SITE.format(protocol="http", port=80)
        + """\
  door:
    protocol: dicom
    listen: 10.0.0.100
    nodes: {a: {address: 10.0.0.11}}
    routes: [{called_ae: WEB, to: web}]
"""
    )
    with pytest.raises(ConfigError, match="the service 'web' speaks http"):
        load(text, "site.yaml", catalogue)

"""What a service that speaks HL7 can be told and what not, each with the way out."""

import pytest

from equipoise.app import wiring
from equipoise.base.errors import ConfigError
from equipoise.config.loading import load
from equipoise.config.models import Catalogue
from tests.unit.config.test_suited import SITE, problems


@pytest.fixture(scope="module")
def installed() -> Catalogue:
    return wiring.catalogue()


def keyed(key: str, *lines: str) -> str:
    return "\n".join((f"hl7: {{key: {key}}}", *lines))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("dicom: {artim: 1s}", "services.web.dicom: has no effect: it is for DICOM, and this service speaks hl7; t"),
        ("routes: [{from: 10.0.0.0/8, to: web}]", "services.web.routes: has no effect: it is for DICOM"),
        ("http: {hsts: 1d}", "services.web.http: has no effect: hl7 is not HTTP; take it out"),
        ("timeouts: {connect: 1s}", "services.web.timeouts: those of HL7 stand under hl7; write them there"),
        ("passive_health: {slow_response: 5s}", "passive_health.slow_response: has no effect: an acknowledgement that"),
        ("on_down: cut", "services.web.on_down: 'cut' is for the other protocols; a message under way"),
        ("tls: {cert: /a, more_certificates: [{cert: /b}]}", "tls.more_certificates: HL7 senders name no host"),
        ("proxy_protocol: v2", "services.web.proxy_protocol: 'v2' would name one sender, and connections to receivers"),
        ("balance: least_work", "services.web.balance: 'least_work' weighs DICOM associations; write least_connecti"),
        ("persistence: {by: cookie}", "persistence.by: 'cookie' cannot be read in hl7; use source_ip"),
        ("persistence: {by: calling_ae}", "'calling_ae' is a title of DICOM, hl7 has none; use source_ip"),
        (keyed("sender", "persistence: {by: cookie}"), "read in hl7; take it out, since `hl7.key: sender` says what s"),
        (keyed("patient", "persistence: {by: calling_ae}"), "hl7 has none; take it out, since `hl7.key: patient` says"),
        (keyed("patient", "balance: round_robin"), "services.web.balance: has no effect with key: patient, whose mess"),
        (keyed("patient", "persistence: {by: source_ip}"), "by: 'source_ip' has no effect with key: patient, whose me"),
        (keyed("sender", "persistence: {by: source_ip}"), "by: 'source_ip' has no effect with key: sender, whose mess"),
        (keyed("message", "persistence: {by: source_ip}"), "by: 'source_ip' contradicts key: message, by which every"),
        ("hl7: {frame_start: 1c, frame_end: 1c}", "hl7.frame_end: '1c' and frame_start, '1c', cannot be told apart"),
        ("hl7: {frame_end: 1c 0b}", "hl7.frame_end: '1c 0b' and frame_start, '0b', cannot be told apart; write byte"),
        ("hl7: {frame_start: 0b1c0d}", "hl7.frame_end: '1c 0d' and frame_start, '0b 1c 0d', cannot be told apart"),
        ("hl7: {frame_end: 0D}", "hl7.frame_end: '0d' ends every segment, so a message would end behind its first one"),
        ("hl7: {mllp_release: 2, frame_start: '02'}", "hl7.mllp_release: release 2 has frames of its own, 0b and 1c"),
        ("hl7: {mllp_release: 2, frame_end: 1c}", "hl7.mllp_release: release 2 has frames of its own"),
        ("hl7: {frame_end: 03}\nhealth: {check: hl7_ack}", "health.frame_end: the check says '1c 0d', and hl7.fram"),
        (
            "hl7: {frame_start: 02}\nhealth: {check: all_of, checks: [{check: tcp}, {check: hl7_ack}]}",
            "health.checks.1.frame_start: the check says '0b', and hl7.frame_start of this service '02'; write `frame",
        ),
        ("hl7: {key: accession}", "hl7.key: 'accession' is not known; known here: connection, message, patient, s"),
        ("hl7: {frame_start: VT}", "hl7.frame_start: 'VT' is not 1 to 31 bytes in hexadecimal; write them like '1c 0"),
        ("hl7: {max_message: 1KiB}", "hl7.max_message: '1KiB' is out of range; at least 64 KiB"),
    ],
)  # fmt: skip
def test_what_hl7_can_make_nothing_of(lines: str, said: str, installed: Catalogue) -> None:
    found = problems("hl7", lines, installed)
    assert len(found) == 1, found
    assert said in found[0]


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "hl7: {hold: 0s, on_no_node: reject, receivers_deduplicate: true, try_next: true}",
        "hl7: {frame_start: '02', frame_end: '03'}\nhealth: {check: hl7_ack, frame_start: '02', frame_end: '03'}",
        "hl7: {frame_end: 1C}\nhealth: {check: tcp}",
        "hl7: {mllp_release: 2, frame_start: 0B, frame_end: 1c 0d}",
        "tls: {cert: /a, client_ca: /b, client_names: '*.ris.example'}\nnode_tls: {verify: none}",
        "node_tls: {ca: /ca.pem}",
        "node_tls: {ca: /ca.pem, server_name: 10.0.0.11}",
        "proxy_protocol: {accept: true}\nallow_from: 10.0.0.1/32",
        "passive_health: {failures: 3, within: 1m, rest: 5s}",
        "persistence: {by: source_ip, mask: 24}\nbalance: source_hash",
        "balance: first_up\nmax_connections: 8\nmax_per_source: 2",
        keyed("patient"),
        keyed("patient", "persistence: {by: none}"),
        keyed("sender", "balance: least_connections", "persistence: {by: none}"),
        keyed("message", "balance: round_robin"),
    ],
)
def test_what_suits_hl7(lines: str, installed: Catalogue) -> None:
    assert problems("hl7", lines, installed) == []


def test_hl7_has_a_usual_port(installed: Catalogue) -> None:
    text = SITE.format(protocol="hl7", port=80).replace(":80\n", "\n", 1)
    service = load(text, "site.yaml", installed).site.services["web"]
    assert [str(listener.port) for listener in service.listeners] == ["2575"]
    assert (service.picked_by, service.known_by) == ("round_robin", "none")


def test_no_route_leads_to_hl7(installed: Catalogue) -> None:
    text = SITE.format(protocol="hl7", port=80).replace("    listen: 10.0.0.100:80\n", "")
    with pytest.raises(ConfigError, match="listen: missing: nobody can reach this service; routes lead to dicom alone"):
        load(text, "site.yaml", installed)

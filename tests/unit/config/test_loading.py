"""From text to a site, or to all problems at once, each at its place and in our own words."""

import re
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from equipoise.base.errors import ConfigError
from equipoise.config.loading import Document, load
from equipoise.config.models import Catalogue, Site
from equipoise.config.sentences import sentence

SITE = """\
site: general-hospital
services:
  ct:
    protocol: dicom
    listen: 10.0.0.100
    nodes:
      a: {address: 10.0.0.11:104}
      b: {address: 10.0.0.12}
"""

# What pydantic says itself: it speaks of Python and of its own inputs.
LIBRARY_WORDS = re.compile(
    r"Input|Field required|Value error|Extra inputs|Tuple|pydantic|valid (dict|tuple|int)|str type"
)


def problems(text: str, catalogue: Catalogue) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, "site.yaml", catalogue)
    return [str(problem) for problem in caught.value.problems]


def service_with(lines: str) -> str:
    return SITE + "".join(f"    {line}\n" for line in lines.splitlines())


def test_the_defaults_are_those_of_the_design(catalogue: Catalogue) -> None:
    site = load(SITE, "site.yaml", catalogue).site
    service = site.services["ct"]
    assert (service.mode, service.ports, service.balance) == ("l7_snat", None, None)
    assert (service.persistence.by, service.persistence.ttl, service.persistence.mask6) == (None, 1800, 64)
    assert service.check[0] == "tcp"
    assert (service.health.interval, service.health.timeout, service.health.rise, service.health.fall) == (5, 3, 2, 3)
    assert (service.queue_wait, service.dicom.max_associate, service.dicom.idle_timeout) == (5, 131072, 43200)
    assert (site.gateway.workers, site.drain_timeout) == (1, 30)


def test_what_a_document_leaves_out_follows_from_the_protocol(catalogue: Catalogue) -> None:
    service = load(SITE, "site.yaml", catalogue).site.services["ct"]
    assert (service.picked_by, service.known_by, service.default_ports) == ("least_work", "none", (104,))


@pytest.mark.parametrize(
    ("written", "picked_by", "known_by", "ports", "reads_http"),
    [
        ("http", "least_connections", "cookie", (80,), True),
        ("https", "least_connections", "source_ip", (443,), False),
        ("https\n    tls: {cert: /pki/web.pem}", "least_connections", "cookie", (443,), True),
        ("dicomweb", "least_connections", "none", (80,), True),
        ("dicomweb\n    tls: {cert: /pki/web.pem}", "least_connections", "none", (443,), True),
        ("xds", "round_robin", "none", (17035,), True),
        ("fhir", "round_robin", "none", (80,), True),
        ("fhir\n    tls: {cert: /pki/web.pem}", "round_robin", "none", (443,), True),
        ("tcp\n    ports: 6661", "least_connections", "none", (6661,), False),
    ],
)
def test_each_protocol_brings_its_own(
    catalogue: Catalogue, written: str, picked_by: str, known_by: str, ports: tuple[int, ...], reads_http: bool
) -> None:
    service = load(SITE.replace("dicom", written), "site.yaml", catalogue).site.services["ct"]
    assert (service.picked_by, service.known_by, service.default_ports) == (picked_by, known_by, ports)
    assert service.reads_http is reads_http
    assert [listener.port for listener in service.listeners] == list(ports)


def test_titles_are_the_text_as_written(catalogue: Catalogue) -> None:
    text = service_with("dicom: {called_ae_allow: [1E5, NO, 007], node_called_ae: 0x10, calling_ae_allow: CT*}")
    dicom = load(text, "f", catalogue).site.services["ct"].dicom
    assert dicom.called_ae_allow == ("1E5", "NO", "007")
    assert (dicom.node_called_ae, dicom.calling_ae_allow) == ("0x10", ("CT*",))


def test_the_check_brings_its_own_settings(catalogue: Catalogue) -> None:
    text = service_with("health: {check: dicom_echo, called_ae: PACS, interval: 1s}")
    name, params = load(text, "f", catalogue).site.services["ct"].check
    assert name == "dicom_echo"
    assert type(params) is catalogue.checks["dicom_echo"]
    assert dict(params)["called_ae"] == "PACS"


def test_addresses_times_ports(catalogue: Catalogue) -> None:
    text = SITE.replace("10.0.0.100", "[10.0.0.100, '[2001:db8::1]:2104']") + "    ports: [104, 11112]\n"
    listeners = load(text, "f", catalogue).site.services["ct"].listeners
    assert [listener[:2] for listener in listeners] == [
        ("10.0.0.100", 104),
        ("10.0.0.100", 11112),
        ("2001:db8::1", 2104),
    ]


def test_a_document_knows_where_things_stand(catalogue: Catalogue) -> None:
    document: Document = load(SITE, "site.yaml", catalogue)
    assert document.place("services", "ct", "nodes", "a", "address") == (7, 20)
    assert document.place("services", "ct", "balance") == (4, 5)
    assert str(document.problem("does not resolve", "services", "ct", "nodes", "b", "address")) == (
        "site.yaml:8:20: services.ct.nodes.b.address: does not resolve"
    )


def test_the_example_of_the_style_guide(catalogue: Catalogue) -> None:
    place = "site.yaml:11:18: services.ct.health.called_ae"
    assert problems(service_with("health:\n  check: dicom_echo\n  called_ae: PACS/Bé"), catalogue) == [
        f"{place}: 'PACS/Bé' contains 'é', not allowed in an AE title; try 'PACS/B_'"
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("balence: x", "site.yaml:9:5: services.ct.balence: unknown key; did you mean 'balance'?"),
        ("zzz: x", "site.yaml:9:5: services.ct.zzz: unknown key; known here: allow_from, balance,"),
        ("timeouts: {}", "9:15: services.ct.timeouts: those of DICOM stand under dicom; write them there"),
        ("tls: {}", "9:10: services.ct.tls.cert: missing, and it has no default; add it"),
        ("tls: {cert: a.pem}", "9:17: services.ct.tls.cert: 'a.pem' is not a whole path; write it from the root"),
        ("tls: {cert: /a, min_version: 1.0}", "tls.min_version: '1.0' is broken and refused by BCP 195"),
        ("tls: {cert: /a, ports: 2762}", "services.ct.tls.ports: 2762 is not a port of this service, which has 104"),
        ("node_tls: {key: /a}", "services.ct.node_tls.key: belongs to a certificate; add cert, or leave the key out"),
        ("tls: {cert: /a, client_names: x}", "services.ct.tls.client_names: clients are asked for no certificate; add"),
        ("tls: {cert: /a, client_ca: /b, client_names: ' '}", "tls.client_names: ' ' is no name of a certificate"),
        ('tls: {cert: "/a\\0b"}', "tls.cert: '/a\\x00b' contains '\\x00', a control character"),
        ("node_tls: {verify: authority}", "services.ct.node_tls.verify: 'authority' without ca lets in whoever has a"),
        ("node_tls: {verify: none, ca: /a}", "services.ct.node_tls.ca: has no effect with verify: none; take one of"),
        ("node_tls: {verify: none, server_name: a}", "services.ct.node_tls.server_name: has no effect with verify: no"),
        ("node_tls: {verify: nam}", "services.ct.node_tls.verify: 'nam' is not known; did you mean 'name'?"),
        ("node_tls: {server_name: a b}", "node_tls.server_name: 'a b' is neither an IP address nor a host name"),
        ("proxy_protocol: v3", "9:21: services.ct.proxy_protocol: 'v3' is not known; known here: none, v1, v2"),
        ("proxy_protocol: {accept: true}", "services.ct.proxy_protocol.accept: anybody could claim to be anyone"),
        ("routes: [{to: ct}]", "services.ct.routes.0: has no condition; add called_ae, calling_ae, service or from"),
        ("routes: [{called_ae: A, to: cr}]", "services.ct.routes.0.to: there is no service 'cr'; known here: ct"),
        ("routes: [{form: 10.0.0.0/8, to: ct}]", "services.ct.routes.0.form: unknown key; did you mean 'from'?"),
        ("routes: [{service: echo, to: ct}]", "routes.0.service: 'echo' is not known; known here: commitment, mpps"),
        ("slow_start: 1", "9:17: services.ct.slow_start: '1' is not a number with one of the units"),
        ("passive_health: {failures: -1}", "passive_health.failures: '-1' is out of range; at least 0"),
        ("mode: l4_dsr", "9:11: services.ct.mode: 'l4_dsr' is not known; did you mean 'l4_dr'?"),
        ("balance: least_conections", "'least_conections' is not known; did you mean 'least_connections'?"),
        ("mode:", "9:5: services.ct.mode: has no value; write one, or leave the key out"),
        ("ports: []", "9:12: services.ct.ports: has too few entries; at least 1 is needed"),
        ("ports: [104, x]", "9:18: services.ct.ports.1: 'x' is not a whole number"),
        ("ports: {a: 1}", "9:12: services.ct.ports: a mapping of keys is not a list; write [a, b]"),
        ("ports: 70000", "9:12: services.ct.ports: '70000' is out of range; at most 65535"),
        ("max_connections: 1.5", "services.ct.max_connections: '1.5' is not a whole number"),
        ("max_connections: 0", "services.ct.max_connections: '0' is out of range; at least 1"),
        ("max_connections: 99999999999999999999999999", "is out of range; at most 1000000"),
        ("queue_wait: 5", "services.ct.queue_wait: '5' is not a number with one of the units ms, s, m, h, d"),
        ("queue_wait: 0s", "services.ct.queue_wait: '0s' is out of range; it must be more than 0"),
        ("queue_wait: 9999d", "services.ct.queue_wait: '9999d' is out of range; at most 366d"),
        ("queue_wait: [5s]", "services.ct.queue_wait: a list is not one value, such as 5s"),
        ("persistence: {by: cookie}", "9:23: services.ct.persistence.by: 'cookie' is for web browsers, a DICOM associ"),
        ("persistence: source_ip", "9:18: services.ct.persistence: 'source_ip' is not a mapping of keys"),
        ("persistence: {mask: 33}", "9:25: services.ct.persistence.mask: '33' is out of range; at most 32"),
        ("health: {check: dcm_echo}", "9:21: services.ct.health.check: 'dcm_echo' is not a known check; did you mean"),
        ("health: {check: icmp}", "'icmp' is not a known check; known here: dicom_echo, tcp"),
        ("health: {interval: 5s}", "9:13: services.ct.health: names no check; add 'check', one of dicom_echo, tcp"),
        ("health: {check: }", "services.ct.health.check: names no check; add 'check'"),
        ("health: tcp", "9:13: services.ct.health: 'tcp' is not a mapping of keys"),
        ("health: {check: tcp, called_ae: X}", "9:26: services.ct.health.called_ae: unknown key; known here: check,"),
        ("health: {check: dicom_echo, caled_ae: X}", "services.ct.health.caled_ae: unknown key; did you mean 'called_"),
        ("health: {check: tcp, rise: 0}", "9:32: services.ct.health.rise: '0' is out of range; at least 1"),
        ("health: {check: tcp, interval: 10ms}", "services.ct.health.interval: 10ms is out of range; write 100ms to 1"),
        ("health: {check: tcp, interval: 1s, timeout: 20s}", "9:49: services.ct.health.timeout: 20s is more than 10 t"),
        ("health: {check: tcp, source_address: x}", "services.ct.health.source_address: 'x' is not an IP address"),
        ("health: {check: tcp, source_address: fd00::1}", "health.source_address: 'fd00::1' is IPv6, the node 'a' is"),
        ("source_address: fd00::1", "9:21: services.ct.source_address: 'fd00::1' is IPv6, the node 'a' is not"),
        ("dicom: {replay: store}", "9:13: services.ct.dicom.replay: comes with a later version; for now,"),
        ("dicom: {max_associate: 2MiB}", "services.ct.dicom.max_associate: '2MiB' is out of range; at most 1 MiB"),
        ("dicom: {max_associate: 1KiB}", "services.ct.dicom.max_associate: '1KiB' is out of range; at least 4 KiB"),
        ("dicom: {setup_timeout: 1s}", "dicom.setup_timeout: 1s is shorter than connect_timeout, 2s"),
        ("dicom: {called_ae_allow: [A, {b: c}]}", "9:34: services.ct.dicom.called_ae_allow.1: a mapping of keys is no"),
        ("allow_from: 10.1.0.0/33", "9:17: services.ct.allow_from: '10.1.0.0/33' is not a network"),
        ("protocol: dicom", "9:5: services.ct.protocol: written twice, in lines 4 and 9"),
    ],
)  # fmt: skip
def test_one_wrong_line_of_a_service(line: str, said: str, catalogue: Catalogue) -> None:
    found = problems(service_with(line), catalogue)
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("site: general-hospital", "site: a b", "site.yaml:1:7: site: 'a b' is not a name"),
        ("site: general-hospital\n", "", "site.yaml:1:1: site: missing, and it has no default; add it"),
        ("    protocol: dicom\n", "", "site.yaml:4:5: services.ct.protocol: missing"),
        ("protocol: dicom", "protocol: hl8", "'hl8' is not known; did you mean 'hl7'?"),
        ("protocol: dicom", "protocol: smtp", "'smtp' is not known; known here: dicom"),
        ("  ct:", "  c t:", "site.yaml:3:3: services.c t: 'c t' is not a name"),
        ("      a:", "      a/b:", "site.yaml:7:7: services.ct.nodes.a/b: 'a/b' is not a name"),
        ("services:", "gateway: {workers: 65}\nservices:", "2:20: gateway.workers: '65' is out of range; at most 64"),
        ("{address: 10.0.0.12}", "{address: 10.0.0.12, backup: maybe}", "8:39: services.ct.nodes.b.backup: 'maybe' is"),
        ("{address: 10.0.0.12}", "{address: 10.0.0.12, weight: 257}", "nodes.b.weight: '257' is out of range; at most"),
        ("{address: 10.0.0.12}", "{weight: 5}", "8:10: services.ct.nodes.b.address: missing"),
        ("{address: 10.0.0.12}", "", "8:7: services.ct.nodes.b: has no value"),
        ("{address: 10.0.0.12}", "{address: 10.0.0.100}", "8:20: services.ct.nodes.b.address: '10.0.0.100' is where t"),
        ("10.0.0.11:104", "10.0.0.100:104", "7:20: services.ct.nodes.a.address: '10.0.0.100:104' is where this servic"),
        ("listen: 10.0.0.100", "listen: [10.0.0.100, 0.0.0.0]", "5:26: services.ct.listen.1: port 104 of 0.0.0.0 is t"),
        ("listen: 10.0.0.100", "listen: 10.0.0.100:104\n    ports: [104]", "6:12: services.ct.ports: has no effect"),
        ("listen: 10.0.0.100", "listen: 10.0.0.100\n    ports: [104, 104]", "5:13: services.ct.listen: port 104 of 10"),
        ("listen: 10.0.0.100", "listen: pacs.example", "5:13: services.ct.listen: 'pacs.example' is not an IP address"),
    ],
)  # fmt: skip
def test_one_wrong_place_elsewhere(old: str, new: str, said: str, catalogue: Catalogue) -> None:
    assert old in SITE
    found = problems(SITE.replace(old, new), catalogue)
    assert len(found) == 1
    assert said in found[0]


def test_a_pool_of_backups_alone_is_refused(catalogue: Catalogue) -> None:
    text = SITE.replace(":104}", ":104, backup: true}").replace("12}", "12, backup: yes}")
    (found,) = problems(text, catalogue)
    assert found.startswith("site.yaml:7:7: services.ct.nodes: all nodes are backups, so nothing is backed up; leave")


@pytest.mark.parametrize("nodes", ["{}", "[]", "~"])
def test_a_pool_without_nodes_is_refused(nodes: str, catalogue: Catalogue) -> None:
    head = SITE[: SITE.index("    nodes:")]
    (found,) = problems(f"{head}    nodes: {nodes}\n", catalogue)
    assert found.startswith("site.yaml:6:12: services.ct.nodes: ")


def test_a_port_used_by_two_services(catalogue: Catalogue) -> None:
    other = SITE[SITE.index("  ct:") :].replace("  ct:", "  mr:")
    (found,) = problems(SITE + other, catalogue)
    assert found.startswith(
        "site.yaml:11:13: services.mr.listen: port 104 of 10.0.0.100 is taken by service 'ct', which"
    )
    load(SITE + other.replace("10.0.0.100", "'::'"), "f", catalogue)  # `::` takes IPv6 alone


CAREFUL = """site: x
services:
  front:
    protocol: dicom
    listen: 10.0.0.100
    ports: [104, 2762]
    tls: {cert: /a, client_ca: /ca}
    routes: [{called_ae: A, to: careful}]
    nodes: {a: {address: 10.0.0.11:104}}
  careful:
    protocol: dicom
    listen: 10.0.0.101
    tls: {cert: /a, client_ca: /ca}
    nodes: {b: {address: 10.0.0.12:104}}
"""


@pytest.mark.parametrize(
    ("old", "new", "refused"),
    [
        ("x", "y", False),
        ("2762]\n    tls: {cert: /a, client_ca: /ca}", "2762]", True),
        ("2762]\n    tls: {cert: /a, client_ca: /ca}", "2762]\n    tls: {cert: /a}", True),
        ("2762]\n    tls: {cert: /a, ", "2762]\n    tls: {cert: /a, ports: 2762, ", True),
        ("101\n    tls: {cert: /a, client_ca: /ca}", "101", False),
        ("    listen: 10.0.0.101\n    tls: {cert: /a, client_ca: /ca}\n", "", False),
    ],
)
def test_a_route_is_no_way_around_a_certificate(old: str, new: str, refused: bool, catalogue: Catalogue) -> None:
    assert old in CAREFUL
    text = CAREFUL.replace(old, new, 1)
    if not refused:
        load(text, "f", catalogue)
        return
    (found,) = problems(text, catalogue)
    assert "services.front.routes.0.to: 'careful' lets in only clients with a certificate (tls.client_ca)" in found


def test_a_node_without_a_port_behind_ports_of_both_kinds(catalogue: Catalogue) -> None:
    text = CAREFUL.replace("client_ca: /ca", "ports: 2762", 1).replace(", client_ca: /ca", "")
    (found,) = problems(text.replace("10.0.0.11:104", "10.0.0.11"), catalogue)
    assert "services.front.nodes.a.address: '10.0.0.11' names no port" in found
    assert "of those of 'front' some speak TLS and some do not (tls.ports); write ADDRESS:PORT" in found


def test_a_route_from_mixed_ports_needs_the_port_of_its_targets_nodes(catalogue: Catalogue) -> None:
    mixed = CAREFUL.replace("client_ca: /ca", "ports: 2762", 1).replace(", client_ca: /ca", "")
    load(mixed, "f", catalogue)
    (found,) = problems(mixed.replace("10.0.0.12:104", "10.0.0.12"), catalogue)
    assert "services.careful.nodes.b.address: '10.0.0.12' names no port, so it is called at the one that" in found


TWO_SERVICES = """site: s
services:
  front:
    protocol: dicom
    listen: {front}
    routes: [{{service: store, to: back}}]
    nodes: {{a: {{address: 10.0.0.11:104}}}}
  back: {{protocol: dicom, {listen}nodes: {{b: {{address: '{node}'}}}}}}
"""


@pytest.mark.parametrize(
    ("front", "listen", "node"),
    [
        ("127.0.0.1:11112", "", "127.0.0.1:11112"),
        ("0.0.0.0:11112", "", "127.0.0.1:11112"),
        ("127.0.0.1:11112", "", "127.0.0.1"),  # called at the port that the client came to: the front's
        ("10.0.0.100:104", "listen: 10.0.0.101, ", "10.0.0.100"),
        ("10.0.0.100:11112", "listen: 10.0.0.101, ", "10.0.0.100"),  # through the route
    ],
)
def test_a_node_where_another_service_listens_is_refused(
    front: str, listen: str, node: str, catalogue: Catalogue
) -> None:
    """One association would call itself, through the route, until no descriptor is left."""
    found = problems(TWO_SERVICES.format(front=front, listen=listen, node=node), catalogue)
    (loop,) = [said for said in found if "a loop" in said]
    assert f"services.back.nodes.b.address: '{node}' is where service 'front' listens, a loop or a detour" in loop
    assert "write the real server's address, or a route to that service" in loop


@pytest.mark.parametrize("node", ["10.0.0.100:105", "10.0.0.102:104", "10.0.0.12", "127.0.0.1:104"])
def test_a_node_beside_the_services_is_not(node: str, catalogue: Catalogue) -> None:
    text = TWO_SERVICES.format(front="10.0.0.100:104", listen="listen: 10.0.0.101, ", node=node)
    assert load(text, "site.yaml", catalogue).site.services["back"].nodes["b"].address == node


def test_all_problems_at_once_in_the_order_of_the_text(catalogue: Catalogue) -> None:
    other = SITE[SITE.index("  ct:") :]
    text = service_with("zzz: 1\nbalance: x") + other.replace("  ct:", "  mr:") + other.replace("  ct:", "  us:")
    found = problems(text, catalogue)
    assert [line.split(": ")[0] for line in found] == ["site.yaml:9:5", "site.yaml:10:14", "site.yaml:19:13"]
    assert "taken by service 'mr'" in found[2]  # though `ct` is wrong, the rest is checked against each other


def test_services_and_nodes_may_be_called_like_keys(catalogue: Catalogue) -> None:
    text = SITE.replace("  ct:", "  dicom:").replace("      a:", "      listen:")
    assert "dicom" in load(text, "f", catalogue).site.services
    (found,) = problems(text + "    artim: 5s\n", catalogue)
    assert "unknown key; known here: allow_from" in found


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "just text", "~"])
def test_what_is_no_mapping_says_how_to_start(text: str, catalogue: Catalogue) -> None:
    assert problems(text, catalogue) == [
        "site.yaml:1:1: the document is not a mapping of keys; it starts with 'site: NAME' and 'services:'"
    ]


def test_thousands_of_problems_are_cut(catalogue: Catalogue) -> None:
    found = problems(SITE + "".join(f"k{i}: 1\n" for i in range(1000)), catalogue)
    assert len(found) == 101
    assert found[-1] == "site.yaml: and 900 more problems; mend these first"


def test_a_long_value_is_not_repeated_whole(catalogue: Catalogue) -> None:
    (found,) = problems(service_with(f"source_address: {'x' * 4000}"), catalogue)
    assert len(found) < 300


CONTEXT = {"error": "it is odd", "min_length": 1, "max_length": 2, "pattern": "^a$", "expected": "'a' or 'b'"}
CONTEXT |= {"multiple_of": 2, "gt": 0, "ge": 1, "lt": 5, "le": 4}


@pytest.mark.parametrize("kind", get_args(ErrorType))
@pytest.mark.parametrize("value", [None, "x", ["x"], {"x": "y"}])
def test_every_kind_of_error_has_a_sentence_of_ours(kind: Any, value: object) -> None:
    path = ("services", "a", "health") if kind.startswith("union_tag") else ("services", "a", "x")
    said = sentence(ErrorDetails(type=kind, loc=path, msg="Input should be", input=value, ctx=CONTEXT), Site)
    assert said
    assert not LIBRARY_WORDS.search(said)


WORDS = ["", "~", "x", "5", "5s", "-1", "1e9", "yes", "dicom", "tcp", "dicom_echo", "10.0.0.1", "64KiB", "é"]
INNER_KEYS = ["a", "check", "address", "weight", "by", "artim", "port", "rise"]
SERVICE_KEYS = ["protocol", "mode", "listen", "ports", "balance", "persistence", "health", "nodes", "allow_from"]
SERVICE_KEYS += ["max_connections", "queue_wait", "source_address", "dicom", "tls", "odd"]
TOP_KEYS = ["site", "gateway", "drain_timeout", "x"]


def mapping(pairs: dict[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {value or '~'}" for key, value in pairs.items()) + "}"


def one_deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    lists = st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(item or '~' for item in items)}]")
    return lists | st.dictionaries(st.sampled_from(INNER_KEYS), inner, max_size=3).map(mapping)


VALUES = st.recursive(st.sampled_from(WORDS), one_deeper, max_leaves=8)


@settings(max_examples=150, deadline=None)
@given(
    top=st.dictionaries(st.sampled_from(TOP_KEYS), VALUES),
    entries=st.dictionaries(st.sampled_from(SERVICE_KEYS), VALUES),
)
def test_any_values_are_refused_in_our_words(
    top: dict[str, str], entries: dict[str, str], catalogue: Catalogue
) -> None:
    text = "".join(f"{key}: {value}\n" for key, value in top.items()) + "services:\n  s:\n"
    text += "".join(f"    {key}: {value}\n" for key, value in entries.items())  # never a whole service: no node fits
    with pytest.raises(ConfigError) as caught:
        load(text, "site.yaml", catalogue)
    assert not LIBRARY_WORDS.search(str(caught.value))
    assert all(problem.line and problem.path for problem in caught.value.problems)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_taken_or_refused(catalogue: Catalogue, text: str) -> None:
    with pytest.raises(ConfigError):
        load(text, "f", catalogue)

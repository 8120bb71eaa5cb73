"""What a service that the kernel carries can be told and what not, each with the way out."""

from itertools import product

import pytest

from equipoise.app import wiring
from equipoise.base.errors import ConfigError
from equipoise.config.loading import load
from equipoise.config.models import Catalogue

SITE = """\
site: general-hospital
services:
  pacs:
    protocol: {protocol}
    mode: {mode}
{lines}"""
MODES = ("l4_dr", "l4_nat")
LISTEN = "listen: 10.0.0.100"
POOL = f"{LISTEN}\nnodes: {{a: {{address: 10.0.0.11}}, b: {{address: 10.0.0.12}}}}"


@pytest.fixture(scope="module")
def installed() -> Catalogue:
    return wiring.catalogue()


def said_of(text: str, catalogue: Catalogue) -> list[str]:
    try:
        load(text, "site.yaml", catalogue)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def problems(mode: str, lines: str, catalogue: Catalogue, protocol: str = "dicom") -> list[str]:
    indented = "".join(f"    {line}\n" for line in lines.splitlines())
    return said_of(SITE.format(protocol=protocol, mode=mode, lines=indented), catalogue)


def one(found: list[str]) -> str:
    assert len(found) == 1, found
    return found[0]


def of_both_modes(lines: list[str], protocols: tuple[str, ...] = ("dicom",)) -> str:
    """Return one document with a service for each of these, in each mode: to read one takes a while."""
    cases = [(mode, each, protocol) for mode in MODES for each in lines for protocol in protocols]
    services = [
        SITE.format(protocol=protocol, mode=mode, lines="".join(f"    {line}\n" for line in each.splitlines()))
        .partition("services:\n")[2]
        .replace("  pacs:", f"  s{number}-{mode}:")
        .replace("10.0.0.100", f"10.1.{number}.1:80")
        for number, (mode, each, protocol) in enumerate(cases)
    ]
    return "site: here\nservices:\n" + "".join(services)


def test_every_protocol_can_be_carried_by_the_kernel(installed: Catalogue) -> None:
    protocols = ("dicom", "hl7", "http", "https", "dicomweb", "xds", "fhir", "tcp")
    assert said_of(of_both_modes([POOL], protocols), installed) == []


ONLY_A_RELAY = [
    (
        "tls: {cert: /a}",
        "pacs.tls: has no effect in MODE: TLS goes through to the nodes, which have the certificates",
    ),
    ("tls: {cert: /a, ports: 9}", "pacs.tls: has no effect in MODE"),
    ("tls: {cert: /a, client_names: x}", "pacs.tls: has no effect in MODE"),
    (
        "node_tls: {ca: /a}",
        "pacs.node_tls: has no effect in MODE: TLS goes through from the client as it is; take it",
    ),
    ("proxy_protocol: v2", "pacs.proxy_protocol: has no effect in MODE: connections go through"),
    (
        "routes: [{called_ae: A, to: pacs}]",
        "pacs.routes: has no effect in MODE: the kernel passes packets on and re",
    ),
    ("routes: [{to: nobody}]", "pacs.routes: has no effect in MODE"),
    ("passive_health: {failures: 3}", "pacs.passive_health: has no effect in MODE: the kernel passes packets on"),
    ("http: {hsts: 1d}", "pacs.http: has no effect in MODE: the kernel passes"),
    (
        "dicom: {artim: 1s}",
        "pacs.dicom: has no effect in MODE: the kernel passes packets on and reads nothing of wha",
    ),
    ("dicom: {setup_timeout: 1s}", "pacs.dicom: has no effect in MODE"),
    ("hl7: {key: patient}", "pacs.hl7: has no effect in MODE: the kernel passes"),
    ("hl7: {frame_start: 02, mllp_release: 2}", "pacs.hl7: has no effect in MODE: the kernel passes"),
    (
        "queue_wait: 1s",
        "pacs.queue_wait: has no effect in MODE: the kernel makes nobody wait and counts no connecti",
    ),
    ("max_connections: 9", "pacs.max_connections: has no effect in MODE: the kernel makes nobody wait"),
    ("max_per_source: 9", "pacs.max_per_source: has no effect in MODE: the kernel makes nobody wait"),
    ("timeouts: {connect: 1s}", "pacs.timeouts.connect: has no effect in MODE: the kernel passes packets on"),
    (
        "balance: least_work",
        ("pacs.balance: 'least_work' weighs what DICOM associations move, unseen in MODE; write least_connections"),
    ),
    (
        "persistence: {by: calling_ae}",
        "persistence.by: 'calling_ae' cannot be read in MODE: the kernel passes packet",
    ),
    (
        "persistence: {by: cookie}",
        "persistence.by: 'cookie' cannot be read in MODE: the kernel passes packets on an",
    ),
    ("persistence: {by: cookie, cookie: A}", "what is said; use source_ip, or write `mode: l7_snat`"),
    (
        "persistence: {by: source_ip, fallback: none}",
        "persistence.fallback: has no effect in MODE, where clients are",
    ),
    ("persistence: {cookie: A}", "pacs.persistence.cookie: has no effect in MODE, where clients are known by none"),
    (
        "persistence: {by: source_ip, same_site: lax}",
        ("persistence.same_site: has no effect in MODE, where clients are known by source_ip; take it out"),
    ),
]


def test_what_only_a_relay_can_do_is_refused(installed: Catalogue) -> None:
    found = said_of(of_both_modes([f"{POOL}\n{lines}" for lines, _ in ONLY_A_RELAY]), installed)
    for number, (mode, (lines, said)) in enumerate(product(MODES, ONLY_A_RELAY)):
        of_this = [problem for problem in found if f"services.s{number}-{mode}." in problem]
        assert said.replace("pacs.", "").replace("MODE", mode) in one(of_this), lines
    assert len(found) == 2 * len(ONLY_A_RELAY)


@pytest.mark.parametrize("protocol", ["hl7", "http", "tcp"])
def test_the_rules_of_what_is_read_do_not_apply(protocol: str, installed: Catalogue) -> None:
    lines = (
        "listen: 10.0.0.100:80\non_down: cut\nbalance: round_robin\npersistence: {by: source_ip, ttl: 1h, mask: 24}\n"
        "slow_start: 10s\nallow_from: 10.0.0.0/8\ntimeouts: {idle: 6h}\nhealth: {check: tcp, port: 8080, rise: 1}\n"
        "nodes: {a: {address: 10.0.0.11, weight: 3}, b: {address: 10.0.0.12, backup: true}}"
    )
    assert problems("l4_dr", lines, installed, protocol) == []
    assert problems("l4_dr", lines.replace("on_down: cut", "on_down: keep"), installed, "dicom") == []


def test_a_check_has_its_own_frames(installed: Catalogue) -> None:
    lines = f"{POOL}\nhealth: {{check: hl7_ack, frame_start: '02', frame_end: '03'}}"
    assert problems("l4_nat", lines, installed, "hl7") == []


@pytest.mark.parametrize(
    ("mode", "lines", "said"),
    [
        ("l4_dr", LISTEN, "pacs.nodes: has no node, so there is nobody to pass packets to in l4_dr; add a node"),
        ("l4_nat", LISTEN, "pacs.nodes: has no node, so there is nobody to pass packets to in l4_nat; add a node"),
        (
            "l4_dr",
            POOL.partition("\n")[2],
            "pacs.listen: missing: in l4_dr clients come to an address, and no route leads",
        ),
        (
            "l4_dr",
            POOL.replace("10.0.0.100", "0.0.0.0"),
            ("6:13: services.pacs.listen: '0.0.0.0' means every address, and l4_dr takes over"),
        ),
        (
            "l4_nat",
            POOL.replace("10.0.0.100", "127.0.0.9"),
            "pacs.listen: '127.0.0.9' is loopback, and l4_nat carries only what comes in from a network",
        ),
        (
            "l4_nat",
            POOL.replace("10.0.0.100", "0.0.0.0"),
            "pacs.listen: '0.0.0.0' means every address, and l4_nat takes o",
        ),
        (
            "l4_dr",
            POOL.replace("10.0.0.100", "[10.0.0.100, '2001:db8::1']"),
            (
                "pacs.listen.1: '2001:db8::1' is IPv6, and "
                "'10.0.0.100' before it IPv4: in l4_dr a service is of one family; make a second service"
            ),
        ),
        ("l4_nat", POOL.replace("10.0.0.100", "[10.0.0.100, '2001:db8::1']"), "listen.1: '2001:db8::1' is IPv6"),
        (
            "l4_nat",
            POOL.replace("10.0.0.12", "'2001:db8::12'"),
            (
                "pacs.nodes.b.address: '2001:db8::12' is IPv6, and clients "
                "come to '10.0.0.100', IPv4: in l4_nat packets keep their family; write the node's IPv4 address, or"
            ),
        ),
        ("l4_dr", POOL.replace("10.0.0.12", "'2001:db8::12'"), "pacs.nodes.b.address: '2001:db8::12' is IPv6"),
        (
            "l4_dr",
            POOL.replace("10.0.0.12", "10.0.0.12:11112"),
            (
                "pacs.nodes.b.address: '10.0.0.12:11112' names the port 11112, "
                "and clients come to 104: l4_dr leaves ports as they are; write the address alone, or 11112 as the onl"
            ),
        ),
        (
            "l4_dr",
            POOL.replace("10.0.0.12", "10.0.0.12:104") + "\nports: [104, 11112]",
            ("names the port 104, and clients come to 104, 11112: l4_dr leaves ports"),
        ),
        (
            "l4_dr",
            POOL.replace("10.0.0.12", "10.0.0.11"),
            "pacs.nodes.b.address: '10.0.0.11' is the address of node 'a' too: ",
        ),
        (
            "l4_dr",
            POOL.replace("10.0.0.12", "Pacs").replace("10.0.0.11", "pacs:104"),
            "'Pacs' is the address of node 'a' too",
        ),
        (
            "l4_dr",
            POOL.replace("address: 10.0.0.12", "address: 10.0.0.12, max_connections: 5"),
            (
                "nodes.b.max_connections: 5 "
                "cannot be held in l4_dr, where the ends of connections do not pass here; take it out, or write `mod"
            ),
        ),
        (
            "l4_dr",
            POOL + "\nmasquerade: true",
            "pacs.masquerade: has no effect in l4_dr, where nodes answer clients directly",
        ),
        ("l4_dr", POOL + "\nmasquerade: false", "pacs.masquerade: has no effect in l4_dr"),
        (
            "l7_snat",
            POOL + "\nmasquerade: true",
            ("pacs.masquerade: has no effect in l7_snat, where nodes see this machine's address anyway; take it out"),
        ),
        (
            "l4_dr",
            POOL + "\nsource_address: 10.0.0.5",
            (
                "pacs.source_address: '10.0.0.5' has no effect in l4_dr: nodes see the "
                "client's own address; take it out, or write it as health.source_address"
            ),
        ),
        (
            "l4_nat",
            POOL + "\nsource_address: 10.0.0.5",
            (
                "pacs.source_address: '10.0.0.5' has no effect in l4_nat without "
                "masquerade: nodes see the client's own address; add `masquerade: true`, or take it out"
            ),
        ),
        (
            "l4_nat",
            POOL + "\ntimeouts: {idle: 6h}",
            "pacs.timeouts.idle: has no effect in l4_nat: the kernel's connection track",
        ),
        ("l4_nat", POOL + "\nports: []", "pacs.ports: has too few entries"),
        (
            "l4_dr",
            POOL.replace("10.0.0.12", "10.0.0.100"),
            ("pacs.nodes.b.address: '10.0.0.100' is where this service itself listens, a loop"),
        ),
        (
            "l4_dr",
            POOL.replace("10.0.0.11}", "10.0.0.11, backup: true}").replace("10.0.0.12}", "10.0.0.12, backup: true}"),
            "pacs.nodes: all nodes are backups",
        ),
    ],
)
def test_what_layer_4_can_make_nothing_of(mode: str, lines: str, said: str, installed: Catalogue) -> None:
    assert said in one(problems(mode, lines, installed))


def test_a_protocol_without_a_usual_port_needs_one(installed: Catalogue) -> None:
    said = "services.pacs.listen: '10.0.0.100' names no port, and tcp has no usual one; write ports, or ADDRESS:PORT"
    assert said in one(problems("l4_dr", POOL, installed, "tcp"))


@pytest.mark.parametrize(
    ("mode", "lines"),
    [
        ("l4_dr", POOL.replace("10.0.0.12", "10.0.0.12:104")),  # the one port that clients come to
        ("l4_dr", POOL.replace("10.0.0.12", "pacs-b.example")),
        ("l4_dr", POOL + "\nports: [104, 11112]\nhealth: {check: tcp, source_address: 10.0.0.5}"),
        ("l4_dr", "listen: ['2001:db8::1', '2001:db8::2']\nnodes: {a: {address: '2001:db8::11'}}"),
        ("l4_nat", POOL.replace("10.0.0.12", "10.0.0.11:11112, max_connections: 5")),  # two of one machine
        ("l4_nat", POOL + "\nmasquerade: true\nsource_address: 10.0.0.5"),
        ("l4_nat", POOL + "\nmasquerade: false"),
        ("l4_nat", POOL + "\nbalance: source_hash\npersistence: {by: none}"),
    ],
)
def test_what_suits_layer_4(mode: str, lines: str, installed: Catalogue) -> None:
    assert problems(mode, lines, installed) == []


def test_what_is_usual_at_layer_4(installed: Catalogue) -> None:
    text = SITE.format(protocol="http", mode="l4_dr", lines="".join(f"    {line}\n" for line in POOL.splitlines()))
    service = load(text, "site.yaml", installed).site.services["pacs"]
    assert (service.engine, service.picked_by, service.known_by) == ("layer4", "least_connections", "source_ip")
    assert (service.when_down, service.reads_http) == ("cut", False)


ROUTED = """\
site: here
services:
  front:
    protocol: dicom
    listen: 10.0.0.1
    routes: [{called_ae: Q, to: query}]
    nodes: {a: {address: 10.0.0.11}}
  query:
    protocol: dicom
    mode: l4_dr
    listen: 10.0.0.2
    nodes: {a: {address: 10.0.0.11}}
"""


def test_no_route_leads_to_what_the_kernel_carries(installed: Catalogue) -> None:
    said = one(said_of(ROUTED, installed))
    assert "services.front.routes.0.to: the kernel carries the service 'query' (l4_dr), packet by packet" in said
    assert "write `mode: l7_snat` there" in said
    hidden = said_of(ROUTED.replace("    listen: 10.0.0.2\n", ""), installed)
    assert [problem.split(": ")[1] for problem in hidden] == ["services.front.routes.0.to", "services.query.listen"]


NETWORK = """\
site: here
network: {network}
services:
  ct:
    protocol: dicom
    mode: {mode}
    listen: {listen}
    nodes: {{a: {{address: 10.0.0.11}}}}
"""


@pytest.mark.parametrize(
    ("network", "mode", "listen", "said"),
    [
        (
            "{manage_addresses: true}",
            "l7_snat",
            "0.0.0.0",
            "2:29: network.manage_addresses: 'true' leaves nothing to do: no",
        ),
        (
            "{manage_addresses: true}",
            "l7_snat",
            "127.0.0.1",
            "network.manage_addresses: 'true' leaves nothing to do: no",
        ),
        (
            "{interface: eth0}",
            "l7_snat",
            "10.0.0.1",
            (
                "2:22: network.interface: has no effect: manage_addresses is off, there is no cluster, and "
                "no service has `mode: l4_dr`; take it out, or add one of them"
            ),
        ),
        ("{interface: eth0}", "l4_nat", "10.0.0.1", "network.interface: has no effect: manage_addresses is off,"),
        ("{interface: eth/0}", "l4_dr", "10.0.0.1", "network.interface"),
        ("{interface: averylongname-16}", "l4_dr", "10.0.0.1", "network.interface"),
        ("{interfaces: eth0}", "l4_dr", "10.0.0.1", "network.interfaces: unknown key; did you mean 'interface'?"),
    ],
)
def test_what_is_wrong_with_the_network(network: str, mode: str, listen: str, said: str, installed: Catalogue) -> None:
    assert said in one(said_of(NETWORK.format(network=network, mode=mode, listen=listen), installed))


@pytest.mark.parametrize(
    ("network", "mode", "listen"),
    [
        ("{manage_addresses: true}", "l7_snat", "10.0.0.1"),
        ("{manage_addresses: true}", "l7_snat", "[0.0.0.0:4242, 10.0.0.1]"),
        ("{manage_addresses: true, interface: eth0}", "l4_nat", "10.0.0.1"),
        ("{manage_addresses: false}", "l7_snat", "0.0.0.0"),
        ("{interface: [eth0, bond0.12]}", "l4_dr", "10.0.0.1"),
        ("{}", "l4_dr", "10.0.0.1"),
    ],
)
def test_what_suits_the_network(network: str, mode: str, listen: str, installed: Catalogue) -> None:
    assert said_of(NETWORK.format(network=network, mode=mode, listen=listen), installed) == []


def test_a_name_cannot_stand_for_an_address_of_each_family(installed: Catalogue) -> None:
    text = """\
site: here
services:
  pacs: {protocol: dicom, mode: l4_dr, listen: 10.0.0.1, nodes: {a: {address: pacs-a.example}}}
  pacs6: {protocol: dicom, mode: l4_nat, listen: 'fd00::1', nodes: {a: {address: pacs-a.example:11112}}}
"""
    said = one(said_of(text, installed))
    assert "4:82: services.pacs6.nodes.a.address: 'pacs-a.example:11112' stands for one address, and service" in said
    assert "'pacs' needs an IPv4 one, this service an IPv6 one; write the IP address in one of the two" in said
    assert said_of(text.replace("mode: l4_nat", "mode: l7_snat"), installed) == []


USED = """\
site: here
use:
  - template: {template}
    name: pacs
    vip: 10.0.0.100
    nodes: {{a: 10.0.0.11, b: 10.0.0.12}}
    mode: {mode}
"""


@pytest.mark.parametrize("mode", ["l4_dr", "l4_nat"])
def test_a_template_at_layer_4_says_what_it_asks_for_in_vain(mode: str, installed: Catalogue) -> None:
    text = USED.format(template="infinitt_pacs", mode=mode)
    said = one(said_of(text, installed))
    assert f"services.pacs-web.persistence.by: 'cookie' cannot be read in {mode}: the kernel passes packets on" in said
    assert said.endswith("use source_ip, or write `mode: l7_snat` (from template infinitt_pacs)")
    kept = text + "    persistence: {by: source_ip}\n"
    services = load(kept, "site.yaml", installed).site.services
    assert {(each.mode, each.known_by) for each in services.values()} == {(mode, "source_ip")}
    apart = text + "    services: {web: {mode: l7_snat}}\n"
    assert load(apart, "site.yaml", installed).site.services["pacs-web"].known_by == "cookie"


def test_a_template_whose_servers_have_another_port_says_what_to_do(installed: Catalogue) -> None:
    """Its nodes are asked at 104 alone, whatever of 104 and 11112 the client came to."""
    text = USED.format(template="generic_pacs", mode="l4_dr")
    found = said_of(text, installed)
    assert [problem.split(": ")[1] for problem in found] == [
        f"services.pacs-dicom.nodes.{name}.address" for name in "ab"
    ]
    assert "write the address alone, or 104 as the only one of ports, or `mode: l4_nat`" in found[0]
    assert said_of(text + "    ports: {dicom: 104}\n", installed) == []
    assert said_of(text.replace("l4_dr", "l4_nat"), installed) == []


def test_clients_of_a_template_at_layer_4_are_kept_by_their_address_alone(installed: Catalogue) -> None:
    text = USED.format(template="infinitt_pacs", mode="l4_dr")
    said = one(said_of(text + "    persistence: {by: calling_ae}\n", installed))
    assert "use.0.persistence: no service of template infinitt_pacs can keep clients so: cookie is for web" in said
    only_web = text + "    services: {web: {mode: l7_snat}}\n    persistence: {by: cookie, ttl: 1h}\n"
    services = load(only_web, "site.yaml", installed).site.services
    assert {name: each.persistence.ttl for name, each in services.items()} == {
        "pacs-web": 3600,
        "pacs-dicom": 1800,
        "pacs-query": 1800,
        "pacs-mwl": 1800,
    }

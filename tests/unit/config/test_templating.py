"""What `use` becomes: services with the template's values and the document's, each error at the line that is wrong."""

from dataclasses import replace
from typing import Any

import pytest

from equipoise.base.errors import ConfigError
from equipoise.config.loading import Document, load
from equipoise.config.models import MOST_USES, Catalogue, Service
from equipoise.config.schema import json_schema, reference
from equipoise.config.templating import expand
from equipoise.config.tree import Place, read_tree
from equipoise.templates.reader import parse

ARCHIVE = """\
title: Archive
about: An archive for tests.
asks:
  vip: the address that clients call
  nodes: one address for each server
  called_ae: {about: the title of the archive, default: ARCHIVE}
  aliases: {about: other titles, list: true, default: "*"}
services:
  web:
    protocol: http
    listen: ${vip}
    ports: [80]
    nodes: ${nodes}:8000
    persistence: {by: cookie, fallback: source_ip, ttl: 10m}
    health: {check: tcp, interval: 7s, port: 9000}
  dicom:
    protocol: dicom
    listen: ${vip}
    ports: [104, 11112]
    nodes: ${nodes}
    dicom: {called_ae_allow: ${aliases}}
    health: {check: dicom_echo, interval: 7s, called_ae: "${called_ae}-1"}
"""
VIEWER = """\
title: Viewer
about: A viewer for tests.
asks: {vip: the address that clients call, nodes: one address for each server, secret: "a word, without default"}
services:
  web: {protocol: tcp, listen: "${vip}", ports: [443], nodes: "${nodes}:443"}
"""
SITE = """\
site: general-hospital
use:
  - template: archive
    name: pacs
    vip: 10.0.0.100
    nodes: {a: 10.0.0.11, b: 10.0.0.12}
"""


@pytest.fixture
def known(catalogue: Catalogue) -> Catalogue:
    """The catalogue with two templates."""
    text = ARCHIVE.replace("{called_ae_allow: ${aliases}}", "\n      called_ae_allow: ${aliases}")
    return replace(catalogue, templates={"archive": parse("archive", text), "viewer": parse("viewer", VIEWER)})


def loaded(lines: str, known: Catalogue) -> Document:
    return load(with_lines(lines), "site.yaml", known)


def with_lines(lines: str) -> str:
    """Return the site with these keys in its entry of `use`; the first one is in line 7."""
    return SITE + "".join(f"    {line}\n" for line in lines.splitlines())


def services(lines: str, known: Catalogue) -> dict[str, Service]:
    return dict(loaded(lines, known).site.services)


def problems(text: str, known: Catalogue) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, "site.yaml", known)
    return [str(problem) for problem in caught.value.problems]


def addresses(service: Service) -> list[str]:
    return [node.address for node in service.nodes.values()]


def test_a_document_without_use_stays_as_it_is(known: Catalogue) -> None:
    tree = read_tree("site: x\nservices: {}\n", "f")
    assert expand(tree, known.templates).tree is tree


def test_each_part_becomes_a_service(known: Catalogue) -> None:
    made = services("", known)
    assert sorted(made) == ["pacs-dicom", "pacs-web"]
    web, dicom = made["pacs-web"], made["pacs-dicom"]
    assert (web.listen, web.ports, addresses(web)) == (("10.0.0.100",), (80,), ["10.0.0.11:8000", "10.0.0.12:8000"])
    assert (dicom.ports, addresses(dicom)) == ((104, 11112), ["10.0.0.11", "10.0.0.12"])
    assert dicom.dicom.called_ae_allow == ("*",)
    assert dict(dicom.check[1])["called_ae"] == "ARCHIVE-1"


def test_services_may_stand_beside_it(known: Catalogue) -> None:
    beside = "services: {other: {protocol: dicom, listen: 10.0.0.101, nodes: {x: {address: 10.0.0.21}}}}\n"
    assert sorted(load(SITE + beside, "f", known).site.services) == ["other", "pacs-dicom", "pacs-web"]
    assert sorted(load(SITE + "services:\n", "f", known).site.services) == ["pacs-dicom", "pacs-web"]


def test_values_take_the_place_of_defaults(known: Catalogue) -> None:
    dicom = services("called_ae: NO\naliases: [ONE, TWO]", known)["pacs-dicom"]
    assert dict(dicom.check[1])["called_ae"] == "NO-1"
    assert dicom.dicom.called_ae_allow == ("ONE", "TWO")


def test_nodes_are_written_as_in_a_service(known: Catalogue) -> None:
    nodes = "{a: '2001:db8::11', b: {address: pacs-b.example, weight: 50}, c: {address: 10.0.0.13:81, backup: true}}"
    text = SITE.replace("{a: 10.0.0.11, b: 10.0.0.12}", nodes)
    web = load(text, "f", known).site.services["pacs-web"]
    assert addresses(web) == ["[2001:db8::11]:8000", "pacs-b.example:8000", "10.0.0.13:81"]
    assert (web.nodes["b"].weight, web.nodes["c"].backup) == (50, True)


def test_a_list_of_addresses_is_listened_on(known: Catalogue) -> None:
    text = SITE.replace("vip: 10.0.0.100", "vip: [10.0.0.100, '2001:db8::1']")
    assert load(text, "f", known).site.services["pacs-web"].listen == ("10.0.0.100", "2001:db8::1")


def test_aliases_of_yaml_go_on_working(known: Catalogue) -> None:
    text = SITE.replace("nodes: {", "nodes: &servers {") + (
        "  - {template: viewer, name: v, vip: 10.0.0.101, nodes: *servers, secret: x}\n"
    )
    assert addresses(load(text, "f", known).site.services["v-web"]) == ["10.0.0.11:443", "10.0.0.12:443"]


def test_ports_are_where_clients_come(known: Catalogue) -> None:
    made = services("ports: {web: [8080, 8081], dicom: 104}", known)
    assert (made["pacs-web"].ports, addresses(made["pacs-web"])[0]) == ((8080, 8081), "10.0.0.11:8000")
    assert made["pacs-dicom"].ports == (104,)


def test_persistence_reaches_the_services_that_can_have_it(known: Catalogue) -> None:
    made = services("persistence: {by: source_ip, mask: 24}", known)
    assert [(each.persistence.by, each.persistence.mask) for each in made.values()] == [("source_ip", 24)] * 2
    assert made["pacs-web"].persistence.ttl == 600, "what every kind has stays"
    made = services("persistence: {by: calling_ae}", known)
    assert (made["pacs-dicom"].persistence.by, made["pacs-web"].persistence.by) == ("calling_ae", "cookie")
    made = services("persistence: {by: cookie, cookie: STAY}", known)
    assert (made["pacs-dicom"].known_by, made["pacs-web"].persistence.cookie) == ("none", "STAY")
    made = services("persistence: {ttl: 1h}", known)
    assert (made["pacs-web"].persistence.ttl, made["pacs-web"].persistence.by) == (3600, "cookie")
    assert "ttl" not in made["pacs-dicom"].persistence.model_fields_set


def test_another_check_brings_its_own_settings_and_keeps_the_common_ones(known: Catalogue) -> None:
    name, params = services("services: {web: {health: {check: dicom_echo, called_ae: X}}}", known)["pacs-web"].check
    assert (name, params.interval, params.port, dict(params)["called_ae"]) == ("dicom_echo", 7, None, "X")
    name, params = services("services: {dicom: {health: {check: tcp}}}", known)["pacs-dicom"].check
    assert (name, params.interval, "called_ae" in dict(params)) == ("tcp", 7, False)
    name, params = services("services: {web: {health: {check: tcp, interval: 1s}}}", known)["pacs-web"].check
    assert (name, params.interval, params.port) == ("tcp", 1, 9000), "the same check: the rest stays"


def test_services_are_laid_over_the_template(known: Catalogue) -> None:
    override = "services: {web: {max_connections: 9, health: {interval: 1s}, nodes: {a: {weight: 10}}}}"
    web = services(override, known)["pacs-web"]
    assert (web.max_connections, web.health.interval, web.health.port) == (9, 1, 9000)
    assert [(node.address, node.weight) for node in web.nodes.values()] == [
        ("10.0.0.11:8000", 10),
        ("10.0.0.12:8000", 100),
    ]
    web = services("persistence: {ttl: 1h}\nservices: {web: {persistence: {ttl: 2h}}}", known)["pacs-web"]
    assert web.persistence.ttl == 7200, "the particular one wins"


def test_an_empty_value_takes_away(known: Catalogue) -> None:
    web = services("services: {web: {persistence: , health: ~, nodes: {b: null}}}", known)["pacs-web"]
    assert (web.persistence.by, web.health.interval, list(web.nodes)) == (None, 5, ["a"])


def test_parts_may_be_left_out(known: Catalogue) -> None:
    assert list(services("without: web", known)) == ["pacs-dicom"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("calld_ae: X", "7:15: use.0.calld_ae: template archive asks for vip (the address that clients call), nodes ("),
        ("secret: X", "7:13: use.0.secret: template archive asks for vip ("),
        ("called_ae: [X]", "7:16: use.0.called_ae: is not one text; template archive asks for vip ("),
        ("aliases: {x: y}", "7:14: use.0.aliases: is not one text, or a list of them; "),
        ("ports: {wep: 80}", "7:18: use.0.ports.wep: template archive has no part 'wep'; did you mean 'web'?"),
        ("services: {wep: {}}", "7:21: use.0.services.wep: template archive has no part 'wep'; did you mean 'web'?"),
        ("without: [wep]", "7:15: use.0.without.0: template archive has no part 'wep'; did you mean 'web'?"),
        ("without: [web, dicom]", "7:14: use.0.without: leaves no part of the template; take the entry out"),
        ("without: web\nports: {web: 1}", "8:18: use.0.ports.web: has no effect: `without` leaves this part out"),
        ("ports: {dicom: 105}", "7:20: use.0.ports.dicom: 105 is not a port of the servers, and they are called at"),
        ("ports: {web: x}", "7:18: use.0.ports.web: 'x' is not a whole number"),
        ("mode: l4_dsr", "7:11: use.0.mode: 'l4_dsr' is not known; did you mean 'l4_dr'?"),
        (
            "persistence: {by: sorce_ip}",
            "7:23: use.0.persistence.by: 'sorce_ip' is not known; did you mean 'source_ip'",
        ),
        ("services: {web: 5}", "7:21: use.0.services.web: '5' is not a mapping of keys"),
        ("without: web\npersistence: {by: cookie}", "8:18: use.0.persistence: no service of template archive can"),
    ],
)
def test_what_is_wrong_with_an_entry_has_its_place(lines: str, expected: str, known: Catalogue) -> None:
    (problem,) = problems(with_lines(lines), known)
    assert problem.startswith(f"site.yaml:{expected}")


def test_a_value_that_is_not_asked_for_is_refused_with_all_that_is(known: Catalogue) -> None:
    (problem,) = problems(with_lines("calld_ae: X"), known)
    assert "called_ae (the title of the archive; by default ARCHIVE), aliases (" in problem
    assert problem.endswith(", not for this; did you mean 'called_ae'?")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ("template: archive", "template: archiv"),
            "3:15: use.0.template: 'archiv' is not known; did you mean 'archive'",
        ),
        (
            ("    vip: 10.0.0.100\n", ""),
            "3:5: use.0.vip: missing; template archive asks for vip (the address that clients",
        ),
        (("{a: 10.0.0.11, b: 10.0.0.12}", "{}"), "6:12: use.0.nodes: missing; template archive asks for vip ("),
        (("10.0.0.100", "10.0.0.100:80"), "5:10: use.0.vip: '10.0.0.100:80' names a port; ports are the template's"),
        (("10.0.0.100", "pacs"), "5:10: use.0.vip: 'pacs' is not an IP address"),
        (("10.0.0.12", "10.0.0.12:x"), "6:30: use.0.nodes.b: '10.0.0.12:x' has the port 'x'"),
        (("    name: pacs\n", ""), "3:5: use.0.name: missing, and it has no default"),
        (("  - template", "  -\n  - template"), "3:4: use.0: has no value"),
    ],
)
def test_a_value_that_is_missing_or_wrong(change: tuple[str, str], expected: str, known: Catalogue) -> None:
    found = problems(SITE.replace(*change), known)
    assert [problem for problem in found if problem.startswith(f"site.yaml:{expected}")], found
    assert len(found) == 1


def test_names_that_clash(known: Catalogue) -> None:
    written = "services: {pacs-web: {protocol: dicom, listen: 10.0.0.101, nodes: {x: {address: 10.0.0.21}}}}\n"
    said = "site.yaml:4:11: use.0.name: makes the service 'pacs-web', which line 7 has already; rename one of them"
    assert problems(SITE + written, known) == [said]
    second = "  - {template: viewer, name: pacs, vip: 10.0.0.101, nodes: {a: 10.0.0.11}, secret: x}\n"
    (problem,) = problems(SITE + second, known)
    assert problem.startswith("site.yaml:7:30: use.1.name: 'pacs' is taken by the entry in line 4; write another name")


def test_an_error_within_a_service_points_to_the_entry_and_names_the_template(known: Catalogue) -> None:
    """Two uses of one address: where the ports clash is nowhere in the text but in the entry."""
    second = "  - {template: archive, name: other, vip: 10.0.0.100, nodes: {a: 10.0.0.13}, without: dicom}\n"
    (problem,) = problems(SITE + second, known)
    assert problem.startswith(
        "site.yaml:7:43: services.other-web.listen: port 80 of 10.0.0.100 is taken by service 'pacs"
    )
    assert problem.endswith("(from template archive)")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("called_ae: 'A\\B'", "7:16: services.pacs-dicom.health.called_ae: 'A\\\\B-1' contains"),
        ("services:\n  web: {helth: x}", "8:13: services.pacs-web.helth: unknown key; did you mean 'health'?"),
        ("services:\n  web: {balance: best}", "8:22: services.pacs-web.balance: 'best' is not known"),
        ("services:\n  web: {health: {rise: 0}}", "8:28: services.pacs-web.health.rise: '0' is out of range"),
        ("services:\n  web: {tls: {cert: /x}}", "8:18: services.pacs-web.tls: has no effect: http is plain"),
    ],
)
def test_an_error_in_what_was_written_points_there(lines: str, expected: str, known: Catalogue) -> None:
    (problem,) = problems(with_lines(lines), known)
    assert problem.startswith(f"site.yaml:{expected}")
    assert problem.endswith("(from template archive)")


def test_problems_found_later_name_the_template_too(known: Catalogue) -> None:
    document = loaded("", known)
    problem = document.problem("no such file", "services", "pacs-web", "tls", "cert")
    assert str(problem) == "site.yaml:3:5: services.pacs-web.tls.cert: no such file (from template archive)"
    assert document.place("services", "pacs-web", "nodes", "b", "address") == (6, 30)


def test_a_route_to_a_service_that_is_not_made_is_no_second_problem(known: Catalogue) -> None:
    routing = (
        "services:\n  door:\n    protocol: dicom\n    listen: 10.0.0.101\n"
        "    routes: [{called_ae: PACS, to: pacs-dicom}]\n"
    )
    assert load(SITE + routing, "f", known).site.services["door"].routes[0].to == "pacs-dicom"
    assert len(problems(SITE.replace("10.0.0.12", "10.0.0.12:x") + routing, known)) == 1


def test_an_installation_without_templates_says_so(catalogue: Catalogue) -> None:
    (problem,) = problems(SITE, catalogue)
    assert problem.startswith("site.yaml:3:15: use.0.template: 'archive' is not known")


def test_the_schema_knows_templates_and_what_they_ask_for(known: Catalogue) -> None:
    schema = json_schema(known)
    use = schema["$defs"]["Use"]
    assert use["properties"]["template"]["enum"] == ["archive", "viewer"]
    assert use["properties"]["secret"]["description"] == "For viewer: a word, without default."
    assert [kind["type"] for kind in use["properties"]["aliases"]["anyOf"]] == [["string", "integer"], "array"]
    assert "text; or a list" in reference(known)
    assert (schema["required"], schema["anyOf"]) == (["site"], [{"required": ["services"]}, {"required": ["use"]}])
    assert all(part["additionalProperties"] is False for part in schema["$defs"].values())


@pytest.mark.parametrize("uses", ["use: x\n", "use: {}\n", "use: [x]\n", "use: [[]]\n", "use: [{}]\n", "use: ~\n"])
def test_nonsense_is_refused_in_words(uses: str, known: Catalogue) -> None:
    assert all(problem.startswith("site.yaml:") for problem in problems("site: s\n" + uses, known))


def test_there_is_a_most(known: Catalogue) -> None:
    entry = "  - {template: archive, name: pacs, vip: 10.0.0.100, nodes: {a: 10.0.0.11}}\n"
    found = problems("site: s\nuse:\n" + entry * (MOST_USES + 1), known)
    assert [problem for problem in found if "has too many entries; at most 100 are taken" in problem]


def test_every_value_of_a_made_service_has_a_place(known: Catalogue) -> None:
    expansion = expand(read_tree(with_lines("called_ae: X"), "f"), known.templates)
    data: Any = expansion.tree.data

    def walk(value: Any, path: tuple[str | int, ...]) -> None:
        assert isinstance(expansion.tree.values[path], Place)
        for name, each in (
            value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
        ):
            walk(each, (*path, name))

    walk(data["services"], ("services",))
    assert expansion.origins == {"pacs-web": "archive", "pacs-dicom": "archive"}


HL7 = """\
title: Engine
about: An engine for tests.
asks: {vip: the address that clients call, nodes: one address for each server}
services:
  adt: {protocol: hl7, listen: "${vip}", ports: [2575], nodes: "${nodes}:2575"}
  lab: {protocol: hl7, listen: "${vip}", ports: [2576], nodes: "${nodes}:2576"}
"""


def test_persistence_does_not_reach_messages_that_stay_together_otherwise(known: Catalogue) -> None:
    engines = replace(known, templates={"archive": parse("archive", HL7)})
    made = services("persistence: {by: source_ip}\nservices: {adt: {hl7: {key: patient}}}", engines)
    assert (made["pacs-adt"].known_by, made["pacs-lab"].known_by) == ("none", "source_ip")
    assert made["pacs-adt"].hl7.key == "patient"
    made = services("persistence: {by: none}\nservices: {adt: {hl7: {key: sender}}}", engines)
    assert made["pacs-adt"].persistence.by == "none"

"""What of a plan can be served while files of TLS cannot be used."""

from dataclasses import replace

from equipoise.app.able import able
from equipoise.app.wiring import catalogue
from equipoise.config.loading import load
from equipoise.plan.compile import compile_plan
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Plan

SITE = """site: general
services:
  ct:
    protocol: dicom
    listen: 127.0.0.1:2762
    tls: {cert: /pki/ct.pem}
    nodes: {a: {address: "127.0.0.2:104"}}
  portal:
    protocol: https
    listen: 127.0.0.1:443
    tls: {cert: /pki/portal.pem}
    nodes: {a: {address: "127.0.0.2:80"}}
  viewer:
    protocol: http
    listen: 127.0.0.1:80
    nodes: {a: {address: "127.0.0.2:80"}}
"""


def plan(portal: str = "new", site: str = SITE) -> Plan:
    return compile_plan(load(site, "site.yaml", catalogue()).site, HostFacts(files={"/pki/portal.pem": portal}))


def names(of: Plan) -> list[str]:
    return [service.name for service in of.services]


def test_where_all_is_well_nothing_is_left_out() -> None:
    assert able(plan(), set(), None) == plan()


def test_a_service_that_haproxy_cannot_be_given_is_left_out_and_no_other() -> None:
    assert names(able(plan(), {"portal"}, None)) == ["ct", "viewer"]


def test_a_gateway_reads_its_files_itself() -> None:
    assert names(able(plan(), {"ct"}, None)) == ["ct", "portal", "viewer"]


def test_what_haproxy_has_it_goes_on_with() -> None:
    served = able(plan("spoiled"), {"portal"}, plan("old")).service("portal")
    assert served == plan("old").service("portal")
    other = replace(plan("old"), services=tuple(each for each in plan().services if each.name != "portal"))
    assert names(able(plan("spoiled"), {"portal"}, other)) == ["ct", "viewer"], "it was not there before"


def test_what_haproxy_has_of_another_file_is_of_no_use() -> None:
    before = plan("old", SITE.replace("cert: /pki/portal.pem", "cert: /pki/other.pem"))
    assert names(able(plan("spoiled"), {"portal"}, before)) == ["ct", "viewer"]

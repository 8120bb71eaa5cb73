"""A site means one plan, whatever the order of its services, and the plan survives being stored."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.base.errors import EquipoiseError
from equipoise.config.loading import load
from equipoise.config.models import Catalogue, Site
from equipoise.plan.compile import compile_plan, from_json, names_to_resolve, to_json
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Endpoint, Plan

SERVICE = """\
  {name}:
    protocol: dicom
    listen: 10.0.0.{host}
    health: {{check: dicom_echo, called_ae: PACS, interval: 1.5s}}
    nodes:
      a: {{address: pacs-a.example:11112, weight: 7}}
      b: {{address: 10.0.0.12, backup: true, max_connections: 3}}
"""


def site_of(catalogue: Catalogue, *services: str, head: str = "site: here\n") -> Site:
    return load(head + "services:\n" + "".join(services), "f", catalogue).site


def service(name: str, host: int) -> str:
    return SERVICE.format(name=name, host=host)


def test_what_a_service_means(catalogue: Catalogue) -> None:
    text = service("ct", 1) + "    ports: [104, 11112]\n    dicom: {max_associate: 64KiB, artim: 10s}\n"
    plan = compile_plan(site_of(catalogue, text), HostFacts({"pacs-a.example": "10.0.0.11"}))
    (ct,) = plan.services
    assert (ct.engine, ct.check, ct.health.interval) == ("gateway", "dicom_echo", 1.5)
    assert type(ct.health) is catalogue.checks["dicom_echo"]
    assert ct.listen == (Endpoint("10.0.0.1", 104), Endpoint("10.0.0.1", 11112))
    a, b = ct.nodes
    assert (a.address, a.host, a.port, a.weight) == ("pacs-a.example:11112", "10.0.0.11", 11112, 7)
    assert (b.host, b.port, b.backup, b.max_connections) == ("10.0.0.12", None, True, 3)
    assert (ct.dicom.max_associate_bytes, ct.dicom.artim_s, ct.queue_wait_s) == (65536, 10, 5)


@pytest.mark.parametrize("resolved", [{}, {"pacs-a.example": None}])
def test_a_name_that_does_not_resolve_is_a_node_without_host(
    resolved: dict[str, str | None], catalogue: Catalogue
) -> None:
    site = site_of(catalogue, service("ct", 1))
    assert names_to_resolve(site) == {"pacs-a.example"}
    assert compile_plan(site, HostFacts(resolved)).services[0].nodes[0].host is None


def test_the_order_of_services_does_not_matter_that_of_nodes_does(catalogue: Catalogue) -> None:
    ct, mr = service("ct", 1), service("mr", 2)
    plans = [compile_plan(site_of(catalogue, *both), HostFacts()) for both in ((ct, mr), (mr, ct))]
    assert plans[0] == plans[1]
    lines = ct.splitlines(keepends=True)
    turned = "".join([*lines[:5], lines[6], lines[5]])
    assert compile_plan(site_of(catalogue, turned, mr), HostFacts()).digest != plans[0].digest


@settings(max_examples=20, deadline=None)
@given(workers=st.integers(1, 64), drain_s=st.integers(1, 1000), resolved=st.none() | st.ip_addresses(v=4).map(str))
def test_the_same_inputs_give_the_same_plan_and_others_another_digest(
    workers: int, drain_s: int, resolved: str | None, catalogue: Catalogue
) -> None:
    head = f"site: here\ngateway: {{workers: {workers}}}\ndrain_timeout: {drain_s}s\n"

    def plan(head: str, address: str | None) -> Plan:
        return compile_plan(site_of(catalogue, service("ct", 1), head=head), HostFacts({"pacs-a.example": address}))

    assert plan(head, resolved) == plan(head, resolved)
    assert plan(head, resolved).digest != plan(head.replace("here", "there"), resolved).digest
    assert plan(head, resolved).digest != plan(head, "192.0.2.256").digest
    assert len(plan(head, resolved).digest) == 12


def test_a_size_off_by_one_byte_has_another_digest(catalogue: Catalogue) -> None:
    texts = [service("ct", 1) + f"    dicom: {{max_associate: {size}B}}\n" for size in (65536, 65537)]
    one, other = (compile_plan(site_of(catalogue, text), HostFacts()).digest for text in texts)
    assert one != other


def test_a_stored_plan_comes_back(catalogue: Catalogue) -> None:
    plan = compile_plan(site_of(catalogue, service("ct", 1), service("mr", 2)), HostFacts())
    assert from_json(json.loads(json.dumps(to_json(plan))), catalogue.checks) == plan


@pytest.mark.parametrize("stored", [None, [], {}, {"services": 3}, {"services": []}, {"services": [{"check": "x"}]}])
def test_what_is_no_plan_is_refused(stored: Any, catalogue: Catalogue) -> None:
    with pytest.raises(EquipoiseError, match="the stored plan cannot be read"):
        from_json(stored, catalogue.checks)

from dataclasses import replace

from equipoise.app.wiring import catalogue
from equipoise.config.loading import load
from equipoise.engines.addresses.render import Wanted, render
from equipoise.plan.compile import compile_plan
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import ManagedAddress, Plan

SITE = """\
site: here
services:
  ct: {protocol: dicom, listen: '10.0.0.100:104', nodes: {a: {address: '10.0.0.11'}}}
  web: {protocol: tcp, mode: l4_dr, listen: ['10.0.0.100:80', '10.0.0.101:80'], nodes: {a: {address: '10.0.0.11'}}}
"""


def plan(*addresses: tuple[str, str]) -> Plan:
    compiled = compile_plan(load(SITE, "site.yaml", catalogue()).site, HostFacts())
    return replace(compiled, addresses=tuple(ManagedAddress(*each) for each in addresses))


def test_nothing_is_wanted_where_nothing_is_managed() -> None:
    assert not render(plan())


def test_addresses_come_in_order_once_with_who_listens_there() -> None:
    artifact = render(plan(("10.0.0.101", "eth0"), ("10.0.0.100", "eth0"), ("10.0.0.100", "eth0")))
    assert artifact.wanted == (
        Wanted(ManagedAddress("10.0.0.100", "eth0"), "ct", is_direct=True),
        Wanted(ManagedAddress("10.0.0.101", "eth0"), "web", is_direct=True),
    )
    assert render(plan(("10.0.0.9", "eth0"))).wanted == (Wanted(ManagedAddress("10.0.0.9", "eth0"), None),)


def test_ipv6_is_written_as_the_kernel_writes_it() -> None:
    assert render(plan(("FD00:0::0100", "eth0"))).addresses == {ManagedAddress("fd00::100", "eth0")}

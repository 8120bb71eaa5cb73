from ipaddress import ip_interface

import pytest

from equipoise.base.errors import EngineError
from equipoise.engines.addresses.interfaces import Held, Link, Machine, add, look, remove
from equipoise.plan.model import ManagedAddress

MACHINE = Machine(
    links=(Link("lo", 1, "", is_ethernet=False), Link("eth0", 2, "02:00:00:00:00:01", is_ethernet=True)),
    held=(Held("eth0", "10.0.0.1", ip_interface("10.0.0.1/24"), is_tentative=False),),
)


def test_an_interface_is_found_by_its_name() -> None:
    assert MACHINE.link("eth0").index == 2
    assert MACHINE.addresses == {ManagedAddress("10.0.0.1", "eth0")}


def test_one_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(EngineError, match="no interface 'eth1' on this machine; it has lo, eth0: name one of them"):
        MACHINE.link("eth1")


def test_this_machine_has_a_loopback_interface() -> None:
    machine = look()
    assert not machine.link("lo").is_ethernet
    assert ManagedAddress("127.0.0.1", "lo") in machine.addresses


def test_an_interface_that_has_gone_took_its_addresses_along() -> None:
    address = ManagedAddress("192.0.2.1", "not-here")
    assert not remove(address)
    with pytest.raises(EngineError, match=r"cannot add 192\.0\.2\.1 on not-here: there is no such interface now"):
        add(address)

from equipoise.engines.addresses.conflicts import KnownConflicts
from equipoise.plan.model import ManagedAddress
from equipoise.state.network_events import AddressConflict

VIP = ManagedAddress("10.0.0.100", "eth0")
ONE, TWO = "02:00:00:00:00:01", "02:00:00:00:00:02"


def conflict(mac: str) -> AddressConflict:
    return AddressConflict(address="10.0.0.100", interface="eth0", mac=mac)


def test_each_machine_is_spoken_of_once_until_it_is_gone() -> None:
    known = KnownConflicts()
    assert known.news({VIP: ()}) == []
    assert known.news({VIP: (ONE,)}) == [conflict(ONE)]
    assert known.news({VIP: (ONE, TWO)}) == [conflict(TWO)]
    assert known.news({VIP: (ONE, TWO)}) == []
    assert known.news({VIP: (TWO,)}) == []
    assert known.news({VIP: (ONE, TWO)}) == [conflict(ONE)]


def test_an_address_that_is_no_longer_ours_is_forgotten() -> None:
    known = KnownConflicts()
    known.news({VIP: (ONE,)})
    known.news({})
    assert known.news({VIP: (ONE,)}) == [conflict(ONE)]

"""What is printed for a Windows node."""

import pytest

from equipoise.app.prepare_node.wanted import Wanted
from equipoise.app.prepare_node.windows import script

ONE = Wanted(("10.0.0.100",), (104, 11112), ("ct",), "10.0.0.11")


def test_one_address() -> None:
    text = script(ONE, None)
    assert "New-NetIPAddress -InterfaceAlias $vip -IPAddress '10.0.0.100' -PrefixLength 32 -SkipAsSource $true" in text
    assert "Set-NetIPInterface -InterfaceAlias $lan -AddressFamily IPv4 -WeakHostReceive Enabled" in text
    assert "-WeakHostReceive Enabled -WeakHostSend Enabled `\n    -InterfaceMetric 254" in text
    assert "-LocalAddress '10.0.0.100' -LocalPort 104, 11112" in text
    assert "RegisterThisConnectionsAddress $false" in text
    assert "IPv6" not in text


def test_both_families() -> None:
    text = script(Wanted(("10.0.0.100", "fd00::100"), (80,)), None)
    assert "-IPAddress 'fd00::100' -PrefixLength 128" in text
    assert text.count("-WeakHostSend Enabled") == 2
    assert "-LocalAddress '10.0.0.100', 'fd00::100'" in text


@pytest.mark.parametrize(
    ("wanted", "interface", "found_by"),
    [
        (ONE, "Ethernet 2", "'Ethernet 2'"),
        (ONE, "Doctor's", "'Doctor''s'"),
        (ONE, None, "(Get-NetIPAddress -IPAddress '10.0.0.11').InterfaceAlias"),
        (Wanted(("10.0.0.100",)), None, "-DestinationPrefix '0.0.0.0/0'"),
        (Wanted(("fd00::100",)), None, "-DestinationPrefix '::/0'"),
    ],
)
def test_the_adapter_where_packets_come_in(wanted: Wanted, interface: str | None, found_by: str) -> None:
    (line,) = (line for line in script(wanted, interface).splitlines() if line.startswith("$lan = "))
    assert found_by in line


def test_without_ports_the_firewall_is_left_to_people() -> None:
    text = script(Wanted(("10.0.0.100",)), None)
    assert "\n# New-NetFirewallRule" in text
    assert "\nSet-NetFirewallRule" not in text

"""What is printed for a Linux node; that it works is shown in tests/system/test_prepare_node.py."""

from equipoise.app.prepare_node.linux import (
    SETTINGS_FILE,
    UNIT_FILE,
    addresses_in,
    script,
    settings,
    settings_file,
    unit_file,
)
from equipoise.app.prepare_node.wanted import Wanted

BOTH = Wanted(("10.0.0.100", "fd00::100"), (104,), ("ct", "six"), "10.0.0.11")


def test_settings_of_every_interface_or_of_one() -> None:
    assert settings(BOTH, None) == {
        "net/ipv4/conf/all/arp_ignore": "1",
        "net/ipv4/conf/all/arp_announce": "2",
        "net/ipv4/tcp_mtu_probing": "1",
    }
    assert "net/ipv4/conf/eth0.100/arp_ignore = 1\n" in settings_file(settings(BOTH, "eth0.100"))


def test_arp_is_left_alone_where_there_is_only_ipv6() -> None:
    assert settings(Wanted(("fd00::100",)), None) == {"net/ipv4/tcp_mtu_probing": "1"}


def test_the_unit_says_which_addresses_it_brings_up() -> None:
    unit = unit_file(BOTH.addresses)
    assert "ExecStart=/usr/bin/env ip address replace 10.0.0.100/32 dev lo\n" in unit
    assert "ExecStart=/usr/bin/env ip address replace fd00::100/128 dev lo preferred_lft 0 nodad\n" in unit
    assert addresses_in(unit) == BOTH.addresses
    assert addresses_in("") == ()


def test_the_script_sets_before_it_adds_and_holds_both_files() -> None:
    text = script(BOTH, None)
    assert text.index("sysctl -q -p") < text.index("\nip address replace 10.0.0.100/32 dev lo\n")
    assert f"cat >{SETTINGS_FILE} <<'END'\n{settings_file(settings(BOTH, None))}END\n" in text
    assert f"cat >{UNIT_FILE} <<'END'\n{unit_file(BOTH.addresses)}END\n" in text
    assert "for ct, six." in text

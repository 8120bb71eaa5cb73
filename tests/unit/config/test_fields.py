"""Texts that values are made of: what is taken, what is made of it, what a refusal says."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from equipoise.config.fields import AeTitle, CidrText, ListenAddress, Name, NodeAddress, SourceAddress, split_port


def taken(kind: Any, text: str) -> str:
    return str(TypeAdapter(kind).validate_python(text))


def refusal(kind: Any, text: str) -> str:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(text)
    return str(caught.value.errors()[0]["msg"]).removeprefix("Value error, ")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (AeTitle, "  CT 1 ", "CT 1"),
        (AeTitle, "X" * 16, "X" * 16),
        (Name, "pacs-a.2_x", "pacs-a.2_x"),
        (CidrText, "10.0.0.0/8", "10.0.0.0/8"),
        (CidrText, "10.0.0.1", "10.0.0.1/32"),
        (CidrText, "2001:DB8::/32", "2001:db8::/32"),
        (ListenAddress, "10.0.0.100", "10.0.0.100"),
        (ListenAddress, "10.0.0.100:104", "10.0.0.100:104"),
        (ListenAddress, "2001:DB8:0::1", "2001:db8::1"),
        (ListenAddress, "[2001:db8::1]:104", "[2001:db8::1]:104"),
        (ListenAddress, "[::]", "::"),
        (NodeAddress, "pacs-a.example:11112", "pacs-a.example:11112"),
        (NodeAddress, "pacs_a", "pacs_a"),
        (NodeAddress, "[fd00::1]:104", "[fd00::1]:104"),
        (SourceAddress, "fd00::0:5", "fd00::5"),
    ],
)
def test_taken(kind: Any, text: str, value: str) -> None:
    assert taken(kind, text) == value


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (AeTitle, "PACS/Bé", "'PACS/Bé' contains 'é', not allowed in an AE title; try 'PACS/B_'"),
        (AeTitle, "X" * 17, "has 17 characters, an AE title has 1 to 16"),
        (AeTitle, "   ", "has 0 characters"),
        (AeTitle, "A\\B", "contains '\\\\'"),
        (Name, "pacs a", "try 'pacs-a'"),
        (Name, "x" * 64, "is not a name"),
        (Name, "pacs\n", "is not a name"),
        (Name, "..", "is not a name"),
        (CidrText, "10.0.0.1/8", "has bits set outside its mask; write '10.0.0.0/8'"),
        (CidrText, "hospital", "is not a network; write for example"),
        (ListenAddress, "pacs.example", "is not an IP address; listen takes one of this balancer's"),
        (ListenAddress, "fe80::1%eth0", "has a zone (eth0)"),
        (ListenAddress, "10.0.0.1:0", "has the port '0'"),
        (ListenAddress, "10.0.0.1:65536", "a port is a number from 1 to 65535"),
        (ListenAddress, "10.0.0.1:٣", "a port is a number from 1 to 65535"),
        (ListenAddress, "[::1", "opens a bracket; write '[2001:db8::1]:104'"),
        (ListenAddress, "[::1]104", "opens a bracket"),
        (ListenAddress, "::ffff:10.0.0.1", "write '10.0.0.1'"),
        (ListenAddress, "239.1.1.1", "is for many receivers"),
        (NodeAddress, "10.0.0.300", "is not an IP address: four numbers from 0 to 255"),
        (NodeAddress, "010.0.0.1", "without leading zeros"),
        (NodeAddress, "pacs a", "is neither an IP address nor a host name"),
        (NodeAddress, "", "is neither an IP address nor a host name"),
        (NodeAddress, "0.0.0.0:104", "name the node's own"),
        (SourceAddress, "10.0.0.1:5", "is not an IP address of this balancer"),
    ],
)
def test_refused(kind: Any, text: str, said: str) -> None:
    assert said in refusal(kind, text)


@given(st.ip_addresses(), st.none() | st.integers(1, 65535))
def test_host_and_port_come_back(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int | None) -> None:
    bare = str(address) if port is None else f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
    assert split_port(bare) == (str(address), port)


@given(st.text(max_size=20), st.sampled_from([AeTitle, Name, CidrText, ListenAddress, NodeAddress, SourceAddress]))
def test_what_is_taken_is_taken_again_unchanged(text: str, kind: Any) -> None:
    try:
        once = taken(kind, text)
    except ValidationError:
        return
    assert taken(kind, once) == once

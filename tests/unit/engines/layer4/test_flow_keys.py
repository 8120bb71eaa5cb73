import re
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.engines.layer4.flow_keys import CLIENT, CLIENT6, FLOW, FLOW6, Form, heard, said

FORMS = [FLOW, FLOW6, CLIENT, CLIENT6]
PLAIN = re.compile(r"[0-9a-f:.]+( [0-9a-f:.]+)*")
ADDRESSES = st.ip_addresses(v=4).map(lambda address: address.packed)
PORTS = st.integers(0, 65535).map(lambda port: port.to_bytes(2, "big") + b"\0\0")
KEYS = st.one_of(
    st.tuples(st.just(FLOW), st.tuples(ADDRESSES, PORTS, ADDRESSES, PORTS).map(b"".join)),
    st.tuples(st.just(FLOW6), st.binary(min_size=8, max_size=8)),
    st.tuples(st.just(CLIENT), ADDRESSES),
    st.tuples(st.just(CLIENT6), st.binary(min_size=16, max_size=16)),
)


def flow(source: str, port: int, target: str, to: int) -> bytes:
    ends = IPv4Address(source).packed, IPv4Address(target).packed
    return ends[0] + port.to_bytes(2, "big") + b"\0\0" + ends[1] + to.to_bytes(2, "big") + b"\0\0"


def test_a_flow_is_said_in_words() -> None:
    key = flow("10.0.0.7", 50123, "10.0.0.100", 104)
    assert said(FLOW, key) == "10.0.0.7 50123 10.0.0.100 104"


def test_a_client_is_an_address() -> None:
    assert said(CLIENT, IPv4Address("10.0.0.7").packed) == "10.0.0.7"
    assert said(CLIENT6, IPv6Address("fd00::7").packed) == "fd00::7"


@given(KEYS)
def test_what_is_said_is_heard_as_the_same_key(known: tuple[Form, bytes]) -> None:
    form, key = known
    assert heard(form, said(form, key)) == key


@given(st.sampled_from(FORMS), st.one_of(st.text(max_size=80), st.text("0123456789abcdef:. %{};\n", max_size=80)))
def test_whatever_a_peer_says_only_addresses_and_numbers_are_heard(form: Form, text: str) -> None:
    key = heard(form, text)
    if key is not None:
        assert PLAIN.fullmatch(said(form, key))
        assert heard(form, said(form, key)) == key


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (FLOW, "10.0.0.7 50123 10.0.0.100"),
        (FLOW, "10.0.0.7 65536 10.0.0.100 104"),
        (FLOW, "10.0.0.7 -1 10.0.0.100 104"),
        (FLOW, "10.0.0.7 0104 10.0.0.100 104"),
        (FLOW, "10.0.0.7 ١٠٤ 10.0.0.100 104"),
        (FLOW, "10.0.0.7 1 10.0.0.100 104 }; flush ruleset"),
        (FLOW, "10.0.0 1 10.0.0.100 104"),
        (FLOW, "pacs 1 10.0.0.100 104"),
        (FLOW, ""),
        (FLOW6, "4294967296 1"),
        (FLOW6, "1"),
        (CLIENT, "fd00::7"),
        (CLIENT, "10.0.0.7\0"),
        (CLIENT, "10.0.0.7/8"),
        (CLIENT6, "10.0.0.7"),
        (CLIENT6, "fe80::1%eth0"),
        (CLIENT6, "0" * 100_000),
    ],
)
def test_what_is_no_key_is_not_heard(form: Form, text: str) -> None:
    assert heard(form, text) is None


def test_a_key_of_another_map_cannot_be_said() -> None:
    with pytest.raises(ValueError, match="a key of 16 bytes is not one of 1 parts"):
        said(CLIENT, flow("10.0.0.7", 1, "10.0.0.8", 2))

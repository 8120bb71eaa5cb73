import errno
import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.base.errors import EngineError
from equipoise.engines.layer4 import netlink
from equipoise.engines.layer4.netlink import (
    Netlink,
    attribute,
    attribute_list,
    attributes,
    messages,
    name_of,
    nfgen,
    number32,
    number_of,
    refusal,
    text,
)

NETLINK_ROUTE, GETLINK, NEWLINK, IFLA_IFNAME = 0, 18, 16, 3
LINK = struct.pack("=BxHiII", 0, 0, 0, 0, 0)


def test_an_attribute_is_length_type_value_and_filled_to_four() -> None:
    assert attribute(1, b"abcde") == struct.pack("=HH", 9, 1) + b"abcde\0\0\0"
    assert text(2, "pacs") == struct.pack("=HH", 9, 2) + b"pacs\0\0\0\0"
    assert number32(3, 0x45000001) == struct.pack("=HH", 8, 3) + b"\x45\0\0\x01"
    assert nfgen(5, number32(3, 1))[:4] == b"\x05\0\0\0"


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40))))
def test_attributes_come_back_as_they_were_built(pairs: list[tuple[int, bytes]]) -> None:
    wire = b"".join(attribute(kind, value) for kind, value in pairs)
    assert list(attribute_list(wire)) == pairs
    assert attributes(wire) == dict(pairs)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        found = list(attribute_list(data))
        bodies = list(messages([data]))
    except EngineError:
        return
    assert sum(len(value) for _, value in found) <= len(data)
    assert sum(len(value) for _, value in bodies) <= len(data)


def test_an_attribute_longer_than_its_message_is_refused() -> None:
    with pytest.raises(EngineError, match="attribute of 90 bytes where 8 are left"):
        attributes(struct.pack("=HHI", 90, 1, 0))


def test_names_and_numbers() -> None:
    assert name_of(b"flows-a\0") == "flows-a"
    assert name_of(b"\xff\0") == "\ufffd"
    assert number_of(b"\0\0\x01\0") == 256


def test_one_link_is_asked_for() -> None:
    with Netlink(NETLINK_ROUTE) as kernel:
        (answer,) = kernel.request(GETLINK, LINK + text(IFLA_IFNAME, "lo"))
    kind, body = answer
    assert kind == NEWLINK
    assert name_of(attributes(body, len(LINK))[IFLA_IFNAME]) == "lo"


def test_a_dump_has_every_link_and_another_may_follow() -> None:
    expected = {name for _, name in socket.if_nameindex()}
    with Netlink(NETLINK_ROUTE) as kernel:
        for _ in range(2):
            found = {name_of(attributes(body, len(LINK))[IFLA_IFNAME]) for _, body in kernel.messages(GETLINK, LINK)}
            assert found >= expected & {"lo"}


def test_after_a_dump_that_was_given_up_the_next_question_is_answered() -> None:
    with Netlink(NETLINK_ROUTE) as kernel:
        assert kernel.dump(GETLINK, LINK, most_bytes=1)
        (answer,) = kernel.request(GETLINK, LINK + text(IFLA_IFNAME, "lo"))
    assert answer[0] == NEWLINK


def test_the_kernels_refusal_keeps_its_number() -> None:
    with Netlink(NETLINK_ROUTE) as kernel, pytest.raises(OSError, match=os.strerror(errno.ENODEV)) as caught:
        kernel.request(GETLINK, LINK + text(IFLA_IFNAME, "eq-nobody"))
    assert caught.value.errno == errno.ENODEV


INTERRUPTED = 0x10


class DisturbedSocket:
    """A socket between the real kernel and us that marks dumps as interrupted, or runs over."""

    def __init__(self, real: socket.socket, faults: list[str]) -> None:
        self._real, self._faults = real, faults
        self._fault = ""

    def send(self, data: bytes) -> int:
        self._fault = self._faults.pop(0) if self._faults else ""
        return self._real.send(data)

    def recv_into(self, buffer: bytearray) -> int:
        size = self._real.recv_into(buffer)
        if self._fault == "overrun":
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        if self._fault == "interrupted":
            (flags,) = struct.unpack_from("=H", buffer, 6)
            struct.pack_into("=H", buffer, 6, flags | INTERRUPTED)
        return size

    def close(self) -> None:
        self._real.close()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    planned: list[str] = []
    monkeypatch.setattr(netlink, "_opened", lambda family, real=netlink._opened: DisturbedSocket(real(family), planned))
    return planned


def links() -> list[str]:
    with Netlink(NETLINK_ROUTE) as kernel:
        return [name_of(attributes(body, len(LINK))[IFLA_IFNAME]) for _, body in kernel.messages(GETLINK, LINK)]


@pytest.mark.parametrize("fault", ["interrupted", "overrun"])
def test_a_disturbed_dump_is_made_again(faults: list[str], fault: str) -> None:
    faults += [fault, fault]
    assert links().count("lo") == 1
    assert faults == []


def test_a_dump_that_is_always_interrupted_is_taken_as_it_is(faults: list[str]) -> None:
    faults += ["interrupted"] * 4
    assert links().count("lo") == 1
    assert len(faults) == 1, "three attempts, no more"


def test_a_person_is_told_what_is_missing() -> None:
    told = str(refusal(PermissionError(errno.EPERM, "x"), "read the table"))
    assert told.startswith("cannot read the table: ")
    assert "CAP_NET_ADMIN" in told
    assert "nf_tables" in str(refusal(OSError(errno.EOPNOTSUPP, "x"), "read"))

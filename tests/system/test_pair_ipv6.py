"""A pair whose machines know each other by IPv6 alone, and whose clients and nodes speak nothing else."""

import socket
import time
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest

from tests.lab.capture import Capture
from tests.lab.lab import FLOATING, VIPS6, Segment
from tests.system.pair_clients import followed_downloads, nodes_of_clients, tracking
from tests.system.pair_stage import (
    CHECK,
    DIRECT,
    ROUTER_ID,
    TRANSLATED,
    WEB,
    Pair,
    in_pair,
    no_new_one_failed,
    nothing,
    short,
    stays,
)

pytestmark = pytest.mark.timeout(300)
VIP = VIPS6[0]
MACHINES = {"balancer": Segment.SERVERS.v6(2), "standby": Segment.SERVERS.v6(3)}


def service(protocol: str, port: int, **settings: object) -> dict[str, object]:
    segment, names = (Segment.INNER, "xy") if port == TRANSLATED else (Segment.SERVERS, "ab")
    nodes = {name: {"address": f"[{segment.v6(11 + number)}]:{port}"} for number, name in enumerate(names)}
    listen = f"[{VIP}]:{port}"
    return {"protocol": protocol, "listen": listen, "nodes": nodes, "health": CHECK, "slow_start": "0s", **settings}


SOURCES6 = tuple(Segment.CLIENTS.v6(number) for number in range(60, 69))
WAYS = (DIRECT, TRANSLATED, WEB)
SERVICES = {
    "direct": service("tcp", DIRECT, mode="l4_dr"),
    "translated": service("tcp", TRANSLATED, mode="l4_nat"),
    "web": service("http", WEB, persistence={"by": "source_ip", "ttl": "10m", "mask6": 128}),
}


@pytest.fixture(scope="module")
def pair6(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    wanted: dict[str, Any] = {
        "shown": SERVICES,
        # The default pace, which other pairs of tests do not have: see `PACE`.
        "cluster": {"more_addresses": [FLOATING[1]], "advert": "200ms"},
        "addresses": MACHINES,
        "vip": VIP,
    }
    with in_pair(tmp_path_factory.mktemp("pair"), **wanted) as pair:
        for source in SOURCES6:
            pair.lab.far.host.add_address(f"{source}/64")
        yield pair


def answered(pair6: Pair) -> None:
    """Wait until new clients of every way are answered."""
    for port in WAYS:
        pair6.prober(port).__enter__().kill()


def shout(target: str) -> None:
    """Send an advertisement of RFC 5798 with the highest priority; the kernel puts in its checksum."""
    content = bytes([0x31, ROUTER_ID, 255, 1, 0, 20, 0, 0]) + IPv6Address(f"fe80::112:{ROUTER_ID}").packed
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, 112) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, 6)
        for _ in range(10):
            sock.sendto(content, (target, 0))
            time.sleep(0.05)


def test_the_two_meet_by_ipv6_and_addresses_move_on_request(pair6: Pair) -> None:
    active, standby = pair6.whole()
    known = active.cluster()
    assert {known["address"], known["peer"]["address"]} == set(MACHINES.values())
    with pair6.probers(*WAYS) as probers:
        active.hand_over()
        assert pair6.moved_from(active) is standby
        answered(pair6)
        pair6.whole()
    for prober in probers:
        no_new_one_failed(prober.seen)


def test_a_power_loss_interrupts_new_connections_for_a_moment(pair6: Pair) -> None:
    active, standby = pair6.whole()
    with pair6.probers(*WAYS) as probers:
        with pair6.without_power(active):
            pair6.moved_from(active)
            answered(pair6)
        pair6.whole()
    assert pair6.holders() == [standby]
    for way, prober in zip(WAYS, probers, strict=True):
        short(prober.seen, f"port {way}")


def test_what_is_open_and_what_is_known_of_clients_survives_a_power_loss(pair6: Pair) -> None:
    active, standby = pair6.whole()
    with tracking(active, standby):
        before = nodes_of_clients(pair6, SOURCES6)
        downloads = followed_downloads(pair6, active, standby)
        with pair6.without_power(active):
            assert all(download.is_whole() for download in downloads)
            assert nodes_of_clients(pair6, SOURCES6[::-1]) == before
    assert set(before.values()) == {"a", "b"}
    pair6.whole()


def test_who_is_not_the_peer_moves_no_address(pair6: Pair, tmp_path: Path) -> None:
    """Its advertisement, of the highest priority there is, comes from a node of the same segment."""
    active, _ = pair6.whole()
    stranger = pair6.lab.nodes["a"]
    capture = Capture(active.host, tmp_path / "came", f"ip6 src host {stranger.address6} and ip6 proto 112")
    with pair6.prober() as prober, capture:
        stranger.host.inside(partial(shout, active.address))
        stays(lambda: pair6.holders() == [active])
    nothing(prober.seen)
    assert capture.bytes_of() > 0, "they came as far as the card"

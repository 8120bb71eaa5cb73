"""What a document can say of a pair and what not, each with the way out."""

import pytest

from equipoise.app import wiring
from equipoise.base.errors import ConfigError
from equipoise.config.loading import load
from equipoise.config.models import Catalogue

SITE = """\
site: general-hospital
services:
  pacs:
    protocol: dicom
    listen: [{listen}]
    nodes: {{a: {{address: 10.0.0.11}}}}
cluster: {{{cluster}}}
"""
VIPS = "10.0.0.100, 10.0.0.101, 'fd00::100'"
JOINED = "peer: 10.0.0.3, role: primary"


@pytest.fixture(scope="module")
def installed() -> Catalogue:
    return wiring.catalogue()


def problems(catalogue: Catalogue, cluster: str, listen: str = VIPS) -> list[str]:
    try:
        load(SITE.format(listen=listen, cluster=cluster), "site.yaml", catalogue)
    except ConfigError as error:
        return [str(problem).partition(": ")[2] for problem in error.problems]
    return []


@pytest.mark.parametrize(
    "cluster",
    [
        "",
        JOINED,
        f"{JOINED}, address: 10.0.0.2, interface: eth0, preempt: true, router_id: 254",
        f"{JOINED}, on_secondary: [10.0.0.101, 'FD00::100']",
        f"{JOINED}, more_addresses: 10.0.1.1",
        f"{JOINED}, more_addresses: [10.0.1.1, 10.0.1.2], on_secondary: 10.0.0.101",
        "peer: 'fd00::3', address: 'fd00::2', role: secondary",
    ],
)
def test_what_is_right_is_taken(installed: Catalogue, cluster: str) -> None:
    assert problems(installed, cluster) == []


def test_more_addresses_alone_are_enough(installed: Catalogue) -> None:
    assert problems(installed, "more_addresses: 10.0.1.1", listen="0.0.0.0:104") == []


@pytest.mark.parametrize(
    ("cluster", "where", "what", "way_out"),
    [
        (
            "more_addresses: 10.0.0.11",
            "cluster.more_addresses",
            "'10.0.0.11' is the address of a node",
            "take it out",
        ),
        ("peer: 10.0.0.3", "cluster.role", "not which of the two this machine is", "write `role: primary` on one"),
        (f"{JOINED}, address: 10.0.0.3", "cluster.peer", "'10.0.0.3' is this machine's own address too", "write that"),
        (f"{JOINED}, address: 'fd00::2'", "cluster.address", "IPv6 and the peer '10.0.0.3' IPv4", "of one family"),
        (f"{JOINED}, interface: lo", "cluster.interface", "'lo' is loopback", "name the one that has a cable"),
        (f"on_secondary: [{VIPS}]", "cluster.on_secondary", "leaves the primary without work", "swap the two roles"),
        ("on_secondary: 10.0.0.99", "cluster.on_secondary", "no service listens on", "write it in the listen of a"),
        ("on_secondary: 127.0.0.1", "cluster.on_secondary", "is loopback", "take it out"),
        (f"{JOINED}, on_secondary: 10.0.0.3", "cluster.on_secondary", "one machine's own address", "take it out"),
        ("on_secondary: [10.0.0.101, 10.0.0.101]", "cluster.on_secondary.1", "is there twice", "take one of them out"),
        ("more_addresses: 10.0.0.101", "cluster.more_addresses", "moves already, since a service", "take it out"),
        ("more_addresses: 'fd00::100'", "cluster.more_addresses", "moves already, since a service", "take it out"),
        (
            "more_addresses: 10.0.1.1, on_secondary: 10.0.1.1",
            "cluster.more_addresses",
            "is in on_secondary too",
            "take it out of one of the two",
        ),
    ],
)
def test_what_is_wrong_is_said_with_the_way_out(
    installed: Catalogue, cluster: str, where: str, what: str, way_out: str
) -> None:
    (said,) = problems(installed, cluster)
    assert said.startswith(f"{where}: ")
    assert what in said
    assert way_out in said


@pytest.mark.parametrize("listen", ["0.0.0.0:104", "127.0.0.1:104", "10.0.0.3:104"])
def test_a_pair_without_an_address_that_can_move_is_refused(installed: Catalogue, listen: str) -> None:
    (said,) = problems(installed, JOINED, listen)
    assert said.startswith("cluster: no address can move from machine to machine: no service listens on one")

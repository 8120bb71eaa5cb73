import os
import subprocess
import sys
from collections import Counter
from math import log

import pytest

from equipoise.policy.base import Client
from equipoise.policy.source_hash import SourceHash, score
from tests.unit.policy.candidate import Candidate

NODES = [Candidate("pacs-a", 100, 0), Candidate("pacs-b", 100, 0), Candidate("pacs-c", 50, 0)]
CLIENTS = [f"192.0.{third}.{last}" for third in range(20) for last in range(1, 251)]


def node_of(source_ip: str, nodes: list[Candidate] = NODES) -> str:
    return SourceHash().pick(nodes, Client(source_ip, "ANY"))


def test_the_hash_is_blake2b_of_address_and_name() -> None:
    """The eight bytes are those of `printf '192.0.2.1\\0pacs-a' | b2sum -l 64`."""
    u = (0x8583956B58691AE5 >> 12) / 2**52
    assert score("192.0.2.1", "pacs-a", 100) == pytest.approx(-100 / log(u))


def test_every_version_sends_these_clients_to_these_nodes() -> None:
    """Written down once: a version that differs would move clients when it is installed."""
    assert "".join(node_of(f"192.0.2.{last}")[-1] for last in range(1, 21)) == "bcacaaabcbacaababccb"
    assert node_of("2001:db8::1") == "pacs-a"


def test_another_process_agrees() -> None:
    """Python's own `hash` of a text differs from process to process."""
    program = (
        "from equipoise.policy.source_hash import score;"
        "print(max('abc', key=lambda node: score('192.0.2.9', node, 1.0)))"
    )
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        said = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=True, text=True
        )
        assert said.stdout.strip() == max("abc", key=lambda node: score("192.0.2.9", node, 1.0))


def test_only_the_address_decides() -> None:
    one = SourceHash()
    asked = [one.pick(NODES, Client("192.0.2.1", calling_ae)) for calling_ae in ("CT1", "MR1", "CT1")]
    busy = [Candidate(node.name, node.weight, connections=500, work=1e12) for node in reversed(NODES)]
    assert {*asked, one.pick(busy, Client("192.0.2.1", "CT1"))} == {"pacs-b"}


def test_clients_are_spread_by_weight() -> None:
    counted = Counter(node_of(client) for client in CLIENTS)
    for node in NODES:
        assert counted[node.name] / len(CLIENTS) == pytest.approx(node.weight / 250, abs=0.02)


def test_only_the_clients_of_a_node_that_leaves_move() -> None:
    before = {client: node_of(client) for client in CLIENTS}
    after = {client: node_of(client, NODES[1:]) for client in CLIENTS}
    assert {before[client] for client in CLIENTS if before[client] != after[client]} == {"pacs-a"}
    moved = Counter(after[client] for client in CLIENTS if before[client] == "pacs-a")
    assert moved["pacs-b"] / moved.total() == pytest.approx(2 / 3, abs=0.04)


def test_a_node_that_gains_weight_takes_clients_and_gives_none() -> None:
    heavier = [*NODES[:2], Candidate("pacs-c", 100, 0)]
    moved = {(node_of(client), node_of(client, heavier)) for client in CLIENTS}
    assert {to for away, to in moved if away != to} == {"pacs-c"}


@pytest.mark.parametrize("weight", [1e-6, 1.0, 256e6])
def test_scores_are_numbers_above_zero(weight: float) -> None:
    assert all(0 < score(client, "a", weight) < float("inf") for client in CLIENTS)

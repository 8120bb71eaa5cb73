from pathlib import Path

import pytest

from equipoise.engines.layer4.record import Record
from equipoise.plan.states import NodeState
from tests.unit.engines.layer4.plans import artifact_of

UP, DOWN, GONE = NodeState("up", 100), NodeState("down", 30), NodeState("down", 100, reachable=False)
NODES = "{a: {address: 10.0.0.11}, b: {address: 10.0.0.12}, c: {address: 10.0.0.13}}"
POOLS = artifact_of(
    f"s: {{protocol: tcp, ports: [80], mode: l4_nat, listen: 10.0.0.100, nodes: {NODES}}}",
).pools


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "layer4.json"


def test_nodes_of_these_pools_are_kept_as_they_are(file: Path) -> None:
    states = {"s/a": UP, "s/b": DOWN, "s/c": GONE, "other/a": DOWN}
    Record(file).keep(POOLS, states)
    assert Record(file).read() == {"s/a": UP, "s/b": DOWN, "s/c": GONE}


def test_what_an_operator_says_is_written_down_elsewhere(file: Path) -> None:
    Record(file).keep(POOLS, {"s/a": NodeState("drain", 100), "s/b": NodeState("disabled", 100)})
    assert Record(file).read() == {}


def test_the_last_word_holds(file: Path) -> None:
    record = Record(file)
    record.keep(POOLS, {"s/a": DOWN})
    record.keep(POOLS, {"s/a": UP, "s/b": GONE})
    assert record.read() == {"s/a": UP, "s/b": GONE}
    record.forget()
    assert not file.exists()
    assert record.read() == {}
    record.forget()


CONTENTS = [
    b"",
    b"[1, 2]",
    b'{"s/b": {"state": "asleep", "weight": 1}}',
    b'{"s/b": {"state": "do',
    b"\xff",
    b'{"\xff": 1}',
]


@pytest.mark.parametrize("content", CONTENTS)
def test_what_cannot_be_read_is_nothing(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert Record(file).read() == {}


def test_where_nothing_can_be_written_nothing_fails(tmp_path: Path) -> None:
    for file in (tmp_path / "absent" / "layer4.json", tmp_path):
        record = Record(file)
        record.keep(POOLS, {"s/a": DOWN})
        assert record.read() == {}
    Record(tmp_path / "absent" / "layer4.json").forget()

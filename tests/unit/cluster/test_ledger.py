"""When each override was given: the last one holds, whoever tells it."""

from pathlib import Path

import pytest

from equipoise.base.errors import EquipoiseError
from equipoise.cluster.ledger import Ledger
from equipoise.plan.states import Override

DRAIN, DISABLED, NONE = Override(drain=True), Override(disabled=True), Override()
NODES = {"ct/a", "ct/b"}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "cluster" / "overrides.json")


def exchange(one: Ledger, other: Ledger) -> None:
    other.take(other.newer(one.all(NODES), NODES))
    one.take(one.newer(other.all(NODES), NODES))


def held(ledger: Ledger) -> dict[str, Override]:
    return {key: entry.override for key, entry in ledger.all(NODES).overrides.items()}


def test_the_last_one_holds_and_outlives_a_restart(ledger: Ledger, tmp_path: Path) -> None:
    other = Ledger(tmp_path / "other")
    assert ledger.digest(NODES) == other.digest(NODES)
    assert ledger.note({"ct/a": DRAIN}, "x") is None
    assert ledger.digest(NODES) != other.digest(NODES)
    exchange(ledger, other)
    other.note({"ct/a": NONE}, "y")
    exchange(ledger, other)
    assert held(ledger) == held(other) == {"ct/a": NONE}
    assert held(Ledger(tmp_path / "cluster" / "overrides.json")) == {"ct/a": NONE}
    assert ledger.digest(NODES) == other.digest(NODES)


def test_the_same_word_again_is_newer(ledger: Ledger, tmp_path: Path) -> None:
    other = Ledger(tmp_path / "other")
    ledger.note({"ct/a": DRAIN}, "x")
    exchange(ledger, other)
    other.note({"ct/b": DISABLED}, "y")
    other.note({"ct/a": NONE}, "y")
    for _ in range(3):
        ledger.note({"ct/a": DRAIN}, "x")
    exchange(ledger, other)
    assert held(other)["ct/a"] == DRAIN


def test_nodes_that_are_not_known_here_are_left_out(ledger: Ledger, tmp_path: Path) -> None:
    other = Ledger(tmp_path / "other")
    other.note({"ct/a": DRAIN, "gone/z": DRAIN}, "y")
    assert set(ledger.newer(other.all({*NODES, "gone/z"}), NODES)) == {"ct/a"}
    assert set(other.all(NODES).overrides) == {"ct/a"}


def test_what_differs_from_what_holds_is_found(ledger: Ledger) -> None:
    ledger.note({"ct/a": DRAIN, "ct/b": NONE}, "x")
    assert ledger.differing({"ct/a": DRAIN}, NODES) == []
    assert ledger.differing({}, NODES) == ["ct/a"]
    assert sorted(ledger.differing({"ct/b": DISABLED, "ct/c": DRAIN}, {*NODES, "ct/c", "ct/d"})) == [
        "ct/a",
        "ct/b",
        "ct/c",
    ]


def test_what_cannot_be_kept_is_said(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "cluster" / "overrides.json" / "in the way").mkdir(parents=True)
    assert "cannot be written" in str(ledger.note({"ct/a": DRAIN}, "x"))
    assert held(ledger) == {"ct/a": DRAIN}


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"ct/a": {"override": {"drain": 1}, "stamp": {}}}'])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger").write_bytes(content)
    with pytest.raises(EquipoiseError, match="mend the file, or remove it"):
        Ledger(tmp_path / "ledger")

from collections.abc import Iterable, Mapping

import pytest

from equipoise.engines.layer4 import marks as module
from equipoise.engines.layer4.marks import MASK, PREFIX, marks, marks_of
from tests.unit.engines.layer4.plans import TABLE, plan_of

SERVICES = """
a: {protocol: tcp, mode: l4_dr, ports: [80], listen: 10.0.0.100, nodes: {x: {address: 10.0.0.11}}}
b: {protocol: tcp, mode: l4_nat, ports: [81], listen: 10.0.0.100, nodes: {x: {address: 10.0.0.11}}}
c: {protocol: dicom, listen: 10.0.0.101, nodes: {x: {address: 10.0.0.11}}}
"""


def colliding(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have every name hash to the same number."""

    class Hash:
        def __init__(self, data: bytes, digest_size: int) -> None:
            pass

        def digest(self) -> bytes:
            return number.to_bytes(3, "big")

    monkeypatch.setattr(module, "blake2b", Hash)


def test_a_mark_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert marks_of(["pacs/a", "pacs/b"], TABLE) == {"pacs/a": 0x4577E994, "pacs/b": 0x45A724BB}


def test_a_mark_depends_on_nothing_but_the_name() -> None:
    alone = marks_of(["pacs/a"], TABLE)["pacs/a"]
    assert marks_of(["pacs/b", "pacs/a", "web/a"], TABLE)["pacs/a"] == alone


def test_two_instances_on_one_machine_tell_their_nodes_apart() -> None:
    keys = [f"pacs/{name}" for name in "abcdefgh"]
    one, other = (set(marks_of(keys, table).values()) for table in (TABLE, f"{TABLE}-0a1b2c3d"))
    assert not one & other


def test_many_marks_are_distinct_and_told_from_those_of_others() -> None:
    found = marks_of((f"service-{i // 100}/node-{i % 100}" for i in range(10_000)), TABLE)
    assert len(set(found.values())) == 10_000
    assert all(mark & MASK == PREFIX for mark in found.values())


@pytest.mark.parametrize("number", [0, 0x123456, 0xFFFFFE, 0xFFFFFF])
def test_names_with_one_hash_have_marks_of_their_own(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    colliding(monkeypatch, number)

    def given(keys: Iterable[str]) -> Mapping[str, int]:
        return marks_of(keys, TABLE)

    found = given(["s/c", "s/a", "s/b"])
    assert [found[key] for key in ("s/a", "s/b", "s/c")] == [PREFIX | (number + i) % (1 << 24) for i in range(3)]
    assert given(["s/b", "s/c", "s/a"]) == found, "whatever their order"


def test_only_nodes_that_the_kernel_carries_traffic_to_have_one() -> None:
    found = marks(plan_of(SERVICES), TABLE)
    assert set(found) == {"a/x", "b/x"}
    assert found == marks_of(found, TABLE)

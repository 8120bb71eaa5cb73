"""Connections to receivers: which one is taken, which one has to go."""

from equipoise.engines.gateway.hl7.links import Links
from equipoise.engines.gateway.pool import Picked
from tests.unit.engines.hl7.scene import PORT, FakeLink, Site, node


def link(links: Links, name: str = "a", port: int = PORT, free_at_s: float | None = 0.0) -> FakeLink:
    made = FakeLink(Site(), Picked(node(name, port=None), 0), port)
    made.is_open = True
    links.add(made)
    if free_at_s is not None:
        links.free(made, free_at_s)
    return made


def test_the_one_last_used_is_taken_first() -> None:
    links = Links()
    first, second = link(links), link(links, free_at_s=1)
    assert [links.take("a", PORT, b"1"), links.take("a", PORT, b"1"), links.take("a", PORT, b"1")] == [
        second,
        first,
        None,
    ]
    assert links.count("a") == 2


def test_nodes_and_ports_are_told_apart() -> None:
    links = Links()
    there = link(links, "a", PORT)
    assert links.take("a", 2576, b"1") is None
    assert links.take("b", PORT, b"1") is None
    assert links.take("a", PORT, b"1") is there


def test_those_that_cannot_be_used_are_dropped() -> None:
    links = Links()
    good, dead = link(links), link(links)
    dead.is_seen_dead = True
    assert links.take("a", PORT, b"1") is good
    assert dead.is_closing
    assert links.count("a") == 2, "it is counted until it is closed on both sides"
    links.gone(dead)
    assert links.count("a") == 1


def test_room_is_made_by_closing_a_free_one_of_another_port() -> None:
    links = Links()
    other = link(links, port=2576)
    assert not links.make_room("a", 1)
    assert other.is_closing
    assert links.take("a", 2576, b"1") is None
    assert not links.make_room("a", 1), "not before it is gone"
    links.gone(other)
    assert links.make_room("a", 1)


def test_no_room_is_made_of_one_that_is_in_use() -> None:
    links = Links()
    busy = link(links, free_at_s=None)
    assert not links.make_room("a", 1)
    assert not busy.is_closing
    assert links.make_room("a", 2)
    assert links.make_room("a", None)
    assert links.make_room("b", 1)


def test_free_ones_are_closed_by_node_and_by_age() -> None:
    links = Links()
    old, young, elsewhere = link(links, free_at_s=1), link(links, free_at_s=5), link(links, "b", free_at_s=1)
    links.close_free("a", unused_since_s=3)
    assert [each.is_closing for each in (old, young, elsewhere)] == [True, False, False]
    links.close_free()
    assert [each.is_closing for each in (old, young, elsewhere)] == [True, True, True]
    assert links.take("a", PORT, b"1") is None


def test_when_all_are_gone_nothing_is_left() -> None:
    links = Links()
    made = [link(links), link(links, "b"), link(links, port=2576, free_at_s=None)]
    assert set(links) == set(made)
    for each in made:
        links.gone(each)
        links.gone(each)
    assert not links
    assert not list(links)
    assert links.take("a", PORT, b"1") is None

from dataclasses import replace

import pytest

from equipoise.engines.layer4.artifact import Artifact
from equipoise.engines.layer4.kernel_tables import Names
from equipoise.engines.layer4.transaction import Filling, is_cut, leftovers, newly_cut, nodes, removal, structure
from equipoise.plan.states import NodeState
from tests.unit.engines.layer4.plans import artifact_of, fillings_of, text_of

NODES = "{a: {address: 10.0.0.11}, b: {address: 10.0.0.12}}"
SERVICES = f"""
d: {{protocol: tcp, ports: [80], mode: l4_dr, listen: 10.0.0.100, nodes: {NODES}}}
n: {{protocol: tcp, ports: [81], mode: l4_nat, listen: 10.0.0.100, nodes: {NODES}}}
"""


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return artifact_of(SERVICES)


def names(artifact: Artifact, family: str, **more: set[str]) -> Names:
    """Return what the kernel has once `artifact` is in force, and more."""
    table = next(table for table in artifact.tables if table.family == family)
    by_kind = {kind: {each.name for each in table.keyed if each.kind == kind} for kind in ("map", "set")}
    return Names(
        chains=frozenset({chain.name for chain in table.chains} | more.get("chains", set())),
        sets=frozenset(by_kind["set"] | more.get("sets", set())),
        maps=frozenset(by_kind["map"] | more.get("maps", set())),
        counters=frozenset({*table.counters, *table.restarted} | more.get("counters", set())),
        hooks={},
    )


def test_only_our_tables_are_named_and_nothing_is_flushed_that_packets_fill(artifact: Artifact) -> None:
    lines = text_of(artifact).splitlines()
    assert all(" netdev equipoise" in line or " inet equipoise" in line for line in lines)
    flushed = {line.split()[-1] for line in lines if line.startswith(("flush map", "flush set"))}
    assert not any(name.startswith(("flows", "closing", "persist")) for name in flushed)
    assert not any("ruleset" in line for line in lines)


def test_a_counter_of_turns_begins_anew_and_all_others_go_on(artifact: Artifact) -> None:
    found = {family: names(artifact, family) for family in ("netdev", "inet")}
    lines = structure(artifact, fillings_of(artifact), found).splitlines()
    deleted = [line for line in lines if line.startswith("delete")]
    assert deleted == ["delete counter netdev equipoise picks-d", "delete counter inet equipoise picks-n"]


def test_a_table_that_nothing_needs_any_more_goes(artifact: Artifact) -> None:
    found = {family: names(artifact, family) for family in ("netdev", "inet")}
    only = replace(artifact, tables=artifact.tables[:1], pools=artifact.pools[:1])
    lines = structure(only, fillings_of(only), found).splitlines()
    assert [line for line in lines if "inet" in line] == ["delete table inet equipoise"]


def test_without_its_interface_a_node_is_reset_and_nothing_comes_in(artifact: Artifact) -> None:
    lines = structure(artifact, fillings_of(artifact), {}, ["eth0"]).splitlines()
    assert not any("eth0" in line for line in lines)
    assert "add rule netdev equipoise to-d/a reject with tcp reset" in lines
    assert "add rule inet equipoise to-n/a accept" in lines, "translation needs no interface by name"
    elsewhere = structure(artifact, fillings_of(artifact), {}, ["eth1"])
    assert elsewhere == text_of(artifact)


def test_nothing_is_left_over_where_the_plan_is_as_it_was(artifact: Artifact) -> None:
    assert leftovers(artifact, {family: names(artifact, family) for family in ("netdev", "inet")}) == ""
    assert leftovers(artifact, {}) == ""


def test_what_a_former_plan_leaves_goes_in_the_order_of_its_use(artifact: Artifact) -> None:
    more = {"chains": {"from-x", "to-x/a"}, "maps": {"ways-x"}, "sets": {"takes-x"}, "counters": {"in-x/a"}}
    assert leftovers(artifact, {"netdev": names(artifact, "netdev", **more)}).splitlines() == [
        "flush map netdev equipoise ways-x",
        "delete chain netdev equipoise from-x",
        "delete chain netdev equipoise to-x/a",
        "delete map netdev equipoise ways-x",
        "delete set netdev equipoise takes-x",
        "delete counter netdev equipoise in-x/a",
    ]


def test_what_nft_named_itself_is_no_leftover(artifact: Artifact) -> None:
    """A rule with braces has a set of its own, which the kernel gives out with the others and deletes with the rule."""
    found = {"netdev": names(artifact, "netdev", sets={"__set0", "__set12"}, maps={"__map3"})}
    assert leftovers(artifact, found) == ""


def test_node_states_that_say_nothing_new_change_nothing(artifact: Artifact) -> None:
    held = fillings_of(artifact)
    assert nodes(artifact, held, held) == ""


def test_only_what_changes_is_written(artifact: Artifact) -> None:
    held = fillings_of(artifact)
    without_slots = held | {"d": replace(held["d"], slots=())}
    assert nodes(artifact, held, without_slots) == "flush map netdev equipoise slots-d\n"
    none_takes = held | {"n": replace(held["n"], takes=frozenset())}
    assert nodes(artifact, held, none_takes) == "flush set inet equipoise takes-n\n"
    none_holds = held | {"n": replace(held["n"], holds=frozenset())}
    assert nodes(artifact, held, none_holds) == "flush set inet equipoise holds-n\n"
    d_a, d_b = (f"{member.mark:#x}" for member in artifact.pools[0].members)
    cut = held | {"d": replace(held["d"], cut=frozenset("a"))}
    assert nodes(artifact, held, cut).splitlines() == [
        "flush map netdev equipoise ways-d",
        f"add element netdev equipoise ways-d {{ {d_a} : goto cut-d, {d_b} : goto to-d/b }}",
    ]


def test_who_is_able_is_known_only_where_there_are_seats(artifact: Artifact) -> None:
    held = fillings_of(artifact)
    none_able = {service: replace(each, able=frozenset()) for service, each in held.items()}
    assert nodes(artifact, held, none_able) == "flush set inet equipoise able-n\n"
    n_a, n_b = (f"{member.mark:#x}" for member in artifact.pools[1].members)
    assert nodes(artifact, none_able, held).splitlines() == [
        "flush set inet equipoise able-n",
        f"add element inet equipoise able-n {{ {n_a}, {n_b} }}",
    ]


def limited() -> Artifact:
    return artifact_of(SERVICES.replace("10.0.0.12}", "10.0.0.12, max_connections: 7}").replace("l4_dr", "l4_nat"))


def test_a_node_that_is_cut_has_its_seats_emptied_once() -> None:
    artifact = limited()
    held = fillings_of(artifact)
    cut = {service: replace(each, cut=frozenset("ab")) for service, each in held.items()}
    emptied = [line for line in nodes(artifact, held, cut).splitlines() if "seats" in line]
    assert emptied == ["flush set inet equipoise seats-7-d/b", "flush set inet equipoise seats-7-n/b"]
    more = cut | {"d": replace(cut["d"], cut=frozenset("b"))}
    assert "seats" not in nodes(artifact, cut, more), "new connections have them when it is back"
    assert "seats" not in nodes(artifact, cut, held)
    assert "flush set inet equipoise seats-7-n/b\n" in structure(artifact, cut, {})
    assert "flush set inet equipoise seats" not in text_of(artifact)


def test_seats_of_another_limit_are_other_seats() -> None:
    artifact = limited()
    found = {"inet": names(artifact, "inet", sets={"seats-8-n/b"})}
    assert leftovers(artifact, found) == "delete set inet equipoise seats-8-n/b\n"


def test_who_is_newly_cut_has_a_mark_where_the_kernel_tracks_connections(artifact: Artifact) -> None:
    held = fillings_of(artifact)
    cut = {service: replace(each, cut=frozenset("a")) for service, each in held.items()}
    both = {service: replace(each, cut=frozenset("ab")) for service, each in held.items()}
    n_a, n_b = (member.mark for member in artifact.pools[1].members)
    assert newly_cut(artifact, held, cut) == {n_a}
    assert newly_cut(artifact, cut, both) == {n_b}
    assert newly_cut(artifact, both, cut) == set()
    assert newly_cut(artifact, {}, both) == {n_a, n_b}, "nothing is known of what was"


def test_a_pool_that_was_not_held_is_written_whole(artifact: Artifact) -> None:
    held = fillings_of(artifact)
    lines = nodes(artifact, {"d": held["d"]}, held).splitlines()
    flushed = {line.split()[-1] for line in lines if line.startswith("flush")}
    assert flushed == {"slots-n", "takes-n", "holds-n", "able-n", "ways-n"}


def test_each_slot_has_the_mark_of_its_node(artifact: Artifact) -> None:
    pool = artifact.pools[0]
    filling = Filling(slots=("b", "a", "b"), takes=frozenset("ab"), holds=frozenset("ab"))
    line = next(
        line for line in nodes(artifact, {}, fillings_of(artifact) | {"d": filling}).splitlines() if "slots-d {" in line
    )
    a, b = (f"{member.mark:#x}" for member in pool.members)
    assert line == f"add element netdev equipoise slots-d {{ 0 : {b}, 1 : {a}, 2 : {b} }}"


def test_removal_is_no_error_where_there_is_nothing() -> None:
    assert removal("equipoise-1234", ["inet"]) == ("add table inet equipoise-1234\ndelete table inet equipoise-1234\n")
    assert removal("equipoise", []) == ""


@pytest.mark.parametrize(
    ("state", "cuts", "keeps"),
    [
        (NodeState("up", 100), False, False),
        (NodeState("drain", 100), False, False),
        (NodeState("down", 100), False, False),
        (NodeState("down", 100, reachable=False), True, False),
        (NodeState("drain", 100, reachable=False), True, False),
        (NodeState("disabled", 100), True, True),
    ],
)
def test_who_is_cut(artifact: Artifact, state: NodeState, cuts: bool, keeps: bool) -> None:
    pool = replace(artifact.pools[0], cut=True)
    assert is_cut(pool, state) is cuts
    assert is_cut(replace(pool, cut=False), state) is keeps

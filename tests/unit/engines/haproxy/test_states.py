from dataclasses import replace

from equipoise.engines.haproxy.artifact import Pool, ServerLine
from equipoise.engines.haproxy.states import commands, cuts, shown
from equipoise.plan.states import NodeState

LINE = ServerLine("server a 10.0.0.1:80", (), "web/a", 100)
POOL = Pool("web", {"a": 1, "b": 2}, table="web", cut=True)


def test_the_file_has_weight_and_state() -> None:
    assert shown(LINE, {}, ()) == " weight 100"
    assert shown(LINE, {"web/a": NodeState("up", 7)}, ()) == " weight 7"
    assert shown(LINE, {"web/a": NodeState("up", 0)}, ()) == " weight 0"
    assert shown(LINE, {"web/a": NodeState("down", 7)}, ()) == " weight 7 disabled"
    assert shown(LINE, {"web/a": NodeState("disabled", 7)}, ()) == " weight 7 disabled"


def test_a_drain_is_weight_nought_until_it_is_over() -> None:
    states = {"web/a": NodeState("drain", 7)}
    assert shown(LINE, states, ()) == " weight 0"
    assert shown(LINE, states, {"web/b"}) == " weight 0"
    assert shown(LINE, states, {"web/a"}) == " weight 7 disabled"


def test_a_node_that_is_up_again_counts_as_drained_for_nobody() -> None:
    assert shown(LINE, {"web/a": NodeState("up", 7)}, {"web/a"}) == " weight 7"
    assert "set server web/a state ready" in commands(POOL, {"web/a": NodeState("up", 7)}, frozenset({"web/a"}))


def test_commands_of_a_node_that_takes_work() -> None:
    told = commands(POOL, {"web/a": NodeState("up", 7), "other/b": NodeState("down", 1)}, frozenset())
    assert told == ("set server web/a weight 7", "set server web/a state ready")


def test_commands_of_one_that_takes_none() -> None:
    drain, down = NodeState("drain", 7), NodeState("down", 7)
    for state, over, word in ((drain, False, "drain"), (drain, True, "maint"), (down, False, "maint")):
        told = commands(POOL, {"web/b": state}, frozenset({"web/b"} if over else ()))
        assert told == (
            f"set server web/b state {word}",
            "set server web/b weight 7",
            "clear table web data.server_id eq 2",
        )


def test_without_a_table_nothing_is_forgotten() -> None:
    pool = Pool("web", {"a": 1}, table=None, cut=False)
    assert len(commands(pool, {"web/a": NodeState("disabled", 7)}, frozenset())) == 2


def test_only_a_node_that_goes_down_is_cut() -> None:
    up, down, disabled = NodeState("up", 1), NodeState("down", 1), NodeState("disabled", 1)
    assert cuts(POOL, {"web/a": up, "web/b": up}, {"web/a": down, "web/b": disabled}) == ("web/a",)
    assert cuts(POOL, {"web/a": down}, {"web/a": down}) == ()
    assert cuts(POOL, {}, {"web/a": down}) == ("web/a",)
    assert cuts(Pool("web", {"a": 1}, None, cut=False), {"web/a": up}, {"web/a": down}) == ()


def test_bytes_without_messages_end_when_their_node_is_disabled() -> None:
    up, disabled = NodeState("up", 100), NodeState("disabled", 100)
    plain = Pool("hl7", {"a": 1}, table=None, cut=False, reads_http=False)
    assert cuts(plain, {"hl7/a": up}, {"hl7/a": disabled}) == ("hl7/a",)
    assert cuts(plain, {"hl7/a": disabled}, {"hl7/a": disabled}) == ()
    assert cuts(plain, {"hl7/a": up}, {"hl7/a": NodeState("drain", 100)}) == ()
    assert cuts(replace(plain, reads_http=True), {"hl7/a": up}, {"hl7/a": disabled}) == ()

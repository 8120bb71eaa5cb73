"""Two machines that talk and do not talk, in any order, agree in the end: on overrides, and on how documents stand."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from equipoise.cluster.ledger import Ledger
from equipoise.cluster.messages import Overrides, Revision
from equipoise.cluster.revisions import History, digest_of
from equipoise.plan.states import Override

OPPOSITE = {"same": "same", "ahead": "behind", "behind": "ahead", "conflict": "conflict"}
NODES = ("ct/a", "ct/b")

sides = st.integers(0, 1)
changes = st.lists(st.tuples(sides, st.sampled_from(["apply", "send", "take", "supersede"]), st.sampled_from("abcd")))
words = st.builds(Override, st.booleans(), st.booleans(), st.none() | st.integers(0, 3))
given_here = st.tuples(st.just("give"), sides, st.sampled_from(NODES), words)
ledger_steps = st.lists(given_here | st.tuples(st.sampled_from(["say", "hear", "lose"]), sides), max_size=40)


def start() -> History:
    return History(revision=Revision(number=1, digest=digest_of("start")))


@given(changes)
def test_both_see_the_same_relation_and_no_document_is_lost_without_a_word(
    steps: list[tuple[int, str, str]],
) -> None:
    known = [start(), start()]
    for side, what, text in steps:
        ours, theirs = known[side], known[1 - side]
        relation = ours.relation(theirs)
        assert theirs.relation(ours) == OPPOSITE[relation]
        if what == "apply":
            known[side] = ours.after(text)
            assert known[side].relation(ours) in ("ahead", "same")
        elif what == "send" and relation == "ahead":
            known[1 - side] = ours
        elif what == "take" and relation == "conflict":
            known[side] = theirs  # an operator said so
        elif what == "supersede" and relation == "conflict":
            number = max(ours.revision.number, theirs.revision.number) + 1
            names = tuple(f"{each.revision.number}:{each.revision.digest}" for each in (theirs, ours))
            known[side] = History(
                revision=Revision(number=number, digest=ours.revision.digest), ancestors=(*names, *ours.ancestors)[:100]
            )
            assert known[side].relation(theirs) == "ahead"
        elif relation == "same" and theirs.revision.number > ours.revision.number:
            known[side] = theirs
        for each in known:
            assert len(each.ancestors) <= 100
            assert each.relation(each) == "same"


@given(st.lists(st.text(max_size=3), max_size=30), st.integers(0, 30))
def test_whoever_only_missed_changes_is_behind(texts: list[str], missed: int) -> None:
    histories = [start()]
    for text in texts:
        histories.append(histories[-1].after(text))
    old, now = histories[max(0, len(histories) - 1 - missed)], histories[-1]
    assert old.relation(now) == ("same" if old.revision.digest == now.revision.digest else "behind")


@given(ledger_steps)
def test_however_words_travel_both_ledgers_end_equal_with_the_last_ones(steps: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        ledgers = [Ledger(Path(directory) / name) for name in ("one", "two")]
        under_way: list[list[Overrides]] = [[], []]
        for step in steps:
            match step:
                case ("give", int(side), str(key), Override() as override):
                    before = ledgers[side].all(NODES).overrides
                    ledgers[side].note({key: override}, "onetwo"[3 * side :][:3])
                    stamp = ledgers[side].all(NODES).overrides[key].stamp
                    assert all(stamp > entry.stamp for entry in before.values())
                case ("say", int(side)):
                    under_way[1 - side].append(ledgers[side].all(NODES))
                case ("hear", int(side)) if under_way[side]:
                    heard = under_way[side].pop()  # the last one first: words overtake each other
                    ledgers[side].take(ledgers[side].newer(heard, NODES))
                case ("lose", int(side)):
                    under_way[side].clear()
        last = {
            key: max((ledger.all(NODES).overrides[key] for ledger in ledgers if key in ledger.all(NODES).overrides),
                     key=lambda entry: entry.stamp)
            for key in {key for ledger in ledgers for key in ledger.all(NODES).overrides}
        }  # fmt: skip
        for one, other in ((0, 1), (1, 0)):
            ledgers[other].take(ledgers[other].newer(ledgers[one].all(NODES), NODES))
        assert ledgers[0].all(NODES) == ledgers[1].all(NODES)
        assert ledgers[0].digest(NODES) == ledgers[1].digest(NODES)
        assert ledgers[0].all(NODES).overrides == last

"""A service's messages under random faults, and what its receivers took: the model that `test_hl7_dispatch` holds."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import NamedTuple, TypeVar

from equipoise.engines.gateway.hl7.exchange import Exchange, Stage
from equipoise.engines.gateway.hl7.stream import Sent
from equipoise.plan.states import StateName
from equipoise.proto.hl7 import read_acknowledgement, read_header, read_patients
from tests.unit.engines.hl7.scene import COMMIT, NEVER, FakeLink, FakeSender, Site, acknowledgement, message

NAMES = "abc"
UNDER_WAY = (Stage.CONNECTION, Stage.WRITING, Stage.ANSWER)
CODES = ("AA", "AR", "AA", "AE", "CR", "CA")
MODES = (("", ""), ("", ""), COMMIT, ("", ""), NEVER)
PATIENTS = ("", "P", "Q", "P", "P~Q", "R")
MERGED = ("", "", "P", "", "R")
OTHER_ANSWERS = (b"nonsense", b"", acknowledgement("999"))
STATES: tuple[StateName, ...] = ("drain", "down", "disabled")
LONGEST_S = 600.0  # hold, queue_wait, three connects, three acknowledgements, and all of that for those before it


T = TypeVar("T")


def _one(of: Sequence[T], number: int) -> T:
    return of[number % len(of)]


class Delivered(NamedTuple):
    """A message that a receiver took, and by which connection."""

    link: FakeLink
    control_id: str


class Ward:
    """Senders that number their messages, receivers that are asked what to do."""

    def __init__(self, site: Site, senders: int) -> None:
        self.site = site
        self.senders = [site.sender() for _ in range(senders)]
        self.gone: list[FakeSender] = []
        self.sent: dict[str, tuple[FakeSender, frozenset[bytes]]] = {}  # by control ID, in order
        self.exchanges: list[Exchange] = []
        self.rejected: Counter[str] = Counter()
        self.said: set[bytes] = set()

    # What senders do; each happening has a number to choose by

    def one_sends(self, number: int) -> None:
        self._send(_one(self.senders, number), number)

    def all_send(self, number: int) -> None:
        for place, sender in enumerate(self.senders):
            self._send(sender, number + place)

    def one_leaves(self, number: int) -> None:
        self.leave(_one(self.senders, number))
        self.senders.append(self.site.sender())

    def _send(self, sender: FakeSender, number: int) -> None:
        if sender.exchange is not None:
            return
        control_id = f"M{len(self.sent)}"
        patient = PATIENTS[number // 3 % len(PATIENTS)]
        merged = MERGED[number // 7 % len(MERGED)] if patient else ""
        content = message(control_id, MODES[number % len(MODES)], patient=patient, merged=merged)
        found = read_patients([content])
        self.sent[control_id] = (sender, frozenset(found.current + found.merged))
        self.exchanges.append(sender.says(content))

    def leave(self, sender: FakeSender) -> None:
        self.senders.remove(sender)
        self.gone.append(sender)
        sender.leaves()

    def replace_the_closed(self) -> None:
        """Who is closed leaves, and comes again."""
        for sender in [each for each in self.senders if each.closed is not None]:
            self.leave(sender)
            self.senders.append(self.site.sender())

    # What receivers do

    @property
    def busy(self) -> list[FakeLink]:
        return [link for link in self.site.links if link.is_open and link.exchange is not None]

    @property
    def closing(self) -> list[FakeLink]:
        return [link for link in self.site.links if link.is_closing and not link.is_over]

    @property
    def taken(self) -> list[Delivered]:
        """What receivers have got whole, in the order in which it was sent."""
        return [
            Delivered(link, read_header(link.sent[place]).control_id.decode())
            for link, place in self.site.begun
            if place < len(link.sent) - bool(link.unsent)
        ]

    def one_opens(self, number: int, takes: Sent = Sent.ALL) -> None:
        if opening := self.site.opening:
            link = _one(opening, number)
            link.takes = takes
            link.opens()
            link.takes = Sent.ALL

    def one_opens_slowly(self, number: int) -> None:
        self.one_opens(number, Sent.SOME)

    def one_opens_in_vain(self, number: int) -> None:
        self.one_opens(number, Sent.NOTHING)

    def all_open(self, number: int) -> None:
        for link in self.site.opening:
            link.opens()

    def one_is_refused(self, number: int) -> None:
        if opening := self.site.opening:
            _one(opening, number).is_refused(ours=number % 2 == 0)

    def one_answers(self, number: int) -> None:
        if busy := self.busy:
            link = _one(busy, number)
            link.leaves()
            self._answer(link, CODES[number // 6 % len(CODES)])

    def all_answer(self, number: int) -> None:
        for link in self.busy:
            link.leaves()
            self._answer(link, "AA")

    def one_answers_early(self, number: int) -> None:
        if busy := [link for link in self.busy if link.unsent]:
            self._answer(_one(busy, number), CODES[number // 6 % len(CODES)])

    def _answer(self, link: FakeLink, code: str) -> None:
        exchange = link.exchange
        if exchange is None or not link.is_open:
            return
        control_id = exchange.header.control_id.decode()
        content = acknowledgement(control_id, code, f"R{len(self.said)}")
        self.said.add(content)
        self.rejected[control_id] += code in ("AR", "CR")
        link.says(content)

    def one_says_something_else(self, number: int) -> None:
        if busy := self.busy:
            _one(busy, number).says(OTHER_ANSWERS[number // 6 % len(OTHER_ANSWERS)])

    def one_is_lost(self, number: int) -> None:
        if standing := [link for link in self.site.links if link.is_open]:
            _one(standing, number).ends()

    def one_is_closed_unseen(self, number: int) -> None:
        """Have a receiver close a connection so that only a look at it shows that."""
        if free := [link for link in self.site.links if link.is_open and link.exchange is None]:
            _one(free, number).is_seen_dead = True

    def one_ends(self, number: int) -> None:
        if closing := self.closing:
            _one(closing, number).ends()

    def all_end(self, number: int) -> None:
        for link in self.closing:
            link.ends()

    # What happens to the service

    def a_node_turns(self, number: int) -> None:
        self.site.is_now(_one(NAMES, number), STATES[number // 3 % len(STATES)])

    def a_node_returns(self, number: int) -> None:
        self.site.is_now(_one(NAMES, number), "up")

    def time_passes(self, number: int) -> None:
        self.site.passes(_one((0.1, 0.6, 1.1, 2.1, 5.1, 31.0), number), step_s=0.3)

    # What holds

    def holds(self) -> None:
        """Hold what must be true at any moment."""
        self._answers_are_receivers()
        self._nothing_goes_twice()
        self._order_is_kept()
        self._places_are_counted()
        if self.site.limit == 1:
            assert all(self.site.there(name) <= 1 for name in NAMES)

    def _answers_are_receivers(self) -> None:
        taken = {each.control_id for each in self.taken}
        for sender in (*self.senders, *self.gone):
            for content in sender.answers:
                said = read_acknowledgement(content)
                assert said is not None
                control_id = said.control_id.decode()
                assert self.sent[control_id][0] is sender, "another's answer"
                if self.site.on_no_node != "reject" or said.code not in ("AR", "CR"):
                    assert content in self.said, "not a receiver's"
                if said.code in ("AA", "CA"):
                    assert control_id in taken, "acknowledged, and lost"

    def _nothing_goes_twice(self) -> None:
        if self.site.task.hl7.receivers_deduplicate:
            return
        for control_id, count in Counter(each.control_id for each in self.taken).items():
            assert count <= 1 + self.rejected[control_id], f"{control_id} went {count} times"

    def _order_is_kept(self) -> None:
        numbers = [int(each.control_id[1:]) for each in self.taken]
        groups: dict[object, list[int]] = {}
        for number in numbers:
            sender, patients = self.sent[f"M{number}"]
            for key in patients if self.site.key == "patient" else ():
                groups.setdefault(key, []).append(number)
            groups.setdefault(sender, []).append(number)
        for group in groups.values():
            assert all(before <= after for before, after in pairwise(group)), group

    def _places_are_counted(self) -> None:
        live = [each for each in self.exchanges if each.stage is not Stage.OVER]
        assert self.site.pool.open == sum(each.picked is not None for each in live)
        at_work = [each for each in live if each.stage in UNDER_WAY]
        assert len({id(each.sender) for each in at_work if not each.sender.is_gone}) == len(
            [each for each in at_work if not each.sender.is_gone]
        )
        if self.site.key == "patient":
            for one, two in combinations(at_work, 2):
                assert not self._patients(one) & self._patients(two), "two messages of one patient under way"

    def _patients(self, exchange: Exchange) -> frozenset[bytes]:
        return self.sent[exchange.header.control_id.decode()][1]

    # The end

    def ends(self) -> None:
        """Let everything come to its end while receivers say nothing more, and hold that nothing is left."""
        for _ in range(int(LONGEST_S)):
            self.site.passes(1, step_s=1)
            for link in self.closing:
                link.ends()
            if not any(each.stage is not Stage.OVER for each in self.exchanges):
                break
        assert [each.stage for each in self.exchanges if each.stage is not Stage.OVER] == [], "it waits for ever"
        self.holds()
        self.site.settled()
        for sender in [*self.senders]:
            assert sender.exchange is None
            self.leave(sender)
        assert self.site.delivery.connections._roomless == {}
        assert not self.site.dispatch._turns.is_taken
        assert set(self.site.dispatch._spread._settled.values()) <= {0}
        for link in self.site.opening:
            link.opens()
        self.site.passes(700, step_s=100)
        for link in self.closing:
            link.ends()
        assert list(self.site.delivery.connections.links) == []

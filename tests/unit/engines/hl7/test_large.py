"""Four long messages at a time, the others in turn."""

from equipoise.engines.gateway.hl7.large import MOST_AT_ONCE, Large


class Reader:
    def __init__(self) -> None:
        self.reads = 0

    def read_on(self) -> None:
        self.reads += 1


def crowd(large: Large, count: int) -> tuple[list[Reader], list[bool]]:
    readers = [Reader() for _ in range(count)]
    return readers, [large.enter(reader) for reader in readers]


def test_four_at_once_and_the_others_in_turn() -> None:
    large = Large()
    readers, let_in = crowd(large, MOST_AT_ONCE + 2)
    assert let_in == [True] * 4 + [False] * 2
    large.leave(readers[0])
    assert [reader.reads for reader in readers] == [0, 0, 0, 0, 1, 0]
    large.leave(readers[3])
    assert [reader.reads for reader in readers] == [0, 0, 0, 0, 1, 1]
    assert large.enter(readers[4])
    assert not large.enter(readers[0]), "who left waits like everybody"


def test_who_leaves_while_it_waits_is_not_called() -> None:
    large = Large()
    readers, _ = crowd(large, MOST_AT_ONCE + 2)
    large.leave(readers[4])
    large.leave(readers[0])
    assert (readers[4].reads, readers[5].reads) == (0, 1)


def test_asking_again_takes_no_second_place() -> None:
    large = Large()
    readers, _ = crowd(large, MOST_AT_ONCE + 1)
    assert not large.enter(readers[4])
    assert large.enter(readers[0])
    large.leave(readers[0])
    large.leave(readers[0])
    assert readers[4].reads == 1
    assert not large.enter(Reader())


def test_who_was_never_there_may_leave() -> None:
    large = Large()
    large.leave(Reader())
    assert crowd(large, MOST_AT_ONCE)[1] == [True] * MOST_AT_ONCE

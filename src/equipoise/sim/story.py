"""What is done to the simulated site, and when: one node is killed, another one drained, both return."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count


class Deed(StrEnum):
    """The value tells it in the past tense."""

    KILL = "was killed with SIGKILL"
    DRAIN = "was drained"
    RETURN = "returned"


@dataclass(frozen=True, slots=True)
class Beat:
    """One thing that is done to some nodes, so many seconds after the work began."""

    at_s: float
    deed: Deed
    nodes: tuple[str, ...]

    @property
    def text(self) -> str:
        """Tell it: `pacs-b was killed with SIGKILL`."""
        return f"{' and '.join(self.nodes)} {self.deed}"


def beats(nodes: Sequence[str], round_s: float) -> Iterator[Beat]:
    """Give the beats of round after round; each round takes other nodes.

    >>> [(beat.at_s, beat.text) for beat, _ in zip(beats(["a", "b", "c"], 20), range(3))]
    [(5.0, 'b was killed with SIGKILL'), (10.0, 'c was drained'), (15.0, 'b and c returned')]
    """
    for number in count():
        killed, drained = nodes[(number + 1) % len(nodes)], nodes[(number + 2) % len(nodes)]
        start_s = number * round_s
        yield Beat(start_s + round_s * 0.25, Deed.KILL, (killed,))
        yield Beat(start_s + round_s * 0.5, Deed.DRAIN, (drained,))
        yield Beat(start_s + round_s * 0.75, Deed.RETURN, (killed, drained))

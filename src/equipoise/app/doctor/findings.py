"""What the doctor says: one finding an item, with a way out where it is not good."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is: a problem keeps something from working, a warning will, or only some day or under load."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        item: What was looked at, in a word or two.
        seen: What was found there.
        do: What to do about it; empty where all is well.
    """

    item: str
    level: Level
    seen: str
    do: str = ""


def fine(item: str, seen: str) -> Finding:
    """Return a finding that nobody need act on."""
    return Finding(item, Level.OK, seen)


def warning(item: str, seen: str, do: str) -> Finding:
    """Return a finding that will hurt some day, or under load."""
    return Finding(item, Level.WARNING, seen, do)


def problem(item: str, seen: str, do: str) -> Finding:
    """Return a finding that keeps something from working."""
    return Finding(item, Level.PROBLEM, seen, do)

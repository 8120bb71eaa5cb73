"""The three ways in which something that is not a bug goes wrong.

A bug is a plain exception.  A message names the thing, the value and the rule, and says what to do.
"""

from dataclasses import dataclass


class EquipoiseError(Exception):
    """Any of the errors below: its text is meant for a person."""


class PeerError(EquipoiseError):
    """A peer's bytes are wrong; its connection ends, no other notices."""


class EngineError(EquipoiseError):
    """An engine could not do what was asked; the last good plan still runs."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a document: where it stands and what to do.

    Attributes:
        file: The document's name as the operator wrote it.
        line: Counted from 1; 0 where the problem has no place in the text.
        column: Counted from 1.
        path: The keys that lead there, joined by dots.
        message: The value, the rule and a way out.
    """

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return ": ".join(part for part in (place, self.path, self.message) if part)


class ConfigError(EquipoiseError):
    """The configuration cannot be used; nothing was changed."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)

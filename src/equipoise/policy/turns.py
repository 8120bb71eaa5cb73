"""Taking turns: which of several equals was picked longest ago.  Leaves out what makes them equal."""


class Turns:
    """Remembers in which order nodes were last picked."""

    def __init__(self) -> None:
        self._turn = 0
        self._last_turn: dict[str, int] = {}

    def last(self, name: str) -> int:
        """Return when a node was last picked, in turns; 0 for one that never was, so the least is next."""
        return self._last_turn.get(name, 0)

    def take(self, name: str) -> str:
        """Note that a node is picked, and return its name."""
        self._turn += 1
        self._last_turn[name] = self._turn
        return name

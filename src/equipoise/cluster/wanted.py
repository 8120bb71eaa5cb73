"""What an operator asks for, where this machine and another one are to become a pair."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WantedPair:
    """The pair, as it is to be from here; what is None is found out.

    Attributes:
        peer: The address of the other machine, with the port behind it where that is not the usual one.
        role: `primary` or `secondary`: which of the two this machine is to be.
        address: This machine's own, from which it talks to its peer.
        interface: Where the two hear each other.
    """

    peer: str
    role: str | None = None
    address: str | None = None
    interface: str | None = None

"""What the doctor looks at for a machine that is half of a pair, as plain values."""

from dataclasses import dataclass
from typing import Literal

Link = Literal["up", "down", "missing"]
# Tells the peer's kernel of translated connections: not installed, not running, with another file, with ours.
Tracking = Literal["absent", "stopped", "other", "ours"]


@dataclass(frozen=True, slots=True)
class PairFacts:
    """What a pair finds on this machine, and of its peer.

    Attributes:
        keepalived: The program's path; empty where there is none.
        nft: Likewise.
        strangers: Processes of keepalived on this machine's network that are not ours.
        starts_itself: Whether the distribution's service would start one at the next boot.
        whose: Whose rights they are, for people.
        lacking: Of the two rights that keepalived needs, those that are missing.
        link: The interface where the two hear each other.
        has_address: Whether the address from which this machine talks to its peer is on it.
        unreachable: Why the peer does not answer where the two talk; empty where it does, None where nobody was asked.
        tracking: Where services with `l4_nat` want it.
        tracking_file: What conntrackd is to be started with.
    """

    keepalived: str
    nft: str
    strangers: tuple[int, ...]
    starts_itself: bool
    whose: str
    lacking: tuple[str, ...]
    link: Link
    has_address: bool
    unreachable: str | None
    tracking: Tracking | None
    tracking_file: str

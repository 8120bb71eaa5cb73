"""What a document, and the small file beside it, say of the pair: two machines that take over from each other.

The document is the same on both machines.  What must differ between them (`Here`) may stand in it while there is only
one reader; `equipoise cluster join` writes it to a file of its machine, which has precedence.
Source: RFC 5798 for the numbers of VRRP.
"""

from typing import Annotated

from pydantic import Field

from equipoise.config.base import Duration, Port, Strict
from equipoise.config.fields import InterfaceName, SourceAddress
from equipoise.config.words import one_or_more, word

DEFAULT_PORT = 11251
# Below 30 ms a stalled processor looks like a dead machine; above 10 s nobody would call it failing over.
_Advert = Annotated[Duration, Field(ge=0.03, le=10.0)]


class Here(Strict):
    """What differs between the two machines of a pair."""

    peer: SourceAddress | None = None
    """The address of the other machine."""
    address: SourceAddress | None = None
    """This machine's own address, from which it talks to its peer.  By default the one that leads there."""
    interface: InterfaceName | None = None
    """Where the two hear each other.  By default the one that leads to the peer."""
    role: Annotated[str, *word(("primary", "secondary"))] | None = None
    """Which of the two this machine is: the addresses are at home on the primary, but for those of `on_secondary`."""


class Cluster(Here):
    """The pair of machines that this one belongs to; the addresses in `listen` are on one of the two."""

    router_id: Annotated[int, Field(ge=1, le=254)] = 51
    """The number of the pair on its segment, VRRP's virtual router identifier; no other VRRP router there may have it.
    Where there is `on_secondary`, the next number is used too."""
    advert: _Advert = 0.2
    """How often the one that holds addresses says so.  The other takes them over after about three of these in
    silence."""
    preempt: bool = False
    """Whether addresses go home as soon as their machine is back, which cuts what is open in `l7_snat` once more.  By
    default they stay where they are."""
    on_secondary: Annotated[tuple[SourceAddress, ...], one_or_more(SourceAddress)] = ()
    """Addresses whose home is the secondary, so that both machines work."""
    more_addresses: Annotated[tuple[SourceAddress, ...], one_or_more(SourceAddress)] = ()
    """Addresses that move with the primary's and that no service listens on: with `l4_nat`, the default gateway of the
    nodes."""
    port: Annotated[Port, Field(le=65533)] = DEFAULT_PORT
    """Where the two talk by TLS; the HAProxy of each takes the next port, and conntrackd the one after that."""

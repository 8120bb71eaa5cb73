"""What is particular to services that speak DICOM: titles, timers, and routes to the pools of others.

Leaves out what the keys mean (`engines/gateway`), and rules between them (`crosscheck.py`).
Source: DICOM PS3.8 section 9.1.4 (ARTIM); the other timers and limits are ours, with a reason beside each.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from equipoise.config.base import Duration, Size, Strict
from equipoise.config.fields import AeTitle, AeTitlePattern, CidrText, Name
from equipoise.config.words import one_or_more, word

SERVICE_WORDS = ("store", "query", "retrieve", "worklist", "mpps", "commitment")
ServiceWord = Annotated[str, *word(SERVICE_WORDS)]


class Dicom(Strict):
    """What is particular to a DICOM service."""

    LATER: ClassVar[Mapping[str, str]] = {
        "replay": "an association whose node dies ends with an abort, and the sender sends again",
        "shared_store": "it goes together with replay, which comes then",
    }
    called_ae_allow: Annotated[tuple[AeTitlePattern, ...], one_or_more(AeTitlePattern)] = ()
    """Called AE titles that are let in; `*` stands for any text, `?` for one character.  Empty: every title."""
    calling_ae_allow: Annotated[tuple[AeTitlePattern, ...], one_or_more(AeTitlePattern)] = ()
    """Calling AE titles that are let in, written likewise.  Empty: every title."""
    node_called_ae: AeTitle | None = None
    """The called AE title that nodes are given instead of the sender's.  By default it is passed on as it came."""
    connect_timeout: Duration = 2.0
    """How long one node may take to accept the connection before the next is tried."""
    setup_timeout: Duration = 20.0
    """How long an association may take to be set up in all, over all nodes that are tried."""
    artim: Duration = 30.0
    """How long a client may take to send its association request, or to close after its end."""
    idle_timeout: Duration = 43200.0
    """How long an association may be silent on both sides; modalities keep one open for hours."""
    stall_timeout: Duration = 120.0
    """How long a peer may leave a PDU unfinished, or the bytes unread that are sent to it."""
    max_associate: Annotated[Size, Field(ge=4096, le=1 << 20)] = 128 * 1024
    """The longest association request or answer; real ones have up to 21 kB."""


class Route(Strict):
    """Which association requests go to the pool of another service: those that meet every condition given here."""

    model_config = ConfigDict(title="Route")

    called_ae: Annotated[tuple[AeTitlePattern, ...], one_or_more(AeTitlePattern)] = ()
    """Called AE titles; `*` stands for any text, `?` for one character."""
    calling_ae: Annotated[tuple[AeTitlePattern, ...], one_or_more(AeTitlePattern)] = ()
    """Calling AE titles, written likewise."""
    service: Annotated[tuple[ServiceWord, ...], one_or_more(ServiceWord)] = ()
    """What is asked for, read from the presentation contexts: `store`, `query`, `retrieve`, `worklist`, `mpps`,
    `commitment`."""
    from_: Annotated[tuple[CidrText, ...], one_or_more(CidrText), Field(alias="from")] = ()
    """Networks that the client is in."""
    to: Name
    """The service whose pool takes the association: its nodes, balance, persistence, limits and health."""

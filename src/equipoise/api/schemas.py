"""What the API takes and gives, field by field.  `/status` is the supervisor's own document and passes as it is.

Source: DESIGN, "Commands".
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from equipoise.base.errors import Problem
from equipoise.config.fields import InterfaceName, SourceAddress
from equipoise.config.tree import MAX_DOCUMENT_BYTES
from equipoise.plan.diff import What


class Schema(BaseModel):
    """Refuses keys that it does not know: a misspelt `force` must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Document = Annotated[str, StringConstraints(max_length=MAX_DOCUMENT_BYTES)]


class PlanRequest(Schema):
    """A document to compare with what runs."""

    document: Document


class ApplyRequest(Schema):
    """A document to put into force; `force` overrules the guard."""

    document: Document
    force: bool = False


class NodesRequest(Schema):
    """An operator's change to nodes; `weight` without a number clears the override."""

    pattern: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    action: Literal["drain", "enable", "disable", "weight"]
    weight: Annotated[int, Field(ge=0, le=256)] | None = None


class ChangeAnswer(Schema):
    """One difference, its values as people write them; null where there is none."""

    path: str
    what: What
    old: str | None
    new: str | None


class PreviewAnswer(Schema):
    """What a document changes; in a pair also its revision, and why the peer has it not: empty where it has."""

    digest: str
    changes: list[ChangeAnswer]
    warnings: list[str]
    revision: int | None = None
    peer: str | None = None


class JoinRequest(Schema):
    """The other machine of the pair; with `token`, which it gave, it is joined, else invited.

    `peer` is an address, with the port behind it where that is not the usual one.
    """

    peer: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    token: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = None
    role: Literal["primary", "secondary"] | None = None
    address: SourceAddress | None = None
    interface: InterfaceName | None = None


class SyncRequest(Schema):
    """Whose document is to be in force on both, where both were given one."""

    take: Literal["ours", "theirs"] | None = None


class HandoverRequest(Schema):
    """Which groups of addresses are to move, all where there is none; `here`: to this machine."""

    groups: Annotated[list[Literal["primary", "secondary"]], Field(max_length=2)] = []
    here: bool = False


class NodesAnswer(Schema):
    """The nodes that were changed, each as SERVICE/NODE."""

    changed: list[str]


class GatewaysAnswer(Schema):
    """The process numbers of the gateways that serve now."""

    pids: list[int]


class EventsAnswer(Schema):
    """Events, newest last."""

    events: list[dict[str, Any]]


class IdentityAnswer(BaseModel):
    """Who answers."""

    version: str
    pid: int
    site: str


class ProblemAnswer(Schema):
    """One thing wrong in a document and where; `line` is 0 where it has no place in the text."""

    file: str
    line: int
    column: int
    path: str
    message: str

    @classmethod
    def of(cls, problem: Problem) -> "ProblemAnswer":
        """Return it as the API says it."""
        return cls(
            file=problem.file, line=problem.line, column=problem.column, path=problem.path, message=problem.message
        )


class ErrorAnswer(Schema):
    """Why a request was not carried out."""

    error: str
    problems: list[ProblemAnswer] = []

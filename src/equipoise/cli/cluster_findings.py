"""What is wrong with a pair, and what each thing means for whether it would survive the loss of a machine.

Pure: the document of `cluster status --json` in, findings out.  Leaves out how they look (`cluster_view.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

Document = dict[str, Any]


class Survival(IntEnum):
    """Whether clients are served on after the loss of either machine, the worst first."""

    NO = 0
    PERHAPS = 1
    YES = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        seen: What is seen.
        do: What to do about it.
        survival: What it means.
        passing: Whether it may be over in a moment: two machines are never looked at at the same time.
    """

    seen: str
    do: str
    survival: Survival
    passing: bool = False


def findings(document: Document) -> tuple[Finding, ...]:
    """Return what is wrong, the worst first; nothing where all is well."""
    found = _of_a_pair(document) if document["configured"] else _of_one_alone(document)
    return tuple(sorted(found, key=lambda finding: finding.survival))  # stable: what explains most comes first


def _of_one_alone(document: Document) -> Iterator[Finding]:
    invited = document["invitation"]
    if invited is not None:
        seen = f"there is no pair yet: {invited['peer']} was invited, and has not come"
        do = "run there what `equipoise cluster join` printed here; inviting it again gives a new token"
        yield Finding(seen, do, Survival.NO)
        return
    do = "`equipoise cluster join PEER`, with the address of a second machine, makes the two a pair"
    yield Finding("this machine is in no pair", do, Survival.NO)


def _of_a_pair(document: Document) -> Iterator[Finding]:
    yield from _split(document)
    if document["fault"]:
        seen = f"this machine cannot carry traffic, so it takes no addresses: {document['fault']}"
        yield Finding(seen, "`equipoise status` and `equipoise doctor`, here, say more", Survival.NO)
    yield from _peer(document)
    yield from _groups(document)
    yield from _shared(document)


def _split(document: Document) -> Iterator[Finding]:
    split = document["split"]
    both = [] if split is None else list(split["addresses"])
    both += [each for group in document["groups"] if group["holder"] == "both" for each in group["addresses"]]
    if not both:
        return
    found = f": {split['found']}" if split is not None and split["found"] else ""
    do = (
        f"clients come to one or the other by chance; see that the two hear each other on {document['interface']} "
        "(cable, switch, a firewall that drops IP protocol 112), or stop Equipoise on one of them until they do"
    )
    seen = f"two machines hold {_listed(dict.fromkeys(both))}{found}"
    yield Finding(seen, do, Survival.NO, passing=split is None)


def _peer(document: Document) -> Iterator[Finding]:
    peer = document["peer"]
    if not document["joined"]:
        seen = f"this machine and {peer['address']} have not joined: they share addresses, and nothing else"
        do = f"`equipoise cluster join {peer['address']}` here prints what to run there"
        yield Finding(seen, do, Survival.PERHAPS)
    elif not peer["connected"]:
        why = f": {peer['problem']}" if peer["problem"] else ""
        do = (
            f"see that it is switched on and that `equipoise status` answers there, and look at the network between "
            f"the two on {document['interface']}"
        )
        yield Finding(f"the peer, {peer['address']}, does not answer{why}", do, Survival.PERHAPS)
    elif peer["fault"]:
        seen = f"the peer, {peer['address']}, cannot carry traffic: {peer['fault']}"
        yield Finding(seen, "`equipoise status` and `equipoise doctor`, run there, say more", Survival.NO)
    elif peer["problem"]:
        do = "until that is settled, documents, overrides and persistence may not reach it"
        # A machine that died just now was heard a moment ago.
        yield Finding(f"the peer, {peer['address']}: {peer['problem']}", do, Survival.YES, passing=True)
    elif peer["role"] == document["role"]:
        do = "correct `role` in `cluster/here.yaml` of the state directory of one of them, and restart its supervisor"
        yield Finding(f"both machines say that they are the {peer['role']}", do, Survival.YES, passing=True)


def _groups(document: Document) -> Iterator[Finding]:
    peer = document["peer"]
    if not document["groups"]:
        do = "give services addresses of their own in `listen`: 0.0.0.0 and those of one machine stay where they are"
        yield Finding("no service listens on an address that could move", do, Survival.NO)
    for staying in document["staying"]:
        do = "have it `listen` on an address of its own, that of neither machine, which then moves with the others"
        seen = f"the service {staying['service']} listens on {_listed(staying['addresses'])}: that does not move"
        yield Finding(seen, do, Survival.NO)
    for group in document["groups"]:
        what = _listed(group["addresses"])
        why = f": {group['reason']}" if group["reason"] else ""
        if group["holder"] == "nobody":
            do = "nobody serves them: settle what is said here; `equipoise cluster handover --here` then takes them"
            yield Finding(f"neither machine has {what}{why}", do, Survival.NO, passing=True)
        if group["here"] == "unknown":
            do = "`equipoise doctor`, here, says what keeps it from running"
            yield Finding(f"keepalived does not run here, so this machine does not take {what}", do, Survival.NO)
        if group["here"] == "fault" and not document["fault"]:
            do = "`equipoise status` and `equipoise doctor`, here, say more"
            yield Finding(f"this machine cannot take {what}{why}", do, Survival.NO)
        if peer["connected"] and not peer["fault"] and group["there"] not in ("master", "backup"):
            does = "cannot take" if group["there"] == "fault" else "has no keepalived that would take"
            do = "`equipoise doctor`, run there, says more"
            yield Finding(f"the peer, {peer['address']}, {does} {what}", do, Survival.NO)


def _shared(document: Document) -> Iterator[Finding]:
    revision, lag = document["revision"], document["lag"]
    if revision["relation"] == "conflict":
        seen = (
            "both machines were given a document while they could not talk: "
            f"revision {revision['ours']} here, {revision['theirs']} on the peer"
        )
        do = "`equipoise cluster sync` shows the difference and the two ways out"
        yield Finding(seen, do, Survival.YES)
    if lag["overrides"] == "differ":
        do = "they are exchanged by themselves while the two talk; `equipoise events` says what keeps them"
        yield Finding("overrides of nodes differ on the two machines", do, Survival.YES, passing=True)


def _listed(addresses: Any) -> str:
    return ", ".join(addresses)

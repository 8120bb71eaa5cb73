"""Entries of the key `use`: what each of them gives, and what is wrong with it that the models cannot see.

Leaves out what becomes of an entry that is right (`templating.py`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from equipoise.config.fields import split_port
from equipoise.config.models import Persistence, Use
from equipoise.config.pieces import Piece
from equipoise.config.protocols import PROTOCOLS
from equipoise.config.suited import Finding
from equipoise.config.tree import Tree
from equipoise.config.words import nearest
from equipoise.templates.model import Template

_ASKED_OF_ALL = ("vip", "nodes")
_OWN_KEYS = tuple(name for name in Use.model_fields if name not in _ASKED_OF_ALL)
_OF_COOKIES = frozenset({"fallback", "cookie", "same_site"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of `use`, as it is written and as it is meant, and the template that it names."""

    number: int
    piece: Piece
    use: Use
    template: Template

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the parts of the template that are not left out."""
        return tuple(part for part in self.template.services if part not in self.use.without)

    @property
    def names(self) -> Mapping[str, str]:
        """Return the name of each part's service."""
        return {part: f"{self.use.name}-{part}" for part in self.parts}

    def given(self) -> dict[str, Piece]:
        """Return the values that the template asks for: as written, else their defaults."""
        written = {name: each for name, each in self.piece.entries.items() if each.content not in (None, [], {})}
        place = self.piece.place
        defaults = {name: Piece(ask.default, place, place) for name, ask in self.template.asks.items() if ask.default}
        return {name: each for name, each in {**defaults, **written}.items() if name in self.template.asks}

    def finding(self, message: str, *path: str | int) -> Finding:
        """Return what is wrong with the value at this path of the entry."""
        return Finding(("use", self.number, *path), message)


def wrong(entry: Entry, written: Mapping[str, Any], made: Mapping[str, str], tree: Tree) -> Iterator[Finding]:
    """Yield what is wrong with an entry.

    Args:
        entry: The entry.
        written: The services that the document has written out.
        made: Those that earlier entries make.
        tree: The document.
    """
    yield from _values(entry)
    yield from _parts(entry)
    yield from _ports(entry)
    yield from _persistence(entry)
    yield from _clashes(entry, written, made, tree)


def _persistence(entry: Entry) -> Iterator[Finding]:
    kept = entry.use.persistence
    if kept and not any(can_keep(entry, part, kept) for part in entry.parts):
        said = (
            f"no service of template {entry.template.name} can keep clients so: cookie is for web browsers, calling_ae "
            "for DICOM, both of them in l7_snat; write source_ip, or take it out"
        )
        yield entry.finding(said, "persistence")


def can_keep(entry: Entry, part: str, kept: Persistence) -> bool:
    """Say whether a part can keep its clients so; one that keeps none has no use for a time to live."""
    overrides = entry.use.services.get(part, {})
    changed: dict[str, Any] = {key: overrides[key] for key in ("protocol", "tls", "hl7") if key in overrides}
    service: dict[str, Any] = {**entry.template.services[part], **changed}
    protocol = PROTOCOLS.get(str(service.get("protocol")), PROTOCOLS["tcp"])
    passed_through = service.get("protocol") == "https" and not service.get("tls")
    kernel = _in_kernel(entry, part)
    by_address = passed_through or (kernel and protocol.persistence == "cookie")
    usual = "source_ip" if by_address else protocol.persistence
    by = kept.by or service.get("persistence", {}).get("by", usual)
    if service.get("protocol") == "hl7" and not kernel and not _by_connection(service.get("hl7")):
        return kept.by == "none"
    if by == "cookie":
        return protocol.reads_http and not passed_through and not kernel
    if by == "calling_ae":
        return service.get("protocol") == "dicom" and not kernel
    return kept.by is not None or (by != "none" and not _OF_COOKIES & kept.model_fields_set)


def _in_kernel(entry: Entry, part: str) -> bool:
    """Say whether the kernel carries a part, so that clients are known by their address alone."""
    says = entry.use.services.get(part, {}).get("mode") or entry.use.mode or entry.template.services[part].get("mode")
    return says in ("l4_dr", "l4_nat")


def _by_connection(hl7: object) -> bool:
    """Say whether an HL7 service keeps what its connections bring together, so that a client can have its node."""
    return not isinstance(hl7, dict) or hl7.get("key", "connection") == "connection"


def _values(entry: Entry) -> Iterator[Finding]:
    asks, given = entry.template.asks, entry.given()
    for name in entry.piece.entries:
        if name not in asks and name not in _OWN_KEYS:
            yield entry.finding(f"{_asked(entry)}, not for this; {nearest(name, (*asks, *_OWN_KEYS))}", name)
    for name in asks:
        if name not in given:
            yield entry.finding(f"missing; {_asked(entry)}", name)
        elif name not in _ASKED_OF_ALL and not _is_text(given[name], takes_list=asks[name].takes_list):
            rule = "one text, or a list of them" if asks[name].takes_list else "one text"
            yield entry.finding(f"is not {rule}; {_asked(entry)}", name)
    for number, address in enumerate(entry.use.vip):
        if (port := split_port(address)[1]) is not None:
            said = f"{address!r} names a port; ports are the template's: leave {port} out, or write it under ports"
            yield entry.finding(said, "vip", number)


def _is_text(piece: Piece, *, takes_list: bool) -> bool:
    if takes_list and isinstance(piece.content, list):
        return all(each.text is not None for each in piece.content)
    return piece.text is not None


def _asked(entry: Entry) -> str:
    asked = (
        f"{name} ({ask.about}{f'; by default {ask.default}' if ask.default else ''})"
        for name, ask in entry.template.asks.items()
    )
    return f"template {entry.template.name} asks for {', '.join(asked)}"


def _parts(entry: Entry) -> Iterator[Finding]:
    use, known = entry.use, entry.template.services
    named: list[tuple[str, tuple[str, str | int]]] = [(part, ("ports", part)) for part in use.ports]
    named += [(part, ("services", part)) for part in use.services]
    for part, path in named:
        if part in known and part in use.without:
            yield entry.finding("has no effect: `without` leaves this part out; take one of the two out", *path)
    named += [(part, ("without", number)) for number, part in enumerate(use.without)]
    for part, path in named:
        if part not in known:
            said = f"template {entry.template.name} has no part {part!r}; {nearest(part, known)}"
            yield entry.finding(said, *path)
    if not entry.parts:
        yield entry.finding("leaves no part of the template; take the entry out", "without")


def _ports(entry: Entry) -> Iterator[Finding]:
    """Yield ports that nodes would be called at, though they do not listen there."""
    for part, ports in entry.use.ports.items():
        service = entry.template.services.get(part, {})
        usual = service.get("ports", [])
        if service.get("nodes") != "${nodes}":
            continue
        if isinstance(usual, str):
            asked = usual.strip("${}")
            yield entry.finding(f"the template asks for the ports of this part; write them as {asked}", "ports", part)
        elif strange := [str(port) for port in ports if str(port) not in usual]:
            said = (
                f"{strange[0]} is not a port of the servers, and they are called at the one that the client came to; "
                f"write some of {', '.join(usual)}, or addresses with a port in services.{part}.nodes"
            )
            yield entry.finding(said, "ports", part)


def _clashes(entry: Entry, written: Mapping[str, Any], made: Mapping[str, str], tree: Tree) -> Iterator[Finding]:
    data: Any = tree.data
    earlier = [each.get("name") for each in data["use"][: entry.number] if isinstance(each, dict)]
    if entry.use.name in earlier:
        first = tree.values["use", earlier.index(entry.use.name), "name"]
        yield entry.finding(
            f"{entry.use.name!r} is taken by the entry in line {first.line}; write another name", "name"
        )
        return
    for name in entry.names.values():
        if name in written:
            place = tree.keys["services", name]
            said = f"makes the service {name!r}, which line {place.line} has already; rename one of them"
            yield entry.finding(said, "name")
        elif name in made:
            said = f"makes the service {name!r}, which another entry makes already; write another name"
            yield entry.finding(said, "name")

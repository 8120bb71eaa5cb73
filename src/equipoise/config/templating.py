"""Expand the key `use` of a document: site templates become services, before anything is validated.

Pure: the document's tree and the templates go in, a tree with more services comes out, in which every value still has
its place: that of the entry in `use`, or its own where it was written there.  Leaves out entries whose keys are wrong
one by one, which the models explain, and whether the services make sense, which is found as in any other service.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from equipoise.config.base import CheckParams
from equipoise.config.fields import split_port
from equipoise.config.models import MOST_USES, Use
from equipoise.config.pieces import Piece, overlaid, piece_at, places, plain
from equipoise.config.suited import Finding
from equipoise.config.tree import Place, Tree
from equipoise.config.uses import Entry, can_keep, wrong
from equipoise.templates.model import Template

_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
_NODES = re.compile(r"\$\{nodes\}(?::(.+))?")
# What still holds when another check, or another kind of persistence, takes the place of the template's.
_LASTING = {
    "health": ("check", frozenset(CheckParams.model_fields) - {"port", "tls"}),
    "persistence": ("by", frozenset({"ttl", "mask", "mask6"})),
}


@dataclass(frozen=True, slots=True)
class Expansion:
    """What became of a document.

    Attributes:
        tree: The document, with the services that templates make.
        origins: The template of each of these services.
        spoiled: Names of services that are not there, because their entry in `use` is wrong.
        findings: What is wrong with entries, beside what the models find.
    """

    tree: Tree
    origins: Mapping[str, str] = field(default_factory=dict)
    spoiled: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def expand(tree: Tree, templates: Mapping[str, Template]) -> Expansion:
    """Return the document with a service for each part of each template that it uses."""
    data: Any = tree.data
    uses, written = data.get("use"), data.get("services")
    if not isinstance(uses, list) or not isinstance(written, dict | None) or not 0 < len(uses) <= MOST_USES:
        return Expansion(tree)
    services: dict[str, Piece] = {}
    origins: dict[str, str] = {}
    spoiled: list[str] = []
    broken: list[Finding] = []
    for number, entry in enumerate(_entries(tree, templates)):
        found = list(wrong(entry, written or {}, origins, tree)) if entry else []
        broken += found
        if entry is None or found:
            spoiled += _would_be(uses[number], templates)
            continue
        services |= dict(_services(entry))
        origins |= dict.fromkeys(entry.names.values(), entry.template.name)
    return Expansion(_with_services(tree, services), origins, tuple(spoiled), tuple(broken))


def _entries(tree: Tree, templates: Mapping[str, Template]) -> Iterator[Entry | None]:
    """Yield every entry; None for one that the models refuse."""
    data: Any = tree.data
    for number, written in enumerate(data["use"]):
        try:
            use = Use.model_validate(written)
        except ValidationError:
            use = None
        is_known = use is not None and use.template in templates
        piece = piece_at(tree, ("use", number))
        yield Entry(number, piece, use, templates[use.template]) if use and is_known else None


def _would_be(written: Any, templates: Mapping[str, Template]) -> tuple[str, ...]:
    """Return the names of the services that an entry would make, were it right; at least one."""
    entry = written if isinstance(written, dict) else {}
    name, chosen = entry.get("name"), entry.get("template")
    parts = templates[chosen].services if isinstance(chosen, str) and chosen in templates else ()
    return tuple(f"{name}-{part}" for part in parts) or (str(name),)


def _with_services(tree: Tree, services: Mapping[str, Piece]) -> Tree:
    data: Any = tree.data
    values, keys = dict(tree.values), dict(tree.keys)
    for name, service in services.items():
        for path, piece in places(service, ("services", name)):
            values[path], keys[path] = piece.place, piece.key
    values.setdefault(("services",), values[("use",)])
    made = {name: plain(service) for name, service in services.items()}
    return replace(tree, data={**data, "services": {**(data.get("services") or {}), **made}}, values=values, keys=keys)


def _services(entry: Entry) -> Iterator[tuple[str, Piece]]:
    key = entry.piece.entries["name"].place
    given = entry.given()
    for part, name in entry.names.items():
        service = _filled(entry.template.services[part], given, entry.piece.place)
        for over in _overrides(entry, part):
            service = _laid_over(service, over)
        yield name, replace(service, place=entry.piece.place, key=key)


def _overrides(entry: Entry, part: str) -> Iterator[Piece]:
    """Yield what the entry says of this part, from the general to the particular."""
    written, place = entry.piece.entries, entry.piece.place
    kept = entry.use.persistence
    for key in ("mode", "persistence"):
        applies = key == "mode" or (kept is not None and can_keep(entry, part, kept))
        if applies and key in written and written[key].content is not None:
            yield Piece({key: written[key]}, place, place)
    if part in entry.use.ports:
        yield Piece({"ports": written["ports"].entries[part]}, place, place)
    if part in entry.use.services:
        yield written["services"].entries[part]


def _laid_over(service: Piece, over: Piece) -> Piece:
    """Return the service with what `over` says; another check or kind of persistence takes the old one's settings."""
    content = dict(service.entries)
    for key, (kind, lasting) in _LASTING.items():
        old, new = content.get(key), over.entries.get(key)
        if old and new and kind in new.entries and new.entries[kind].text != _text(old, kind):
            kept = {name: each for name, each in old.entries.items() if name in lasting}
            content[key] = replace(old, content=kept)
    return overlaid(replace(service, content=content), over)


def _text(piece: Piece, name: str) -> str | None:
    return piece.entries[name].text if name in piece.entries else None


def _filled(value: Any, given: Mapping[str, Piece], place: Place) -> Piece:
    """Return a value of a template with what was given in place of its placeholders."""
    if isinstance(value, Mapping):
        return Piece({name: _filled(each, given, place) for name, each in value.items()}, place, place)
    if isinstance(value, list):
        return Piece([_filled(each, given, place) for each in value], place, place)
    if (nodes := _NODES.fullmatch(value)) is not None:
        port = _filled(nodes[1], given, place).text if nodes[1] else None
        return _nodes(given["nodes"], port, place)
    if (alone := _PLACEHOLDER.fullmatch(value)) is not None:
        return replace(given[alone[1]], key=place)
    asked = [given[name] for name in _PLACEHOLDER.findall(value)]
    text = _PLACEHOLDER.sub(lambda found: given[found[1]].text or "", value)
    return Piece(text, asked[0].place if asked else place, place)


def _nodes(nodes: Piece, port: str | None, place: Place) -> Piece:
    made = {}
    for name, node in nodes.entries.items():
        within = dict(node.entries) if node.text is None else {"address": replace(node, key=node.place)}
        if port and (address := within["address"]).text:
            within["address"] = replace(address, content=_with_port(address.text or "", port))
        made[name] = replace(node, content=within)
    return replace(nodes, content=dict(made), key=place)


def _with_port(address: str, port: str) -> str:
    host, own = split_port(address)
    if own is not None:
        return address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

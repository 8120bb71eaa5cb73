"""What differs between two plans, in the keys and units of the document.

Leaves out what only follows from another change, such as a node's numeric host beside its address, and the digest.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from equipoise.base.units import format_duration, format_size
from equipoise.config.base import CheckParams
from equipoise.config.parts import PARTS_KEY, Part, parts_of
from equipoise.plan.model import (
    CertificateFile,
    Cluster,
    Dicom,
    Hl7,
    Http,
    ManagedAddress,
    Node,
    NodeTls,
    PassiveHealth,
    Persistence,
    Plan,
    ProxyProtocol,
    Route,
    Service,
    Timeouts,
    Tls,
)


class What(StrEnum):
    """What happened to a key."""

    ADD, REMOVE, CHANGE = "add", "remove", "change"


_Shown = tuple[Any, str]  # a value, and its text for people
_Values = (
    Plan | Service | Persistence | Dicom | Hl7 | Node | Tls | NodeTls | ProxyProtocol | PassiveHealth | Timeouts | Http
)
_PARTS = ("persistence", "tls", "node_tls", "proxy_protocol", "passive_health", "timeouts", "http", "dicom", "hl7")
_SHOWN_OTHERWISE = (
    "digest",
    "services",
    "name",
    "health",
    "check",
    "nodes",
    "routes",
    "reads_http",
    "always_secure",
    "layer4",
    "addresses",
    "cluster",
    *_PARTS,
)
_KEYS = {"gateway_workers": "gateway.workers", "fingerprint": "content of the files"}
_SIGNS = {What.ADD: "+", What.REMOVE: "-", What.CHANGE: "~"}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: `old` and `new` as people write them, None where there is nothing."""

    path: str
    what: What
    old: str | None
    new: str | None

    def to_text(self) -> str:
        """Return one line: `~ services.ct.nodes.a.weight: 100 -> 50`."""
        values = " -> ".join(value for value in (self.old, self.new) if value is not None)
        return f"{_SIGNS[self.what]} {self.path}: {values}"

    def to_json(self) -> dict[str, str | None]:
        """Return the change as JSON values."""
        return {"path": self.path, "what": self.what.value, "old": self.old, "new": self.new}


def diff(old: Plan | None, new: Plan) -> tuple[Change, ...]:
    """Return what changes from `old`, or from nothing, to `new`; empty exactly where both mean the same."""
    if old is None:
        added = (Change(f"services.{each.name}", What.ADD, None, _service_summary(each)) for each in new.services)
        return (
            Change("site", What.ADD, None, new.site),
            *_addresses((), new.addresses),
            *_cluster(None, new.cluster),
            *added,
        )
    return (
        *_fields("", old, new),
        *_addresses(old.addresses, new.addresses),
        *_cluster(old.cluster, new.cluster),
        *_services(old, new),
    )


def to_text(changes: tuple[Change, ...]) -> str:
    """Return the changes for a person, one in a line."""
    return "\n".join(change.to_text() for change in changes) or "no changes"


def _addresses(old: tuple[ManagedAddress, ...], new: tuple[ManagedAddress, ...]) -> Iterator[Change]:
    """Yield the addresses that are put on an interface or taken from it; an address has one interface."""
    before, after = ({each.host: f"{each.host} on {each.interface}" for each in some} for some in (old, new))
    for host in sorted({*before, *after}):
        yield from _value(
            "network.manage_addresses", *((each[host],) * 2 if host in each else None for each in (before, after))
        )


def _cluster(old: Cluster | None, new: Cluster | None) -> Iterator[Change]:
    """Yield what changes of the pair: its settings, and which addresses move together."""
    before, after = _cluster_values(old), _cluster_values(new)
    for key in dict.fromkeys((*before, *after)):
        yield from _value(f"cluster.{key}", before.get(key), after.get(key))


def _cluster_values(cluster: Cluster | None) -> dict[str, _Shown]:
    if cluster is None:
        return {}
    plain = ("peer", "address", "interface", "role", "advert_s", "preempt", "port")
    values = {name.removesuffix("_s"): (getattr(cluster, name), _text(name, getattr(cluster, name))) for name in plain}
    known = cluster.secured
    values["joined"] = (known, f"with the certificates {known.fingerprint[:8]}" if known is not None else "no")
    for group in cluster.groups:
        text = ", ".join(f"{each.host} on {each.interface}" for each in group.addresses)
        values[f"addresses of the {group.name}"] = ((group.router_id, group.addresses), f"{text} ({group.router_id})")
    return values


def _services(old: Plan, new: Plan) -> Iterator[Change]:
    for service in old.services:
        if new.service(service.name) is None:
            yield Change(f"services.{service.name}", What.REMOVE, _service_summary(service), None)
    for service in new.services:
        path, before = f"services.{service.name}", old.service(service.name)
        if before is None:
            yield Change(path, What.ADD, None, _service_summary(service))
        else:
            yield from _service(path, before, service)


def _service(path: str, old: Service, new: Service) -> Iterator[Change]:
    yield from _fields(path, old, new)
    yield from _health(f"{path}.health", old, new)
    yield from _value(f"{path}.routes", *((each.routes, _routes_text(each.routes)) for each in (old, new)))
    yield from _layer4(path, old, new)
    for part in _PARTS:
        if part == "timeouts" and "layer4" in (old.engine, new.engine):
            continue  # those of HAProxy; the kernel's one is shown above
        yield from _part(f"{path}.{part}", getattr(old, part), getattr(new, part))
    yield from _nodes(f"{path}.nodes", old, new)


def _layer4(path: str, old: Service, new: Service) -> Iterator[Change]:
    before, after = old.layer4, new.layer4
    for key, name in (("interfaces", "interfaces"), ("masquerade", "masquerade"), ("timeouts.idle", "idle_s")):
        values = (getattr(before, name), getattr(after, name))
        yield from _value(f"{path}.{key}", *((value, _text(name, value)) for value in values))


def _part(path: str, old: _Values | None, new: _Values | None) -> Iterator[Change]:
    if old is not None and new is not None:
        yield from _fields(path, old, new)
    elif old is not new:
        yield from _value(path, *(None if each is None else (each, _tls_text(each)) for each in (old, new)))


def _tls_text(part: _Values) -> str:
    return f"with {part.cert}" if isinstance(part, Tls) else "on"


def _routes_text(routes: tuple[Route, ...]) -> str:
    return "; ".join(f"{_conditions(route)} to {route.to}" for route in routes) or "none"


def _conditions(route: Route) -> str:
    met = (("called_ae", route.called_ae), ("calling_ae", route.calling_ae), ("service", route.service))
    return ", ".join(f"{key} {' or '.join(values)}" for key, values in (*met, ("from", route.source)) if values)


def _nodes(path: str, old: Service, new: Service) -> Iterator[Change]:
    for node in old.nodes:
        if new.node(node.name) is None:
            yield Change(f"{path}.{node.name}", What.REMOVE, _node_summary(node), None)
    for node in new.nodes:
        before = old.node(node.name)
        if before is None:
            yield Change(f"{path}.{node.name}", What.ADD, None, _node_summary(node))
        else:
            yield from _fields(
                f"{path}.{node.name}", _but_for_what_follows(before, node, same_mode=old.mode == new.mode), node
            )
    yield from _order(path, [node.name for node in old.nodes], [node.name for node in new.nodes])


def _but_for_what_follows(old: Node, new: Node, *, same_mode: bool) -> Node:
    """Return the old node with what follows from another address, and in another mode, as it is now."""
    if old.address != new.address:
        return replace(old, host=new.host, port=new.port, interface=new.interface, router=new.router)
    return old if same_mode else replace(old, interface=new.interface, router=new.router)


def _order(path: str, old: list[str], new: list[str]) -> Iterator[Change]:
    before = [name for name in old if name in new]
    after = [name for name in new if name in old]
    if before != after:  # `first_up` reads it
        yield Change(path, What.CHANGE, f"in the order {', '.join(before)}", f"in the order {', '.join(after)}")


def _fields(path: str, old: _Values, new: _Values) -> Iterator[Change]:
    """Yield what differs between two values of one kind, leaving out what is shown in another way."""
    for name in (field.name for field in fields(old)):
        if name not in _SHOWN_OTHERWISE:
            before, after = getattr(old, name), getattr(new, name)
            key = _KEYS.get(name, name.removesuffix("_s").removesuffix("_bytes"))
            dotted = f"{path}.{key}" if path else key
            yield from _value(dotted, (before, _text(name, before)), (after, _text(name, after)))


def _health(path: str, old: Service, new: Service) -> Iterator[Change]:
    yield from _value(f"{path}.check", (old.check, old.check), (new.check, new.check))
    before, after = _settings(old.health), _settings(new.health)
    for key in dict.fromkeys((*before, *after)):
        yield from _value(f"{path}.{key}", before.get(key), after.get(key))


def _settings(params: CheckParams) -> dict[str, _Shown]:
    parts = {PARTS_KEY: "; ".join(_part_text(part) for part in parts_of(params))} if parts_of(params) else {}
    texts = params.model_dump(mode="json", exclude=set(parts))  # durations and sizes as people write them
    shown = {
        name: sorted(value) if isinstance(value, frozenset) else {**texts, **parts}[name] for name, value in params
    }
    return {name: (value, _text(name, shown[name])) for name, value in params}


def _part_text(part: Part) -> str:
    """Return a check within another one: its name, and the settings that are not its defaults."""
    kind = type(part.params)
    said = {name: text for name, (value, text) in _settings(part.params).items() if value != _default(kind, name)}
    return f"{part.check} ({', '.join(f'{name} {text}' for name, text in said.items())})" if said else part.check


def _default(kind: type[CheckParams], name: str) -> Any:
    return kind.model_fields[name].get_default(call_default_factory=True)


def _value(path: str, old: _Shown | None, new: _Shown | None) -> Iterator[Change]:
    """Yield a change where the values differ; where a rounded text would hide that, they are shown bare."""
    if old is None or new is None:
        yield Change(path, What.ADD if old is None else What.REMOVE, old and old[1], new and new[1])
    elif old[0] != new[0]:
        alike = old[1] == new[1]
        yield Change(path, What.CHANGE, repr(old[0]) if alike else old[1], repr(new[0]) if alike else new[1])


def _text(name: str, value: Any) -> str:
    if value is None:
        return "unresolved" if name == "host" else "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and "\r" in value:  # the message of a check: whoever reads this need not read that
        return f"{value.count(chr(13))} segments ({hashlib.sha256(value.encode()).hexdigest()[:8]})"
    if isinstance(value, tuple) and value and isinstance(value[0], CertificateFile):
        return ", ".join(each.cert for each in value)
    if isinstance(value, tuple | list | frozenset):
        return ", ".join(map(str, value)) or "none"
    if name.endswith("_s"):
        return format_duration(value)
    return format_size(value) if name.endswith("_bytes") else str(value)


def _service_summary(service: Service) -> str:
    names = ", ".join(node.name for node in service.nodes)
    return f"{service.protocol} on {_text('listen', service.listen)}, {service.balance}, nodes {names}"


def _node_summary(node: Node) -> str:
    return f"{node.address}, weight {node.weight}" + (", backup" if node.backup else "")

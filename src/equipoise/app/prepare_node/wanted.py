"""Which addresses a node takes packets for: from a site's file and the node's name, or as people name them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path

from equipoise.app.document import read_document
from equipoise.app.wiring import catalogue
from equipoise.base.errors import EquipoiseError
from equipoise.config.fields import numeric, split_port
from equipoise.config.loading import load
from equipoise.config.models import Service


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one node is prepared for.

    Attributes:
        addresses: The virtual addresses, numeric, each once.
        ports: Theirs, all together; empty where nobody said.
        services: The services that send it packets by direct routing; empty where nobody said.
        own_address: The node's own address, where it is known as a number.
    """

    addresses: tuple[str, ...]
    ports: tuple[int, ...] = ()
    services: tuple[str, ...] = ()
    own_address: str | None = None

    def of_version(self, version: int) -> tuple[str, ...]:
        """Return the addresses of IPv4 (4) or IPv6 (6)."""
        return tuple(address for address in self.addresses if ip_address(address).version == version)


def of_words(addresses: Sequence[str]) -> Wanted:
    """Return what an administrator names.  Raises: EquipoiseError."""
    found = [_numeric(address) for address in addresses]
    for word, address in zip(addresses, found, strict=True):
        if address is None:
            raise EquipoiseError(
                f"--vip {word!r} is no IP address; write it as in the service's `listen`, without port"
            )
    return Wanted(tuple(dict.fromkeys(address for address in found if address is not None)))


def of_site(path: Path, node: str) -> Wanted:
    """Return what a site's file says for a node, named as `pacs-a`, `*/pacs-a` or `ct/pacs-a`.

    Raises: EquipoiseError, also where no service with `mode: l4_dr` has such a node.
    """
    services = load(read_document(path), str(path), catalogue()).site.services
    direct = {name: service for name, service in services.items() if service.mode == "l4_dr"}
    if not direct:
        raise EquipoiseError(f"{path}: no service has `mode: l4_dr`, so its nodes need nothing of this")
    pattern = node if "/" in node else f"*/{node}"
    matching = [name for name, service in direct.items() if _keys(name, service, pattern)]
    if not matching:
        known = sorted({each for service in direct.values() for each in service.nodes})
        raise EquipoiseError(
            f"{path}: no service with `mode: l4_dr` has a node {node!r}; their nodes are {', '.join(known)}"
        )
    return _wanted({name: direct[name] for name in matching}, pattern)


def _numeric(host: str) -> str | None:
    address = numeric(host)
    return None if address is None else str(address)


def _keys(name: str, service: Service, pattern: str) -> list[str]:
    return [node for node in service.nodes if fnmatchcase(f"{name}/{node}", pattern)]


def _wanted(services: Mapping[str, Service], pattern: str) -> Wanted:
    listeners = [listener for service in services.values() for listener in service.listeners]
    own = {
        _numeric(split_port(service.nodes[node].address)[0])
        for name, service in services.items()
        for node in _keys(name, service, pattern)
    }
    return Wanted(
        addresses=tuple(dict.fromkeys(listener.host for listener in listeners)),
        ports=tuple(sorted({listener.port for listener in listeners})),
        services=tuple(services),
        own_address=own.pop() if len(own) == 1 else None,
    )

"""Say what a site means for a pair of machines: which of the two this is, and which addresses move together.

Leaves out who holds them at a moment: that is keepalived's to say.
"""

from collections.abc import Iterable, Mapping

from equipoise.config import models
from equipoise.config.cluster import Cluster as Written
from equipoise.config.cluster import Here
from equipoise.config.suited_layer4 import is_manageable
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Cluster, ManagedAddress, VipGroup

_HERE = tuple(Here.model_fields)


def merged(site: models.Site, facts: HostFacts) -> Written | None:
    """Return what document and file of the machine say together, the latter first; None for a machine alone."""
    if site.cluster is None and facts.here is None:
        return None
    written = site.cluster or Written()
    if facts.here is None:
        return written
    own = {key: getattr(facts.here, key) for key in _HERE}
    return written.model_copy(update={key: value for key, value in own.items() if value is not None})


def overruled(site: models.Site, facts: HostFacts) -> Mapping[str, tuple[str, str]]:
    """Return the keys of `cluster` that are not followed, with what the document and the machine's file say."""
    if site.cluster is None or facts.here is None:
        return {}
    both = {key: (getattr(site.cluster, key), getattr(facts.here, key)) for key in _HERE}
    return {
        key: (written, here) for key, (written, here) in both.items() if None not in (written, here) and written != here
    }


def cluster_of(site: models.Site, facts: HostFacts) -> Cluster | None:
    """Return the pair; None where the machine stands alone, or where its peer or the way there is not known yet."""
    written = merged(site, facts)
    if written is None or written.peer is None:
        return None
    way = facts.ways.get(written.peer)
    interface = written.interface or (way.interface if way is not None else None)
    address = written.address or (way.source if way is not None else None)
    if interface is None or address is None:
        return None
    role = written.role or "primary"
    return Cluster(
        role=role,
        address=address,
        peer=written.peer,
        interface=interface,
        advert_s=written.advert,
        preempt=written.preempt,
        port=written.port,
        groups=_groups(site, written, _Places(site, facts, interface, {address, written.peer}), role),
        secured=facts.secured,
    )


def floating(site: models.Site, facts: HostFacts) -> frozenset[str]:
    """Return the addresses that may be on either machine, and that of the peer: those to find the ways to."""
    written = merged(site, facts)
    if written is None:
        return frozenset()
    peer = {written.peer} if written.peer is not None else set()
    return frozenset({*_listened(site), *written.more_addresses, *written.on_secondary, *peer})


class _Places:
    """On which interface an address is put."""

    def __init__(self, site: models.Site, facts: HostFacts, interface: str, fixed: Iterable[str]) -> None:
        self._given = site.network.interface[:1]
        self._facts = facts
        self._interface = interface
        self._fixed = frozenset(fixed)

    def all(self, hosts: Iterable[str]) -> tuple[ManagedAddress, ...]:
        """Return these addresses in order, but for those that are one machine's own."""
        return tuple(sorted(ManagedAddress(host, self._interface_of(host)) for host in set(hosts) - self._fixed))

    def _interface_of(self, host: str) -> str:
        way = self._facts.ways.get(host)
        if self._given:
            return self._given[0]
        return way.interface if way is not None and way.router is None else self._interface


def _groups(site: models.Site, written: Written, places: _Places, role: str) -> tuple[VipGroup, ...]:
    secondary = set(written.on_secondary)
    of: Mapping[str, tuple[ManagedAddress, ...]] = {
        "primary": places.all({*_listened(site), *written.more_addresses} - secondary),
        "secondary": places.all(secondary),
    }
    return tuple(
        VipGroup(name, written.router_id + number, name == role, of[name]) for number, name in enumerate(of) if of[name]
    )


def _listened(site: models.Site) -> frozenset[str]:
    hosts = (listener.host for service in site.services.values() for listener in service.listeners)
    return frozenset(host for host in hosts if is_manageable(host))

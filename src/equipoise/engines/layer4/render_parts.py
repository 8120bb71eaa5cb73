"""What the rules of both modes of layer 4 have in common: words for a client, and for the choice of a node."""

from dataclasses import dataclass
from ipaddress import ip_network

from equipoise.engines.layer4.artifact import Chain, Keyed, Pool
from equipoise.plan.model import Service

FIRST_PACKET = "tcp flags & (fin|syn|rst|ack) == syn"
LAST_PACKETS = "tcp flags & (fin|rst) != 0"
RESET = "reject with tcp reset"
HASH_SEED = 0x45515049  # fixed, so that both machines of a pair find the same slot for a client
CLIENTS = 65536  # remembered a service: a hospital's workstations many times over


@dataclass(frozen=True, slots=True)
class Part:
    """What one service adds to a table."""

    keyed: tuple[Keyed, ...]
    counters: tuple[str, ...]
    restarted: tuple[str, ...]
    chains: tuple[Chain, ...]


def family(service: Service) -> str:
    """Return `ip` or `ip6`: all addresses of a service at layer 4 are of one family."""
    return "ip6" if ":" in service.listen[0].host else "ip"


def seconds(value_s: float) -> str:
    """Return a time as nft writes it."""
    return f"{max(1, round(value_s))}s"


def client(service: Service) -> str:
    """Return what persistence knows a client by: its address, or the leading bits of it."""
    kept, protocol = service.persistence, family(service)
    length, whole = (kept.mask, 32) if protocol == "ip" else (kept.mask6, 128)
    if length == whole:
        return f"{protocol} saddr"
    return f"{protocol} saddr & {ip_network(('0.0.0.0' if protocol == 'ip' else '::', length)).netmask}"


def remembers(service: Service) -> bool:
    """Return whether a client keeps its node."""
    return service.persistence.by == "source_ip"


def by_address(word: str, service: Service) -> str:
    """Return the name of a map that packets fill: one for each family, as a map that exists keeps its type."""
    return f"{word}-{service.name}" if family(service) == "ip" else f"{word}6-{service.name}"


def persisted(service: Service) -> str:
    """Return the name of the map from clients to nodes."""
    return by_address("persist", service)


def tracked(service: Service) -> str:
    """Return the name of the map from live flows to nodes."""
    return by_address("flows", service)


def choice(service: Service, pool: Pool) -> str:
    """Return the expression that finds the mark of the node for a new flow."""
    slots = f"map @slots-{service.name}"
    if pool.kind.pins:
        return f"jhash {family(service)} saddr mod {pool.slots} seed {HASH_SEED:#x} {slots}"
    return f"numgen inc mod {pool.slots} {slots}"


def strangers(service: Service) -> tuple[str, ...]:
    """Return the rule that refuses clients of other networks."""
    if not service.allow_from:
        return ()
    return (f"{family(service)} saddr != {{ {', '.join(service.allow_from)} }} {RESET}",)


def objects(service: Service, of_mark: str) -> tuple[Keyed, ...]:
    """Return the sets and maps that both modes have; `of_mark` is where the mark is kept, `meta mark` or `ct mark`."""
    name = service.name
    found = [
        Keyed("map", f"slots-{name}", f"typeof numgen inc mod 2 : {of_mark};"),
        Keyed("set", f"takes-{name}", f"typeof {of_mark};"),
        Keyed("set", f"holds-{name}", f"typeof {of_mark};"),
        Keyed("map", f"ways-{name}", f"typeof {of_mark} : verdict;"),
    ]
    if remembers(service):
        spec = f"typeof {family(service)} saddr : {of_mark}; size {CLIENTS}; flags dynamic,timeout;"
        found.append(Keyed("map", persisted(service), spec))
    return tuple(found)

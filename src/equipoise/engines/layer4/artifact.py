"""What a plan means for the kernel: tables of nftables, and what is to be known to take nodes in and out.

A table has chains with rules, and objects that they name: sets, maps, counters.  What changes with node states (slots,
who takes work, whose flows are cut) is written into sets and maps of a table and never changes a rule.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from equipoise.plan.model import ManagedAddress
from equipoise.policy.base import PolicyKind

_DIGEST_DIGITS = 16
FAMILIES = {"netdev": 5, "inet": 1}  # of our tables, with their numbers: linux/netfilter.h, NFPROTO_*


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain.

    Attributes:
        hook: What makes it a base chain, as nft writes it; empty for one that rules lead to.
        interface: The one that it names, and cannot be without.
    """

    name: str
    rules: tuple[str, ...]
    hook: str = ""
    interface: str = ""


@dataclass(frozen=True, slots=True)
class Keyed:
    """A set or a map.

    Attributes:
        kind: `set` or `map`.
        spec: Its types and flags, as nft writes them.
        elements: What it holds by the plan; None where something else fills it, which then stays in it.
    """

    kind: str
    name: str
    spec: str
    elements: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table of ours.

    Attributes:
        family: `netdev` or `inet`.
        counters: They go on from plan to plan.
        restarted: Counters that begin anew with each plan, as the slots do whose turn they tell.
    """

    family: str
    keyed: tuple[Keyed, ...]
    counters: tuple[str, ...]
    restarted: tuple[str, ...]
    chains: tuple[Chain, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A node of a pool.

    Attributes:
        mark: What the kernel knows it by.
        weight: The plan's, until another one is known.
        seats: The set in which each of its connections has a place, where it has a limit; else empty.
        serves: Whether it can be sent anything: its address is known, and a way there.
    """

    name: str
    mark: int
    weight: int
    backup: bool
    max_connections: int | None
    serves: bool
    seats: str = ""


@dataclass(frozen=True, slots=True)
class Pool:
    """What must be known of a service beside the rules.

    Attributes:
        family: That of its table.
        cut: Whether a node that goes down and cannot be reached has its flows ended.
        slots: How many.
        flows: The map of its live flows; empty where the kernel itself tracks connections.
        idle_s: How long a flow there may be silent.
        persists: The map of clients that keep their nodes; empty where none do.
        ttl_s: How long they do.
    """

    service: str
    family: str
    members: tuple[Member, ...]
    kind: PolicyKind
    slow_start_s: float
    cut: bool
    slots: int
    flows: str = ""
    idle_s: float = 0.0
    persists: str = ""
    ttl_s: float = 0.0


@dataclass(frozen=True)  # without slots: `cached_property` keeps the digest in the instance's dictionary
class Artifact:
    """All that the kernel is to do; nothing where no service needs it.

    Attributes:
        name: That of every table of this instance.
        unreached: Services of direct routing of which no interface is known where clients come in.
        routed: Nodes that direct routing cannot reach: (service, node, the router that they are behind).
        direct: Nodes of direct routing: (service, node, address).
        sources: Addresses that nodes are called from: (service, address).
        interfaces: What the rules name, in order.
        neighbours: Nodes of direct routing, with the interface where they are.
        forwards: The families, `ip` or `ip6`, that this machine has to forward.
        tracking: The configuration of conntrackd, which tells a peer of translated connections; empty without either.
    """

    name: str = ""
    tables: tuple[Table, ...] = ()
    pools: tuple[Pool, ...] = ()
    unreached: tuple[str, ...] = ()
    routed: tuple[tuple[str, str, str], ...] = ()
    direct: tuple[tuple[str, str, str], ...] = ()
    sources: tuple[tuple[str, str], ...] = ()
    interfaces: tuple[str, ...] = ()
    neighbours: tuple[ManagedAddress, ...] = ()
    forwards: tuple[str, ...] = ()
    tracking: str = ""

    def __bool__(self) -> bool:
        return bool(self.pools)

    @cached_property
    def digest(self) -> str:
        """What stands for the structure: where it changes, the rules are written anew."""
        return hashlib.sha256(repr((self.name, self.tables)).encode()).hexdigest()[:_DIGEST_DIGITS]

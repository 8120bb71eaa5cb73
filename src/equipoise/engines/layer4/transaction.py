"""What nft is told, as text: the structure of a plan, and who takes work now.  Pure.

Each text is one transaction: the kernel puts all of it into force between two packets, or none.  It names our own
tables alone.  Whatever flows are remembered stay, since their maps are never emptied.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from equipoise.engines.layer4.artifact import Artifact, Pool, Table
from equipoise.engines.layer4.kernel_tables import Names
from equipoise.plan.states import NodeState

_NAMED_BY_NFT = "__"  # `__set0`, `__map1`: what braces in a rule make


@dataclass(frozen=True, slots=True)
class Filling:
    """What is in the sets and maps of a pool that change with node states.

    Attributes:
        slots: The node of each, in order; empty where nobody takes work.
        takes: Nodes that new flows may go to.
        able: Those, and nodes that may take a flow which finds no seat at them: backups.
        holds: Nodes that flows go on at which have only just begun.
        cut: Nodes whose flows are ended.
    """

    slots: tuple[str, ...] = ()
    takes: frozenset[str] = frozenset()
    able: frozenset[str] = frozenset()
    holds: frozenset[str] = frozenset()
    cut: frozenset[str] = frozenset()


def filling(pool: Pool, states: Mapping[str, NodeState], slots: tuple[str, ...], takes: Iterable[str]) -> Filling:
    """Return what node states, by node, mean for a pool in which `takes` take work, by these slots."""
    by_name = {member.name: states.get(member.name, NodeState("up", member.weight)) for member in pool.members}
    return Filling(
        slots=slots,
        takes=frozenset(takes),
        able=frozenset(member.name for member in pool.members if member.serves and by_name[member.name].takes_work),
        holds=frozenset(name for name, state in by_name.items() if state.state in ("up", "drain") and state.reachable),
        cut=frozenset(name for name, state in by_name.items() if is_cut(pool, state)),
    )


def is_cut(pool: Pool, state: NodeState) -> bool:
    """Say whether what is open on a node is ended: an operator's `disable`, or `on_down: cut` and nobody there."""
    return state.state == "disabled" or (pool.cut and not state.reachable)


def structure(
    artifact: Artifact, fillings: Mapping[str, Filling], found: Mapping[str, Names], gone: Collection[str] = ()
) -> str:
    """Return the transaction that puts a plan into force.

    Args:
        artifact: The plan.
        fillings: For each service.
        found: What the kernel has of our tables, by family.
        gone: Interfaces that are not there (any more): nothing comes in there, and what would go out is reset.
    """
    lines: list[str] = []
    for table in artifact.tables:
        lines += _table(artifact.name, _without(table, gone), found.get(table.family))
    for family in found.keys() - {table.family for table in artifact.tables}:
        lines.append(f"delete table {family} {artifact.name}")
    for pool in artifact.pools:
        lines += _pool(artifact.name, pool, fillings[pool.service], None)
    return _text(lines)


def leftovers(artifact: Artifact, found: Mapping[str, Names]) -> str:
    """Return the transaction that removes what nothing leads to any more; empty where there is nothing of it.

    Before Linux 6.2 a chain counts as used in the transaction that ends its use, so this is one of its own.
    """
    lines: list[str] = []
    for table in artifact.tables:
        if (had := found.get(table.family)) is not None:
            lines += _leftovers(f"{table.family} {artifact.name}", table, had)
    return _text(lines)


def nodes(artifact: Artifact, before: Mapping[str, Filling], now: Mapping[str, Filling]) -> str:
    """Return the transaction that changes who takes work; empty where nothing does."""
    lines: list[str] = []
    for pool in artifact.pools:
        lines += _pool(artifact.name, pool, now[pool.service], before.get(pool.service))
    return _text(lines)


def elements(artifact: Artifact, held: Mapping[str, Filling]) -> str:
    """Return the transaction that fills anew whatever we fill: somebody may have emptied it; rules stay as they are."""
    lines: list[str] = []
    for table in artifact.tables:
        at = f"{table.family} {artifact.name}"
        for each in table.keyed:
            if each.elements is not None:
                lines += (f"flush {each.kind} {at} {each.name}", *_elements(at, each.name, each.elements))
    return _text(lines) + nodes(artifact, {}, held)


def newly_cut(artifact: Artifact, before: Mapping[str, Filling], now: Mapping[str, Filling]) -> frozenset[int]:
    """Return the marks of nodes that are cut now and were not, where the kernel itself tracks connections."""
    nothing = Filling()
    return frozenset(
        member.mark
        for pool in artifact.pools
        if pool.family == "inet"
        for member in pool.members
        if member.name in now[pool.service].cut - before.get(pool.service, nothing).cut
    )


def removal(name: str, families: Iterable[str]) -> str:
    """Return the transaction that takes our tables away; those that are not there are no error."""
    return _text(
        [line for family in families for line in (f"add table {family} {name}", f"delete table {family} {name}")]
    )


def _without(table: Table, gone: Collection[str]) -> Table:
    """Return a table in which no chain names these interfaces."""
    chains = [
        replace(chain, rules=("reject with tcp reset",), interface="") if chain.interface in gone else chain
        for chain in table.chains
        if not (chain.hook and chain.interface in gone)
    ]
    return replace(table, chains=tuple(chains))


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _table(name: str, table: Table, found: Names | None) -> Iterator[str]:
    at = f"{table.family} {name}"
    yield f"add table {at}"
    yield f"flush table {at}"  # of its rules: what is in sets and maps stays
    for each in table.keyed:
        yield f"add {each.kind} {at} {each.name} {{ {each.spec} }}"
        if each.elements is not None:
            yield f"flush {each.kind} {at} {each.name}"
    had = found.counters if found is not None else frozenset()
    yield from (f"delete counter {at} {counter}" for counter in table.restarted if counter in had)
    yield from (f"add counter {at} {counter}" for counter in (*table.counters, *table.restarted))
    for chain in table.chains:
        yield f"add chain {at} {chain.name}" + (f" {{ {chain.hook} }}" if chain.hook else "")
    for chain in table.chains:
        yield from (f"add rule {at} {chain.name} {rule}" for rule in chain.rules)
    for each in table.keyed:
        yield from _elements(at, each.name, each.elements or ())


def _leftovers(at: str, table: Table, found: Names) -> Iterator[str]:
    """Yield what removes the rest of a plan, but not what nft names itself, which comes and goes with its rule."""
    wanted = {kind: {each.name for each in table.keyed if each.kind == kind} for kind in ("map", "set")}
    maps = sorted(name for name in found.maps - wanted["map"] if not name.startswith(_NAMED_BY_NFT))
    sets = sorted(name for name in found.sets - wanted["set"] if not name.startswith(_NAMED_BY_NFT))
    yield from (f"flush map {at} {old}" for old in maps)  # their elements lead to chains
    yield from (f"delete chain {at} {old}" for old in sorted(found.chains - {chain.name for chain in table.chains}))
    yield from (f"delete map {at} {old}" for old in maps)
    yield from (f"delete set {at} {old}" for old in sets)
    yield from (f"delete counter {at} {old}" for old in sorted(found.counters - {*table.counters, *table.restarted}))


def _pool(name: str, pool: Pool, now: Filling, before: Filling | None) -> Iterator[str]:
    """Yield what makes the sets and maps of a pool hold what they are to; those that do already are left alone."""
    at, service = f"{pool.family} {name}", pool.service
    mark = {member.name: f"{member.mark:#x}" for member in pool.members}
    if before is None or now.slots != before.slots:
        yield f"flush map {at} slots-{service}"
        yield from _elements(at, f"slots-{service}", [f"{slot} : {mark[node]}" for slot, node in enumerate(now.slots)])
    words = ("takes", "holds") if pool.family == "netdev" else ("takes", "holds", "able")
    for word in words:
        then: frozenset[str] = getattr(now, word)
        if before is None or then != getattr(before, word):
            yield f"flush set {at} {word}-{service}"
            yield from _elements(at, f"{word}-{service}", [mark[node] for node in mark if node in then])
    if before is None or now.cut != before.cut:
        yield f"flush map {at} ways-{service}"
        ways = [f"{number} : {_way(pool, node, now)}" for node, number in mark.items()]
        yield from _elements(at, f"ways-{service}", ways)
        emptied = now.cut - (before.cut if before is not None else frozenset())
        yield from (
            f"flush set {at} {member.seats}" for member in pool.members if member.seats and member.name in emptied
        )


def _way(pool: Pool, node: str, filling: Filling) -> str:
    if pool.family == "inet":
        return f"jump to-{pool.service}/{node}"  # what is open there is ended by removing it from connection tracking
    return f"goto cut-{pool.service}" if node in filling.cut else f"goto to-{pool.service}/{node}"


def _elements(at: str, name: str, elements: Sequence[str]) -> Iterator[str]:
    if elements:
        yield f"add element {at} {name} {{ {', '.join(elements)} }}"

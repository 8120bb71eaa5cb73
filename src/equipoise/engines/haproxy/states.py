"""Node states in HAProxy's words: what stands behind a server's line, and the commands that say the same at run time.

    up         ready
    drain      drain: no new clients, while a cookie that names the node still leads there; in the file, which has no
               word for it, weight 0 does the same
    its end, disabled, down    maint: nobody is led there; requests that are open go on to their end

A client that is remembered by its address is forgotten as soon as its node drains or leaves, or it would be led there
again.  Leaves out when a drain is over (whoever calls knows), and the socket that the commands go through.

Source: HAProxy management guide 2.6, section 9.3 (`set server`, `clear table`).
"""

from collections.abc import Collection, Mapping

from equipoise.engines.haproxy.artifact import Pool, ServerLine
from equipoise.plan.states import NodeState, NodeStates, node_key


def shown(line: ServerLine, states: Mapping[str, NodeState], drained: Collection[str]) -> str:
    """Return what stands behind the line of this node in the file; `drained` are the nodes whose drain is over.

    A node of which nothing is known yet has the plan's weight and takes work.
    """
    state = states.get(line.key) or NodeState("up", line.weight)
    word = _administered(state, over=line.key in drained)
    if word == "drain":
        return " weight 0"
    return f" weight {state.weight}{' disabled' if word == 'maint' else ''}"


def commands(pool: Pool, states: NodeStates, over: frozenset[str]) -> tuple[str, ...]:
    """Return all that brings the servers of a pool to these states; given twice, it is the same as once.

    Args:
        pool: The pool, as the configuration that runs has it.
        states: Nodes that are not named keep what they have.
        over: Keys "SERVICE/NODE" of nodes whose drain is over.
    """
    found: list[str] = []
    for name, number in pool.nodes.items():
        key = node_key(pool.service, name)
        if (state := states.get(key)) is not None:
            found += _of_one(pool, number, key, state, over=key in over)
    return tuple(found)


def _of_one(pool: Pool, number: int, key: str, state: NodeState, *, over: bool) -> list[str]:
    word = _administered(state, over=over)
    take, weigh = f"set server {key} state {word}", f"set server {key} weight {state.weight}"
    if word == "ready":
        return [weigh, take]
    # Out first: the file may have it with weight 0, and for a moment it would take work again.
    return [take, weigh, *_forget(pool, number)]


def forgotten_again(pool: Pool, states: NodeStates, over: frozenset[str]) -> tuple[str, ...]:
    """Return what takes clients away once more from nodes that drain: another machine may have told of them since."""
    found: list[str] = []
    for name, number in pool.nodes.items():
        key = node_key(pool.service, name)
        if (state := states.get(key)) is not None and _administered(state, over=key in over) == "drain":
            found += _forget(pool, number)
    return tuple(found)


def _forget(pool: Pool, number: int) -> list[str]:
    return [f"clear table {pool.table} data.server_id eq {number}"] if pool.table else []


def cuts(pool: Pool, before: NodeStates, now: NodeStates) -> tuple[str, ...]:
    """Return by "SERVICE/NODE" which nodes are to have nothing open from now on.

    These are nodes that are down, where the pool is to be cut; and disabled ones where bytes pass as they are, for
    there no message has an end that could be waited for.
    """
    keys = [node_key(pool.service, name) for name in pool.nodes]
    return tuple(key for key in keys if _is_to_end(pool, now.get(key)) and not _is_to_end(pool, before.get(key)))


def _is_to_end(pool: Pool, state: NodeState | None) -> bool:
    if state is None:
        return False
    return (state.state == "down" and pool.cut) or (state.state == "disabled" and not pool.reads_http)


def _administered(state: NodeState, *, over: bool) -> str:
    """Return the state's word in `set server`."""
    if state.state == "up":
        return "ready"
    return "drain" if state.state == "drain" and not over else "maint"

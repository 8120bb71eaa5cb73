"""The nodes as a running HAProxy knows them: their numbers, states and weights, from `show servers state`.

Source: HAProxy's management guide, `show servers state`: format 1, administrative state as bits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from equipoise.plan.states import NodeState, StateName, node_key

_FORMAT = "1"
_MAINT = 0x01 | 0x02 | 0x20  # forced, inherited, its name does not resolve
_DRAIN = 0x08 | 0x10


@dataclass(frozen=True, slots=True)
class Server:
    """One server of one backend; `number` is its id there."""

    service: str
    node: str
    number: int
    state: NodeState

    @property
    def key(self) -> str:
        """Its name as operators write it."""
        return node_key(self.service, self.node)


def servers(lines: Sequence[str]) -> Iterator[Server]:
    """Yield the servers in an answer to `show servers state`; of another format than we know, none."""
    told = [line for line in lines if line]
    if len(told) < 2 or told[0] != _FORMAT:
        return
    names = told[1].removeprefix("# ").split(" ")
    for line in told[2:]:
        yield _server(dict(zip(names, line.split(" "), strict=False)))


def _server(fields: Mapping[str, str]) -> Server:
    state = NodeState(_state(int(fields["srv_admin_state"])), int(fields["srv_uweight"]))
    return Server(fields["be_name"], fields["srv_name"], int(fields["srv_id"]), state)


def _state(bits: int) -> StateName:
    if bits & _MAINT:
        return "down"  # or disabled, or drained to the end: held down until it is checked
    return "drain" if bits & _DRAIN else "up"

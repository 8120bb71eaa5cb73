"""Which nodes were up or down, written down for a supervisor that takes over.

It must not send work to a dead node first, nor cut connections because its first check of a node was lost.
"""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import msgspec

from equipoise.base.paths import replace_file
from equipoise.engines.layer4.artifact import Pool
from equipoise.plan.states import NodeState, NodeStates, node_key


class Record:
    """A small file.  Where it cannot be written or read, nodes are checked first, which is at once."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def keep(self, pools: Collection[Pool], states: NodeStates) -> None:
        """Write down which nodes of these pools are up or down, where no operator says otherwise."""
        keys = {node_key(pool.service, member.name) for pool in pools for member in pool.members}
        known = {key: state for key, state in states.items() if key in keys and state.state in ("up", "down")}
        with suppress(OSError):
            replace_file(self._file, msgspec.json.encode(known))

    def read(self) -> dict[str, NodeState]:
        """Return what was written down."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, NodeState])
        except (OSError, ValueError, msgspec.MsgspecError):
            return {}

    def forget(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

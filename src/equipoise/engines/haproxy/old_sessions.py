"""End what is open at nodes that went down, at an old worker of HAProxy: there the usual command is refused.

Once a worker has been told to end, `shutdown sessions server` answers "Proxy is disabled."; single sessions can still
be ended (tried on 2.6.12 and 2.8.25).  Source: HAProxy's management guide, `show sess` and `shutdown session`.
"""

import asyncio
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from equipoise.base.errors import EngineError
from equipoise.engines.haproxy.runtime import ask
from equipoise.plan.states import node_key

_SESSION = re.compile(r"^(0x[0-9a-f]+): .*?\bbe=(\S+) srv=(\S+)")
_MOST_ENDED = 1000  # of one worker in one round, each a question of its own: about a second
# A request that may be asked twice is: at the same node, which this worker does not know to be down.  Each round uses
# up one of its tries, of which there are three.
_ROUNDS, _ROUND_S = 5, 0.05


async def end_sessions(master_socket: Path, pid: int, keys: Collection[str]) -> None:
    """End what is open at these nodes in the worker `pid`; one that has ended itself meanwhile is no error."""
    with suppress(EngineError):
        for _ in range(_ROUNDS):
            sessions = list(sessions_at(await ask(master_socket, f"@!{pid} show sess"), keys))
            if not sessions:
                return
            for session in sessions[:_MOST_ENDED]:
                await ask(master_socket, f"@!{pid} shutdown session {session}")
            await asyncio.sleep(_ROUND_S)


def sessions_at(lines: Sequence[str], keys: Collection[str]) -> Iterator[str]:
    """Yield the sessions at these nodes in an answer to `show sess`."""
    for line in lines:
        session = _SESSION.match(line)
        if session is not None and node_key(session[2], session[3]) in keys:
            yield session[1]

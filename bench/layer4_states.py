"""How long does Layer4Engine.set_nodes take?  Run by `bench.layer4`: python -m bench.layer4_states SITE.yaml CHANGES.

Writes the rules of a site on the machine where it runs, has one node go down and come up after the other, asks nft each
time whether the kernel was told, and takes the rules away.  Prints the times in ms.  Leaves out checks and the API.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from bench.programs import BenchError, find_program
from equipoise.app.inputs import read
from equipoise.app.wiring import catalogue
from equipoise.base.clock import SystemClock
from equipoise.base.paths import directories
from equipoise.base.tasks import Tasks
from equipoise.engines.layer4.artifact import Artifact
from equipoise.engines.layer4.runner import Layer4Engine, table_name
from equipoise.plan.inputs import HostFacts
from equipoise.plan.states import NodeState, node_key

_PAUSE_S = 0.2
_WEIGHT = 100


def _failed(task: str, error: BaseException) -> None:
    print(f"{task}: {error!r}", file=sys.stderr)


def taken(table: str, service: str) -> frozenset[int]:
    """Return the marks of the nodes that the kernel gives new flows."""
    command = [find_program("nft", "nftables"), "-j", "list", "set", "netdev", table, f"takes-{service}"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return frozenset(next(each["set"].get("elem", []) for each in told["nftables"] if "set" in each))


async def changes(engine: Layer4Engine, artifact: Artifact, table: str, count: int) -> list[float]:
    """Return how long each of so many changes took, in ms.  Raises: EngineError, BenchError."""
    pool, took_ms = artifact.pools[0], []
    states = {node_key(pool.service, member.name): NodeState("up", _WEIGHT) for member in pool.members}
    await engine.set_nodes(states)
    for number in range(count):
        member, is_up = pool.members[number // 2 % len(pool.members)], number % 2 == 1
        states[node_key(pool.service, member.name)] = NodeState("up" if is_up else "down", _WEIGHT, reachable=is_up)
        begun = time.monotonic()
        await engine.set_nodes(states)
        took_ms.append(round(1000 * (time.monotonic() - begun), 2))
        if (member.mark in taken(table, pool.service)) is not is_up:
            raise BenchError(f"set_nodes returned, and {member.name} is {'not ' if is_up else ''}given new flows")
        await asyncio.sleep(_PAUSE_S)
    return took_ms


async def main(file: Path, count: int) -> list[float]:
    """Return how long changes took with the site in `file`, in ms.  Raises: EquipoiseError, BenchError."""
    own, tasks = directories(os.environ, is_root=True), Tasks(_failed)
    own.create()
    engine = Layer4Engine(own, tasks, SystemClock(), lambda event: None)
    inputs = await read(file.read_text(), str(file), catalogue(), HostFacts(), SystemClock().wall())
    artifact = engine.render(inputs.compiled())
    try:
        await engine.apply(artifact)
        return await changes(engine, artifact, table_name(own), count)
    finally:
        await engine.stop(0)
        await tasks.cancel_all()


if __name__ == "__main__":
    print(json.dumps({"ms": asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))}))

"""What `bench.layer4` measures beside speed: a map full of flows, looking at it, and how soon a node is in or out.

Leaves out the loads.  The change within the process is timed by `layer4_states.py`, on the machine that it is about.
"""

import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import httpx

from bench import processes
from bench.contenders import Site, equipoise_environment
from bench.layer4_contenders import SERVICE, Layer4, Way, await_connections, document, run_equipoise
from bench.layer4_network import MANY, VIPS, WEB_PORT, Machines, must
from bench.programs import HERE, BenchError, build
from equipoise.base.paths import socket_path
from tests.system.netns import Host

_FILL_TRIES = 3  # a packet may be lost where a queue is full
_PAUSE_S = 0.2
_ANSWER_WAIT_S = 60.0
_FEW, _ONE_LOOK_S = 10_000, 0.03
BALANCER = "many"


def fill(full: Way, layer4: Layer4, client: Host, flows: int) -> int:
    """Open so many flows through a balancer; return how many it sees then.  Raises: BenchError, EquipoiseError."""
    assert full.machine is not None
    words = ("eth0", full.machine.mac(), full.contender.options["address"], str(WEB_PORT), str(flows))
    seen = 0
    with full.awake():
        for _ in range(_FILL_TRIES):
            must(client, str(build("layer4_flows")), *words)
            if (seen := await_connections(layer4, flows)) >= flows:
                break
    return seen


def still_there(full: Way, layer4: Layer4, flows: int) -> int:
    """Return how many flows a balancer sees.  Raises: EquipoiseError."""
    with full.awake():
        return await_connections(layer4, flows)


def observing(ways: Sequence[Way], layer4: dict[str, Layer4], seconds: float) -> list[dict[str, Any]]:
    """Let supervisors look at their flows, while nothing else happens; return the share of a core that each needed."""
    with ExitStack() as stack:
        for way in ways:
            stack.enter_context(way.awake())
        flows = {way.name: int(layer4[way.name].status()["connections"]) for way in ways}
        time.sleep(1)
        before = {way.name: processes.cpu_s(way.contender.supervisor) for way in ways}
        begun = time.monotonic()
        time.sleep(seconds)
        used = {way.name: processes.cpu_s(way.contender.supervisor) - before[way.name] for way in ways}
        took_s = time.monotonic() - begun
    return [
        {"contender": name, "flows": flows[name], "cpu_s": round(cpu_s, 3), "core_%": round(100 * cpu_s / took_s, 2)}
        for name, cpu_s in used.items()
    ]


def unobserved(observed: Sequence[dict[str, Any]]) -> list[str]:
    """Return what shows that a supervisor with many flows did not look at them while that was measured."""
    few, many = ([row["cpu_s"] for row in observed if (row["flows"] > _FEW) is full] for full in (False, True))
    return [
        f"{max(many)} CPU seconds with many flows, {min(few)} with few: nobody looked at them"
        for _ in many[:1]
        if few and max(many) < min(few) + _ONE_LOOK_S
    ]


def changes(site: Site, machines: Machines, count: int) -> dict[str, list[float]]:
    """Return how long changes of a node's state took with many nodes, in ms: in the engine, and by the API.

    Raises: BenchError, EquipoiseError.
    """
    host = machines.direct_routing[BALANCER]
    config = document(site, BALANCER, "l4_dr", VIPS[BALANCER], "least_connections", MANY)
    own = [f"{name}={value}" for name, value in equipoise_environment(f"{BALANCER}-engine", site).items()]
    # From the root of the repository, where its modules are found.
    command = ["env", f"--chdir={HERE.parent}", *own, sys.executable, "-m", "bench.layer4_states", str(config)]
    done = host.run(*command, str(count), timeout_s=120)
    if done.returncode != 0:
        raise BenchError(f"the engine by itself failed: {done.stderr.strip()[-1500:]}")
    with ExitStack() as stack:
        running = run_equipoise(BALANCER, host, config, site, stack)
        return {"engine": json.loads(done.stdout)["ms"], "api": overridden(running, list(MANY), count)}


def overridden(layer4: Layer4, nodes: Sequence[str], count: int) -> list[float]:
    """Return how long it took until the API answered each time that a node was drained or enabled, in ms.

    Asked as the command line does, but for what that needs to start.  Raises: BenchError.
    """
    took_ms = []
    way = httpx.HTTPTransport(uds=socket_path(layer4.socket))
    with httpx.Client(transport=way, base_url="http://equipoise/api/v1", timeout=_ANSWER_WAIT_S) as http:
        for number in range(count):
            node, action = nodes[number // 2 % len(nodes)], ("drain", "enable")[number % 2]
            begun = time.monotonic()
            answer = http.post("/nodes", json={"pattern": f"{SERVICE}/{node}", "action": action, "weight": None})
            took_ms.append(round(1000 * (time.monotonic() - begun), 2))
            if not answer.is_success:
                raise BenchError(f"{action} {node}: the API answered {answer.status_code}: {answer.text[:300]}")
            time.sleep(_PAUSE_S)
    return took_ms

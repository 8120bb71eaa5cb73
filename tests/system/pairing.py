"""The engine of the pair in a process of its own, so that it runs in a network namespace and can be killed.

    python -m tests.system.pairing RUNTIME_DIRECTORY

How it is asked: `engine_process.py`.
"""

import asyncio
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from equipoise.app.wiring import catalogue
from equipoise.base.clock import SystemClock
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.config.cluster import Here
from equipoise.config.loading import load
from equipoise.engines.keepalived.runner import KeepalivedEngine
from equipoise.plan.compile import compile_plan
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Plan
from equipoise.state.events import Event
from tests.system.engine_process import EngineProcess, serve


@dataclass
class Served:
    """The engine and what it said."""

    runtime: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    bugs: list[str] = field(default_factory=list)
    changes: int = 0

    def __post_init__(self) -> None:
        self.tasks = Tasks(lambda name, error: self.bugs.append(f"{name}: {error!r}"))
        self.engine = KeepalivedEngine(Directories(self.runtime, self.runtime), self.tasks, SystemClock(), self._emit)
        self.engine.on_change = self._changed

    def _emit(self, event: Event) -> None:
        self.events.append(event.fields())

    def _changed(self) -> None:
        self.changes += 1

    async def do(self, command: str, *arguments: Any) -> Any:
        match command:
            case "check":
                said = await self.engine.check(self.engine.render(plan_of(*arguments)))
                return [[each.message, list(each.path)] for each in said]
            case "apply":
                return await self.engine.apply(self.engine.render(plan_of(*arguments)))
            case "forget":
                return await self.engine.apply(self.engine.render(alone()))
            case "groups":
                return [asdict(group) for group in self.engine.groups]
            case "stop":
                return await self.engine.stop(30)
            case "adopt" | "undo_start":
                return await getattr(self.engine, command)() or None
            case "leave":
                return self.engine.leave()
            case "give" | "keep" | "set_fault" | "watch" | "fault":
                return await getattr(self.engine, command)(*arguments)
            case "adopted":
                return self.engine.adopted
            case "events":
                return self.events
            case "changes":
                return self.changes
            case "bugs":
                return self.bugs
        raise AssertionError(command)


def plan_of(here: dict[str, str], cluster: str, vips: list[str], protocol: str = "") -> Plan:
    """Return the plan of one of the two machines; without a protocol no process of ours is looked for."""
    carried = f"protocol: {protocol}" if protocol else "protocol: dicom, mode: l4_nat"
    services = "".join(
        f"  s{number}: {{{carried}, listen: '{vip}', ports: 104, nodes: {{a: {{address: '{_node(vip)}'}}}}}}\n"
        for number, vip in enumerate(vips)
    )
    text = f"site: here\nservices:\n{services}cluster: {cluster}\n"
    site = load(text, "site.yaml", catalogue()).site
    return compile_plan(site, HostFacts(here=Here(**here)))


def _node(vip: str) -> str:
    return "fd00::11" if ":" in vip else "10.0.0.11"


def alone() -> Plan:
    """Return a plan without a pair."""
    return Plan(site="here", services=(), gateway_workers=1, drain_timeout_s=30, digest="")


class Engine(EngineProcess):
    """The process, from outside."""

    module = "tests.system.pairing"


if __name__ == "__main__":
    asyncio.run(serve(Served(Path(sys.argv[1]))))

"""The engine of addresses in a process of its own, so that it runs in a network namespace and can be killed.

    python -m tests.system.addressing RUNTIME_DIRECTORY

How it is asked: `engine_process.py`.
"""

import asyncio
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equipoise.base.clock import SystemClock
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.engines.addresses.render import Artifact, Wanted
from equipoise.engines.addresses.runner import AddressesEngine
from equipoise.engines.addresses.segment import who_has
from equipoise.plan.model import ManagedAddress
from equipoise.state.events import Event
from tests.system.engine_process import EngineProcess, serve


@dataclass
class HastyClock:
    """The machine's, but the test can let time go by."""

    ahead_s: float = 0.0
    machine: SystemClock = field(default_factory=SystemClock)

    def monotonic(self) -> float:
        return self.machine.monotonic() + self.ahead_s

    def wall(self) -> float:
        return self.machine.wall() + self.ahead_s


class KnownTasks(Tasks):
    """Tasks that can be waited for."""

    async def wait_all(self) -> None:
        await asyncio.gather(*self._running)


@dataclass
class Served:
    """The engine and what it said."""

    runtime: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    bugs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = HastyClock()
        self.tasks = KnownTasks(lambda name, error: self.bugs.append(f"{name}: {error!r}"))
        self.engine = AddressesEngine(Directories(self.runtime, self.runtime), self.tasks, self.clock, self._emit)

    def _emit(self, event: Event) -> None:
        self.events.append(event.fields())

    async def do(self, command: str, *arguments: Any) -> Any:
        match command:
            case "check":
                return [[each.message, list(each.path)] for each in await self.engine.check(_artifact(*arguments))]
            case "apply":
                return await self.engine.apply(_artifact(*arguments))
            case "later":
                self.clock.ahead_s += arguments[0]
                return await self.engine.watch()
            case "stop":
                return await self.engine.stop(30)
            case "adopt" | "undo_start":
                return await getattr(self.engine, command)() or None
            case "who_has":
                return list(await asyncio.to_thread(who_has, *arguments))
            case "idle":
                return await self.tasks.wait_all()
            case "events":
                return self.events
            case "bugs":
                return self.bugs
        raise AssertionError(command)


def _artifact(hosts: list[str], interface: str = "eth0", is_direct: bool = False) -> Artifact:
    return Artifact(tuple(Wanted(ManagedAddress(host, interface), "pacs", is_direct) for host in sorted(hosts)))


class Engine(EngineProcess):
    """The process, from outside."""

    module = "tests.system.addressing"


if __name__ == "__main__":
    asyncio.run(serve(Served(Path(sys.argv[1]))))

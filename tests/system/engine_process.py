"""An engine in a process of its own, so that it runs in a network namespace and can be killed.

    python -m MODULE RUNTIME_DIRECTORY

Each line that it reads is a command, a JSON list; each line that it prints is the answer.  Leaves out what an engine is
asked for: `addressing.py`, `pairing.py`.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar, Protocol

from equipoise.base.errors import EquipoiseError
from equipoise.base.tasks import Tasks
from tests.system.netns import Host


class Served(Protocol):
    """An engine, and how it is asked."""

    @property
    def tasks(self) -> Tasks:
        """What it runs."""

    async def do(self, command: str, *arguments: Any) -> Any:
        """Have it do something.  Raises: EquipoiseError."""


async def serve(served: Served) -> None:
    """Do what is asked, until nobody asks any more."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer = {"done": await served.do(*json.loads(line))}
        except EquipoiseError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
    await served.tasks.cancel_all()


class EngineProcess:
    """The process, from outside; `before` is a command that runs it.

    Attributes:
        module: What serves it when it is run.
    """

    module: ClassVar[str]

    def __init__(self, host: Host, runtime: Path, *before: str) -> None:
        self.process = subprocess.Popen(
            [*host.prefix, *before, sys.executable, "-m", self.module, str(runtime)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def do(self, command: str, *arguments: Any) -> Any:
        """Have it do something.  Raises: EquipoiseError where it says so."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([command, *arguments]) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())  # pytest's own timeout bounds it
        if "error" in answer:
            raise EquipoiseError(answer["error"])
        return answer["done"]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return what it said of one kind."""
        return [each for each in self.do("events") if each["kind"] == kind]

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.kill()
        self.process.communicate()

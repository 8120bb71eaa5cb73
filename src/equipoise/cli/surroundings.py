"""What a command finds around it: directories, clock, the API's server to hand on, and the supervisor's client."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import typer

from equipoise.base.clock import Clock
from equipoise.base.paths import Directories
from equipoise.cli.client import Client
from equipoise.plan.model import Secured


class Servers(Protocol):
    """What a supervisor is served by: each gives something with `close`, of a type that is the API's."""

    async def api(self, supervisor: Any, socket_path: Path) -> Any:
        """Serve the API."""

    async def pair(self, pair: Any, address: str, port: int, secured: Secured) -> Any:
        """Serve this half of a pair to the other one."""

    async def invitation(self, inviting: Any, address: str, port: int, own: Path) -> Any:
        """Serve a machine that wants to join."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the program's start hands to every command."""

    directories: Directories
    clock: Clock
    servers: Servers

    def client(self) -> Client:
        """Return a client of the supervisor of these directories; it connects when it is used."""
        return Client(self.directories.api_socket)


def surroundings(context: typer.Context) -> Surroundings:
    """Return what the program's start put into `context`."""
    found = context.obj
    if not isinstance(found, Surroundings):
        raise TypeError("the command was started without equipoise.cli.main.build")
    return found

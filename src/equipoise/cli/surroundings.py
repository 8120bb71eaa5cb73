"""What a command finds around it: directories, clock, the API's server to hand on, and the supervisor's client."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from equipoise.base.clock import Clock
from equipoise.base.paths import Directories
from equipoise.cli.client import Client

# Given the supervisor and the socket's path: something with `close`.  Its types are the API's, which we do not know.
ServeApi = Callable[[Any, Path], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the program's start hands to every command."""

    directories: Directories
    clock: Clock
    serve_api: ServeApi

    def client(self) -> Client:
        """Return a client of the supervisor of these directories; it connects when it is used."""
        return Client(self.directories.api_socket)


def surroundings(context: typer.Context) -> Surroundings:
    """Return what the program's start put into `context`."""
    found = context.obj
    if not isinstance(found, Surroundings):
        raise TypeError("the command was started without equipoise.cli.main.build")
    return found

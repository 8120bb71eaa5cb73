"""The FIFO in which keepalived writes down what becomes of its instances.

keepalived opens it for reading too, so lines wait there while no supervisor does.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from equipoise.base.errors import EngineError

_MOST_BYTES = 65536


class Notices:
    """Reads the FIFO; `heard` is called with the lines of each look."""

    def __init__(self, path: Path, heard: Callable[[list[str]], None]) -> None:
        self._path = path
        self._heard = heard
        self._descriptor = -1
        self._rest = b""

    def open(self) -> None:
        """Read from now on, what waits there first.  Raises: EngineError."""
        if self._descriptor >= 0:
            return
        try:
            # For writing too, else it would have an end for as long as no keepalived runs.
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise EngineError(f"{self._path} cannot be read: {error.strerror}") from None
        asyncio.get_running_loop().add_reader(self._descriptor, self.read)
        self.read()

    def read(self) -> None:
        """Read what is there."""
        if self._descriptor < 0:
            return
        with suppress(BlockingIOError):
            while data := os.read(self._descriptor, _MOST_BYTES):
                self._rest += data
        whole, _, self._rest = self._rest.rpartition(b"\n")
        if whole:
            self._heard(whole.decode(errors="replace").splitlines())

    def close(self) -> None:
        """Read no more; what comes waits for the next reader."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
        self._descriptor, self._rest = -1, b""

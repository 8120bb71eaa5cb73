"""What gateways learned of calling AEs, kept over restarts: by service, the bytes to expect of an association.

A file of its own in the state directory; titles are in it, nothing of patients.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from equipoise.base.paths import replace_file

Learned = dict[str, dict[str, float]]


class LearnedFile:
    """The file; it is written when something has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = b""

    def read(self) -> Learned:
        """Return what was kept; nothing where there is no file, or one that cannot be read: it is learned again."""
        try:
            self._written = self._path.read_bytes()
            return msgspec.json.decode(self._written, type=Learned)
        except (OSError, ValueError, msgspec.MsgspecError):  # bytes that are no text are a ValueError
            self._written = b""
            return {}

    def keep(self, learned: Mapping[str, Mapping[str, float]]) -> str | None:
        """Write what is not written yet; return in words why that could not be done, None where it was."""
        content = json.dumps(learned, sort_keys=True).encode()
        if content == self._written:
            return None
        try:
            replace_file(self._path, content)
        except OSError as error:
            return f"what was learned of calling AEs could not be kept: {error.strerror}; make room"
        self._written = content
        return None

"""The directory of keepalived: its configuration, the files by which it is told, its log, and what it last said.

Everything is on the runtime directory's file system, so that a full disk keeps no address from moving.
"""

import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import msgspec

from equipoise.base.errors import EngineError
from equipoise.base.paths import Directories, replace_file
from equipoise.engines.keepalived.groups import GroupNow
from equipoise.engines.keepalived.render import FAULT_FILE, FIFO, give_file

DIRECTORY = "keepalived"  # below the runtime directory
_MOST_LOG_BYTES = 1024 * 1024  # some thousand changes of who has the addresses
_MOST_READ_BYTES = 4 * 1024 * 1024
_WITH_DEVICE = re.compile(r"^\s+([0-9a-f.:]+)/\d+ dev ", re.MULTILINE)


class Kept(msgspec.Struct, frozen=True):
    """What the next supervisor has to know.

    Attributes:
        log_end: How far keepalived's log was read.
    """

    groups: tuple[GroupNow, ...]
    log_end: int


class Files:
    """The files of one keepalived.  What cannot be written is an EngineError that says what to do."""

    def __init__(self, directories: Directories) -> None:
        self.directory = directories.runtime / DIRECTORY
        self.configuration = self.directory / "keepalived.conf"
        self.candidate = self.directory / "candidate.conf"
        self.rules = self.directory / "rules.nft"
        self.pid = self.directory / "keepalived.pid"
        self.vrrp_pid = self.directory / "vrrp.pid"
        self.fifo = self.directory / FIFO
        self.log = self.directory / "keepalived.log"
        self._record = self.directory / "groups.json"

    def create(self) -> None:
        """Make the directory.  Raises: EngineError."""
        try:
            self.directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            self.directory.chmod(0o750)
        except OSError as error:
            raise EngineError(_plainly(self.directory, error)) from None

    def make_fifo(self) -> None:
        """Make the FIFO, which keepalived then leaves alone.  Raises: EngineError."""
        try:
            if not self.fifo.is_fifo():
                self.fifo.unlink(missing_ok=True)
                os.mkfifo(self.fifo, 0o600)
        except OSError as error:
            raise EngineError(_plainly(self.fifo, error)) from None

    def configured(self) -> str | None:
        """Return the configuration that was written last."""
        return _text(self.configuration)

    def loaded(self) -> str | None:
        """Return the packet rules that were loaded last."""
        return _text(self.rules)

    def configured_hosts(self) -> frozenset[str]:
        """Return the addresses in the configuration that was written last: who ran on it may have left them here."""
        return frozenset(_WITH_DEVICE.findall(self.configured() or ""))

    def write(self, path: Path, text: str) -> None:
        """Put a text in the place where keepalived reads it.  Raises: EngineError."""
        try:
            replace_file(path, text.encode())
        except OSError as error:
            raise EngineError(_plainly(path, error)) from None

    # By which keepalived is told

    def tell_fault(self, *, is_there: bool) -> None:
        """Say whether this machine cannot carry traffic.  Raises: EngineError."""
        self._tell(FAULT_FILE, is_there)

    def tell_give(self, group: str, *, away: bool) -> None:
        """Say whether a group is handed over.  Raises: EngineError."""
        self._tell(give_file(group), away)

    def has_fault(self) -> bool:
        """Say whether it was said last that this machine cannot carry traffic."""
        return _is_set(self.directory / FAULT_FILE)

    def given(self) -> frozenset[str]:
        """Return the groups that are being handed over."""
        start = len(give_file(""))
        return frozenset(path.name[start:] for path in self.directory.glob(give_file("*")) if _is_set(path))

    def _tell(self, name: str, value: bool) -> None:
        """Write in place: keepalived reads when the file is closed, and it matters for as long as this machine runs."""
        path = self.directory / name
        try:
            path.write_text(f"{int(value)}\n")
        except OSError as error:
            raise EngineError(_plainly(path, error)) from None

    # The log

    def log_end(self) -> int:
        """Return where the log ends now."""
        try:
            return self.log.stat().st_size
        except OSError:
            return 0

    def log_since(self, start: int) -> tuple[list[str], int]:
        """Return the whole lines behind that place, and where they end; a log that was cut is read from its start."""
        try:
            with self.log.open("rb") as log:
                start = start if start <= self.log_end() else 0
                log.seek(start)
                text, _, _ = log.read(_MOST_READ_BYTES).rpartition(b"\n")
        except OSError:
            return [], start
        return text.decode(errors="replace").splitlines(), start + len(text) + (1 if text else 0)

    def trim_log(self) -> bool:
        """Empty a log that has grown long, which keepalived appends to; return whether it was."""
        if self.log_end() <= _MOST_LOG_BYTES:
            return False
        with suppress(OSError):
            os.truncate(self.log, 0)
        return self.log_end() <= _MOST_LOG_BYTES

    # What it last said

    def keep(self, groups: Collection[GroupNow], log_end: int) -> None:
        """Write down how the groups stand; where that fails, the next supervisor knows less of the past."""
        draft = self._record.with_suffix(".new")
        with suppress(OSError):  # without waiting for the disk: it is of no use once the machine has lost its power
            draft.write_bytes(msgspec.json.encode(Kept(tuple(groups), log_end)))
            draft.replace(self._record)

    def kept(self) -> Kept | None:
        """Return what was written down last."""
        try:
            return msgspec.json.decode(self._record.read_bytes(), type=Kept)
        except (OSError, ValueError, msgspec.MsgspecError):
            return None

    # Ends

    def remove_stale(self) -> None:
        """Remove PID files of one that has ended: keepalived may take another process of that number for itself."""
        for path in (self.pid, self.vrrp_pid):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def remove_all(self) -> None:
        """Remove everything but the log, which says what happened."""
        with suppress(OSError):
            for path in self.directory.iterdir():
                if path != self.log:
                    path.unlink(missing_ok=True)


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _is_set(path: Path) -> bool:
    return (_text(path) or "").strip() not in ("", "0")


def _plainly(path: Path, error: OSError) -> str:
    return (
        f"{path} cannot be written: {error.strerror}; make room, or set EQUIPOISE_RUNTIME_DIR to a directory that you "
        "may write"
    )

"""Where Equipoise keeps what it needs while it runs, and what it keeps for good."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from equipoise.base.errors import EquipoiseError

SOCKET_PATH_LIMIT_BYTES = 107  # Linux: sun_path has 108 bytes, the last one is NUL


@dataclass(frozen=True, slots=True)
class Directories:
    """The two directories of one instance; several run on one machine with different ones."""

    runtime: Path
    state: Path

    @property
    def api_socket(self) -> Path:
        """Where the supervisor serves `/api/v1`."""
        return self.runtime / "api.sock"

    @property
    def lock(self) -> Path:
        """Held by the one supervisor of this runtime directory."""
        return self.runtime / "supervisor.lock"

    def create(self) -> None:
        """Make both, for the owner and the group alone.  Raises: EquipoiseError."""
        for directory, variable in ((self.runtime, "EQUIPOISE_RUNTIME_DIR"), (self.state, "EQUIPOISE_STATE_DIR")):
            try:
                directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            except OSError as error:
                raise EquipoiseError(
                    f"cannot make the directory {directory}: {error.strerror}; set {variable} to one that you may write"
                ) from None
            if not os.access(directory, os.W_OK | os.X_OK):
                raise EquipoiseError(f"cannot write in {directory}; set {variable} to a directory that you may write")


def append_to(path: Path) -> BinaryIO:
    """Open a file to write at its end; a new one is for the owner and the group alone.  Raises: OSError."""
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o640))


def directories(environment: Mapping[str, str], *, is_root: bool) -> Directories:
    """Return the directories that the environment names, or the usual ones of this user."""
    home = Path(environment.get("HOME", "/"))
    if chosen := environment.get("EQUIPOISE_STATE_DIR"):
        state = Path(chosen)
    elif is_root:
        state = Path("/var/lib/equipoise")
    elif xdg := environment.get("XDG_STATE_HOME"):
        state = Path(xdg) / "equipoise"
    else:
        state = home / ".local/state/equipoise"
    if chosen := environment.get("EQUIPOISE_RUNTIME_DIR"):
        runtime = Path(chosen)
    elif is_root:
        runtime = Path("/run/equipoise")
    elif xdg := environment.get("XDG_RUNTIME_DIR"):
        runtime = Path(xdg) / "equipoise"
    else:
        runtime = state / "run"
    return Directories(runtime=runtime.absolute(), state=state.absolute())


def socket_path(path: Path) -> str:
    """Return `path` as the name of a Unix socket.  Raises: EquipoiseError where Linux cannot take it."""
    if (length := len(os.fsencode(path))) > SOCKET_PATH_LIMIT_BYTES:
        raise EquipoiseError(
            f"the socket path {path} has {length} bytes, Linux takes {SOCKET_PATH_LIMIT_BYTES}; "
            "set EQUIPOISE_RUNTIME_DIR to a shorter directory, for example below /tmp or /run"
        )
    return str(path)


def replace_file(path: Path, content: bytes, mode: int = 0o640, owner: tuple[int, int] | None = None) -> None:
    """Write `content` so that a reader, or a machine that loses power, sees the old file or the new one, whole.

    `owner` is user and group; what of it we may not give stays ours.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _give(file.fileno(), owner)
            os.fchmod(file.fileno(), mode)  # what open makes is cut by the umask
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _give(descriptor: int, owner: tuple[int, int] | None) -> None:
    for user, group in () if owner is None else ((owner[0], -1), (-1, owner[1])):
        with suppress(PermissionError):
            os.fchown(descriptor, user, group)

"""The directory of HAProxy: its configuration, certificates, pages and sockets, and the log beside it.

Only its owner may look inside: certificates lie there with their keys.  What a file holds is in its name where HAProxy
reads it, so writing one changes nothing for those that serve.
"""

import os
import ssl
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from equipoise.base.errors import EngineError, EquipoiseError
from equipoise.base.paths import Directories, append_to, replace_file, socket_path
from equipoise.engines.base import Refusal
from equipoise.engines.haproxy.artifact import (
    CONFIGURATION,
    DIRECTORY,
    DIRECTORY_VARIABLE,
    MASTER_SOCKET,
    SYSTEM_CA_VARIABLE,
    WORKER_SOCKET,
    Artifact,
    Bundle,
)
from equipoise.plan.model import Endpoint

_CANDIDATE = "candidate.cfg"
_LONGEST_SUFFIX = ".4194304.tmp"  # HAProxy binds NAME.PID.tmp and renames it; PIDs end at 2^22
_MODE = 0o600
_OWN = frozenset({CONFIGURATION, MASTER_SOCKET, WORKER_SOCKET, _CANDIDATE})
_SOCKETS = (f"{MASTER_SOCKET}.", f"{WORKER_SOCKET}.")
_MOST_LOG_BYTES = 4 * 1024 * 1024  # some ten thousand changes of a node
_KEPT_LOG_BYTES = 64 * 1024


class Files:
    """The files of one HAProxy.  Whatever cannot be written is an EngineError that says what to do."""

    def __init__(self, directories: Directories) -> None:
        self.directory = directories.runtime / DIRECTORY
        self.configuration = self.directory / CONFIGURATION
        self.candidate = self.directory / _CANDIDATE
        self.master_socket = self.directory / MASTER_SOCKET
        self.worker_socket = self.directory / WORKER_SOCKET
        self.log = directories.state / "haproxy.log"

    def environment(self) -> dict[str, str]:
        """Return all that HAProxy gets of our environment."""
        trusted = ssl.get_default_verify_paths()
        authorities = trusted.cafile or trusted.capath
        return {
            DIRECTORY_VARIABLE: str(self.directory),
            "PATH": os.environ.get("PATH", os.defpath),
            **({SYSTEM_CA_VARIABLE: authorities} if authorities else {}),
        }

    def create(self) -> None:
        """Make the directory.  Raises: EngineError; a socket's path may be too long as well."""
        try:
            for sock in (self.master_socket, self.worker_socket):
                socket_path(sock.with_name(sock.name + _LONGEST_SUFFIX))
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory.chmod(0o700)
        except OSError as error:
            raise EngineError(f"cannot make the directory {self.directory}: {error.strerror}") from None
        except EquipoiseError as error:
            raise EngineError(str(error)) from None

    def write_parts(self, artifact: Artifact) -> list[Refusal]:
        """Write certificates and pages; return which certificates cannot be read.  Raises: EngineError.

        A copy of certificates that is there stays, since its name says what was in them: what HAProxy serves it can be
        given again, whatever the files hold by now.
        """
        # The name comes from facts that were read before the plan was made: a file that was replaced since then is
        # copied under the name of its former content.  This is accepted: HAProxy is asked about the very copy that it
        # will read, and the next look at the files names what they hold by then.
        refusals = []
        for bundle in artifact.bundles:
            if (self.directory / bundle.name).exists():
                continue
            try:
                content = _content(bundle)
            except OSError as error:
                refusals.append(Refusal(f"{error.filename} cannot be read: {error.strerror}", bundle.path))
            else:
                self._write(self.directory / bundle.name, content)
        for page in artifact.pages:
            self._write(self.directory / page.name, page.content)
        return refusals

    def write_missing(self, artifact: Artifact) -> None:
        """Write what of certificates and pages is not there.  Raises: EngineError."""
        is_missing = any(not (self.directory / name).exists() for name in _names(artifact))
        if is_missing and (wrong := self.write_parts(artifact)):
            raise EngineError("; ".join(str(refusal) for refusal in wrong))

    def write_configuration(self, text: str) -> None:
        """Put the configuration in the place where HAProxy reads it.  Raises: EngineError."""
        self._write(self.configuration, text.encode())

    def write_candidate(self, text: str) -> None:
        """Put a configuration where HAProxy is asked about it.  Raises: EngineError."""
        self._write(self.candidate, text.encode())

    def drop_candidate(self) -> None:
        """Remove the configuration that was asked about."""
        self.candidate.unlink(missing_ok=True)

    def remove_unused(self, *used: Artifact) -> None:
        """Remove certificates and pages that none of these names."""
        kept = _OWN | {name for artifact in used for name in _names(artifact)}
        self._remove(
            path
            for path in self._all()
            # A master of 2.6 binds its socket anew just after its worker serves, and ends if the draft of it is gone.
            if str(path.relative_to(self.directory)) not in kept and not path.name.startswith(_SOCKETS)
        )

    def remove_all(self) -> None:
        """Remove everything: no HAProxy runs."""
        self._remove(self._all())

    def endpoints(self) -> frozenset[Endpoint]:
        """Return where the configuration listens that was written last."""
        return frozenset(listening(self.configured() or ""))

    def configured(self) -> str | None:
        """Return the configuration that was written last."""
        try:
            return self.configuration.read_text()
        except OSError:
            return None

    # The log

    def log_end(self) -> int:
        """Return where the log ends now."""
        try:
            return self.log.stat().st_size
        except OSError:
            return 0

    def log_since(self, start: int) -> list[str]:
        """Return the lines that were written behind that place."""
        try:
            with self.log.open("rb") as log:
                log.seek(start)
                return log.read(_KEPT_LOG_BYTES).decode(errors="replace").splitlines()
        except OSError:
            return []

    def trim_log(self) -> None:
        """Keep the end of a log that has grown long; HAProxy appends to it all the while, and goes on at its end."""
        if (length := self.log_end()) <= _MOST_LOG_BYTES:
            return
        with self.log.open("rb") as log:
            log.seek(length - _KEPT_LOG_BYTES)
            end = log.read()
        os.truncate(self.log, 0)
        with append_to(self.log) as log:
            log.write(end.partition(b"\n")[2])

    # Inside

    def _write(self, path: Path, content: bytes) -> None:
        try:
            if not path.exists() or path.read_bytes() != content:
                path.parent.mkdir(mode=0o700, exist_ok=True)
                replace_file(path, content, mode=_MODE)
        except OSError as error:
            raise EngineError(
                f"{path} cannot be written: {error.strerror}; make room, or set EQUIPOISE_RUNTIME_DIR to a directory "
                "that you may write"
            ) from None

    def _all(self) -> list[Path]:
        try:
            return [path for path in self.directory.rglob("*") if not path.is_dir()]
        except OSError:
            return []

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            with suppress(OSError):  # what stays is overwritten one day
                path.unlink()


def listening(text: str) -> Iterator[Endpoint]:
    """Yield where a configuration listens, from its lines `bind ADDRESS:PORT`."""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "bind":
            host, _, port = words[1].removeprefix("ipv4@").removeprefix("ipv6@").rpartition(":")
            if port.isdecimal():
                yield Endpoint(host.removeprefix("[").removesuffix("]"), int(port))


def _names(artifact: Artifact) -> Collection[str]:
    return [*(bundle.name for bundle in artifact.bundles), *(page.name for page in artifact.pages)]


def _content(bundle: Bundle) -> bytes:
    """Return the parts of a bundle, each of them on lines of its own.  Raises: OSError."""
    return b"".join(Path(part).read_bytes().rstrip(b"\n") + b"\n" for part in bundle.parts)

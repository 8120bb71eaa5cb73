"""The API's client: HTTP over the supervisor's Unix socket, its errors turned back into words.

Leaves out what the answers mean; commands show them.
"""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.base.errors import ConfigError, EquipoiseError, Problem
from equipoise.base.paths import socket_path

if TYPE_CHECKING:
    import httpx

    from equipoise.plan.diff import Change

_CONNECT_TIMEOUT_S = 2.0
_ANSWER_TIMEOUT_S = 15.0
_CHANGE_TIMEOUT_S = 120.0  # every engine is asked, and perhaps started, before the answer


class NoSupervisorError(EquipoiseError):
    """Nobody answers where the supervisor should."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a document would change, or has changed; its revision in a pair, and why the peer has it not."""

    digest: str
    changes: "tuple[Change, ...]"
    warnings: tuple[str, ...]
    revision: int | None = None
    peer_said: str | None = None


class Client:
    """Asks the supervisor behind `socket`.  Every method raises NoSupervisorError where none answers."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def identity(self) -> dict[str, Any]:
        """Return the supervisor's `version`, `pid` and `site`."""
        return self._ask("GET", "/identity")

    def status(self) -> dict[str, Any]:
        """Return the document of `status --json`."""
        return self._ask("GET", "/status")

    def preview(self, document: str, file: str) -> Preview:
        """Say what `document` would change.  Raises: ConfigError, with places in `file`."""
        return _preview(self._ask("POST", "/plan", {"document": document}, file=file))

    def apply(self, document: str, file: str, *, force: bool) -> Preview:
        """Put `document` into force.  Raises: ConfigError or EquipoiseError, with nothing changed."""
        return _preview(self._ask("POST", "/apply", {"document": document, "force": force}, file=file))

    def override(self, pattern: str, action: str, weight: int | None = None) -> list[str]:
        """Change nodes; return their SERVICE/NODE names."""
        answer = self._ask("POST", "/nodes", {"pattern": pattern, "action": action, "weight": weight})
        return [str(name) for name in answer["changed"]]

    def events(self, limit: int) -> list[dict[str, Any]]:
        """Return the last events, newest last."""
        events: list[dict[str, Any]] = self._ask("GET", f"/events?limit={limit}")["events"]
        return events

    def follow(self, recent: int) -> Iterator[dict[str, Any]]:
        """Yield the last `recent` events and then each new one, until the supervisor ends."""
        with (
            self._connected(read_timeout_s=None) as http,
            http.stream("GET", f"/events/follow?limit={recent}") as answer,
        ):
            if not answer.is_success:
                answer.read()
                raise _error(answer, "")
            for line in answer.iter_lines():
                yield json.loads(line)

    def replace_gateways(self) -> list[int]:
        """Replace every gateway process; return the new ones' numbers."""
        return [int(pid) for pid in self._ask("POST", "/gateways/replace")["pids"]]

    def cluster(self) -> dict[str, Any]:
        """Return the document of `cluster status --json`."""
        return self._ask("GET", "/cluster")

    def change_cluster(self, what: str, **wanted: Any) -> dict[str, Any]:
        """Join, leave, sync or hand over; return what became of it.  Raises: EquipoiseError."""
        return self._ask("POST", f"/cluster/{what}", wanted)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None, file: str = "") -> dict[str, Any]:
        timeout_s = _ANSWER_TIMEOUT_S if method == "GET" else _CHANGE_TIMEOUT_S
        with self._connected(timeout_s) as http:
            answer = http.request(method, path, json=body)
        if not answer.is_success:
            raise _error(answer, file)
        document: dict[str, Any] = answer.json()
        return document

    @contextmanager
    def _connected(self, read_timeout_s: float | None) -> Iterator["httpx.Client"]:
        import httpx  # takes as long to import as everything else of a command together

        name = socket_path(self._socket)
        timeout = httpx.Timeout(_CONNECT_TIMEOUT_S, read=read_timeout_s, write=_ANSWER_TIMEOUT_S)
        try:
            with httpx.Client(
                transport=httpx.HTTPTransport(uds=name), base_url="http://equipoise/api/v1", timeout=timeout
            ) as http:
                yield http
        except httpx.ConnectError as error:
            raise _not_connected(self._socket, error) from None
        except httpx.TimeoutException:
            raise EquipoiseError(f"the supervisor at {name} did not answer in time; it may be overloaded") from None
        except httpx.TransportError as error:
            raise NoSupervisorError(f"the supervisor at {name} ended the conversation: {error}") from None


def _not_connected(socket: Path, error: "httpx.ConnectError") -> EquipoiseError:
    reason: BaseException | None = error
    while reason is not None and not isinstance(reason, OSError):
        reason = reason.__cause__ or reason.__context__
    if isinstance(reason, OSError) and reason.errno in {errno.EACCES, errno.EPERM}:
        return NoSupervisorError(f"may not open {socket}: be root, or a member of the group that owns it")
    return NoSupervisorError(
        f"no supervisor answers at {socket}; start one with `equipoise run SITE.yaml`, "
        "or set EQUIPOISE_RUNTIME_DIR to the directory of the one that runs"
    )


def _preview(answer: dict[str, Any]) -> Preview:
    from equipoise.plan.diff import Change, What

    changes = tuple(
        Change(change["path"], What(change["what"]), change["old"], change["new"]) for change in answer["changes"]
    )
    return Preview(answer["digest"], changes, tuple(answer["warnings"]), answer.get("revision"), answer.get("peer"))


def _error(answer: "httpx.Response", file: str) -> EquipoiseError:
    try:
        content = answer.json()
        text, problems = str(content["error"]), content.get("problems", [])
    except (ValueError, KeyError, TypeError):  # not of our API: uvicorn's own 503 is plain text
        return EquipoiseError(f"the supervisor answered {answer.status_code}: {answer.text[:200]}")
    if problems:
        return ConfigError([Problem(**{**problem, "file": file or problem["file"]}) for problem in problems])
    return EquipoiseError(text)

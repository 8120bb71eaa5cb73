"""The one document, its old revisions, and the plan that was applied last.

The document is the file given to `run`.  `apply` replaces it; what it replaces is kept in the state directory.
"""

import json
from pathlib import Path

from equipoise.base.clock import Clock, rfc3339
from equipoise.base.errors import ConfigError, EquipoiseError, Problem
from equipoise.base.paths import replace_file
from equipoise.config.models import Catalogue
from equipoise.plan.compile import from_json, to_json
from equipoise.plan.model import Plan

MAX_BYTES = 1 << 20
_KEPT_REVISIONS = 50


def read_document(path: Path) -> str:
    """Return a document's text.  Raises: ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([Problem(str(path), 0, 0, "", f"cannot be read: {error.strerror}")]) from None
    if len(content) > MAX_BYTES:
        raise ConfigError([Problem(str(path), 0, 0, "", "has more than 1 MiB; is this the site's configuration?")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 at byte {error.start}; save it as UTF-8"
        raise ConfigError([Problem(str(path), 0, 0, "", reason)]) from None


class DocumentStore:
    """The document of one instance, and what is kept of it."""

    def __init__(self, path: Path, state: Path, clock: Clock) -> None:
        self.path = path
        self._revisions = state / "revisions"
        self._plan_file = state / "plan.json"
        self._clock = clock

    def read(self) -> str:
        """Return the document's text.  Raises: ConfigError."""
        return read_document(self.path)

    def replace(self, text: str) -> None:
        """Put `text` in place of the document, keeping the old one.  Raises: EquipoiseError, with nothing changed."""
        try:
            self._keep_revision(self.path.read_bytes())
        except OSError as error:
            raise EquipoiseError(
                f"the old document cannot be kept in {self._revisions}: {error.strerror}; make room, or let the "
                "supervisor's user read the document and write there"
            ) from None
        try:
            now = self.path.stat()
            replace_file(self.path.resolve(), text.encode(), now.st_mode & 0o777, (now.st_uid, now.st_gid))
        except OSError as error:
            raise EquipoiseError(
                f"the document {self.path} cannot be replaced: {error.strerror}; the supervisor's user must be allowed "
                "to write the file and its directory"
            ) from None

    def _keep_revision(self, content: bytes) -> None:
        self._revisions.mkdir(mode=0o750, exist_ok=True)
        stamp = rfc3339(self._clock.wall()).replace(":", "")
        same_time = len(list(self._revisions.glob(f"{stamp}*.yaml")))  # clocks are set back, and two changes are quick
        replace_file(self._revisions / f"{stamp}{f'~{same_time:03}' if same_time else ''}.yaml", content)
        for old in sorted(self._revisions.glob("*.yaml"))[:-_KEPT_REVISIONS]:
            old.unlink()

    def keep_plan(self, plan: Plan) -> None:
        """Remember what was applied last, for `plan` when no supervisor runs.  Raises: OSError."""
        replace_file(self._plan_file, json.dumps(to_json(plan), indent=1).encode())


def last_plan(state: Path, catalogue: Catalogue) -> Plan | None:
    """Return the plan that was applied last, or None where there was none.  Raises: EquipoiseError."""
    try:
        stored = json.loads((state / "plan.json").read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise EquipoiseError(f"the last applied plan in {state} cannot be read: {error}") from None
    return from_json(stored, catalogue.checks)

"""Which document came after which: a number that goes up, the text's digest, and the revisions before it.

Two machines that were given different documents while they could not talk have histories that part; that is a
conflict, and nobody but a person says whose document holds.
"""

from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec

from equipoise.base.errors import EquipoiseError
from equipoise.base.paths import replace_file
from equipoise.cluster.messages import Revision

Relation = Literal["same", "ahead", "behind", "conflict"]
_KEPT = 100  # changes that a peer may have missed and still be known to be behind, rather than on a way of its own
_DIGEST_DIGITS = 16


def digest_of(text: str) -> str:
    """Return what stands for a document's text."""
    return sha256(text.encode()).hexdigest()[:_DIGEST_DIGITS]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A revision and those before it, newest first; an ancestor is written as `NUMBER:DIGEST`."""

    revision: Revision
    ancestors: tuple[str, ...] = ()

    def after(self, text: str, at_least: int = 0) -> "History":
        """Return the history once this text is in force; the same text is no new revision."""
        digest = digest_of(text)
        if digest == self.revision.digest:
            return self
        number = max(self.revision.number + 1, at_least)
        ancestors = (_name(self.revision), *self.ancestors)[:_KEPT]
        return History(revision=Revision(number=number, digest=digest), ancestors=ancestors)

    def relation(self, theirs: "History") -> Relation:
        """Say how this history stands to another one."""
        if self.revision.digest == theirs.revision.digest:
            return "same"
        if _name(theirs.revision) in self.ancestors:
            return "ahead"
        return "behind" if _name(self.revision) in theirs.ancestors else "conflict"


_NOTHING = History(revision=Revision(number=0, digest=""))


def _name(revision: Revision) -> str:
    return f"{revision.number}:{revision.digest}"


class Revisions:
    """The history of this machine's document, in a file.

    Args:
        path: The file.

    Raises: EquipoiseError where the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_kept = True
        self.history = _read(path)

    def see(self, text: str) -> str | None:
        """Take note that this text is in force; return why that could not be kept, or None.

        A text that differs from the one known last is a new revision, also where somebody edited the file while no
        supervisor ran.
        """
        if self.history == _NOTHING:
            return self._put(History(revision=Revision(number=1, digest=digest_of(text))))
        return self._put(self.history.after(text))

    def adopt(self, history: History) -> str | None:
        """Have the peer's history, whose document is in force here now; return why it could not be kept, or None."""
        return self._put(history)

    def supersede(self, theirs: Revision) -> str | None:
        """Have our document come after theirs, as an operator said; return why it could not be kept, or None."""
        ours = self.history
        revision = Revision(number=max(ours.revision.number, theirs.number) + 1, digest=ours.revision.digest)
        ancestors = (_name(theirs), _name(ours.revision), *ours.ancestors)[:_KEPT]
        return self._put(History(revision=revision, ancestors=ancestors))

    def _put(self, history: History) -> str | None:
        if history == self.history and self._is_kept:
            return None
        self.history, self._is_kept = history, False
        try:
            self._path.parent.mkdir(mode=0o750, exist_ok=True)
            replace_file(self._path, msgspec.json.encode(history))
        except OSError as error:
            return f"{self._path} cannot be written: {error.strerror}; make room, or let the supervisor's user write it"
        self._is_kept = True
        return None


def _read(path: Path) -> History:
    try:
        return msgspec.json.decode(path.read_bytes(), type=History)
    except FileNotFoundError:
        return _NOTHING
    except (OSError, ValueError) as error:  # msgspec's are among the latter
        raise EquipoiseError(
            f"the document's revision in {path} cannot be read ({error}); mend the file, or remove it: then this "
            "machine's document counts as the first one, and `equipoise cluster sync` says whose holds"
        ) from None

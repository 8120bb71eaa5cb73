"""When each override of an operator was given, so that two machines agree on the last one.

Stamps are counts that both machines raise, not times of day: clocks differ.  Leaves out what an override does.
"""

from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path

import msgspec

from equipoise.base.errors import EquipoiseError
from equipoise.base.paths import replace_file
from equipoise.cluster.messages import Overrides, Stamp, StampedOverride
from equipoise.plan.states import Override

_DIGEST_DIGITS = 16
_NONE = Override()


class Ledger:
    """The overrides with their stamps, those that are over too, in a file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, StampedOverride] = _read(path)

    def note(self, given: Mapping[str, Override], origin: str) -> str | None:
        """Take note that these were given here, by "SERVICE/NODE"; return why it could not be kept, or None.

        `origin` is another word on each machine and in each life of a supervisor, so that no stamp is given twice.
        """
        count = 1 + max((entry.stamp.count for entry in self._entries.values()), default=0)
        stamp = Stamp(count=count, origin=origin)
        return self.take({key: StampedOverride(override=override, stamp=stamp) for key, override in given.items()})

    def differing(self, overrides: Mapping[str, Override], nodes: Collection[str]) -> list[str]:
        """Return those of these nodes of which something else was noted last than what holds."""
        noted = {key: entry.override for key, entry in self._entries.items()}
        return [key for key in nodes if overrides.get(key, _NONE) != noted.get(key, _NONE)]

    def newer(self, theirs: Overrides, nodes: Collection[str]) -> dict[str, StampedOverride]:
        """Return those of a peer that were given after ours, of these nodes."""
        return {
            key: entry
            for key, entry in theirs.overrides.items()
            if key in nodes and (key not in self._entries or self._entries[key].stamp < entry.stamp)
        }

    def take(self, entries: Mapping[str, StampedOverride]) -> str | None:
        """Keep these in the place of ours; return why they could not be kept, or None."""
        if not entries:
            return None
        self._entries |= entries
        return self._write()

    def all(self, nodes: Collection[str]) -> Overrides:
        """Return what is known of these nodes."""
        return Overrides(overrides={key: entry for key, entry in self._entries.items() if key in nodes})

    def digest(self, nodes: Collection[str]) -> str:
        """Return what stands for all that is known of these nodes: the same on two machines that agree."""
        listed = sorted(
            (key, entry.stamp.count, entry.stamp.origin) for key, entry in self.all(nodes).overrides.items()
        )
        return sha256(repr(listed).encode()).hexdigest()[:_DIGEST_DIGITS]

    def _write(self) -> str | None:
        try:
            self._path.parent.mkdir(mode=0o750, exist_ok=True)
            replace_file(self._path, msgspec.json.encode(self._entries))
        except OSError as error:
            return f"{self._path} cannot be written: {error.strerror}; make room, or let the supervisor's user write it"
        return None


def _read(path: Path) -> dict[str, StampedOverride]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, StampedOverride])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # msgspec's are among the latter
        raise EquipoiseError(
            f"the stamps of overrides in {path} cannot be read ({error}); mend the file, or remove it: then the peer's "
            "overrides hold"
        ) from None

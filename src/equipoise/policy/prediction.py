"""What an association will move, by its calling AE: an exponentially weighted mean of what that AE moved before.

Both directions together, in bytes.  Leaves out what else one could know (SOP classes, time of day): a modality's own
past says most.  Bounded: of too many titles those leave that have moved nothing for longest.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

NEWEST = 0.2  # share of the newest in the mean: ten associations later nine tenths of it are new
MAX_BYTES = 1 << 50  # 1 PiB in one association is no measurement


@dataclass(slots=True)
class _Mean:
    bytes: int  # whole, so that their sum stays exact
    seen: int


class Predictions:
    """Means by calling AE, for one service."""

    def __init__(self, max_entries: int = 4096) -> None:
        self._max_entries = max_entries  # more titles than a hospital network has devices; below 1 MB
        self._means: OrderedDict[str, _Mean] = OrderedDict()  # who moved something last is last
        self._total = 0
        self._changed: set[str] = set()

    def expected(self, calling_ae: str) -> float:
        """Return the bytes that an association of this AE will probably move; an unknown AE is an average one."""
        mean = self._means.get(calling_ae)
        return self.average if mean is None else float(mean.bytes)

    @property
    def average(self) -> float:
        """The mean over all AEs, each counted once; 0 where none was seen."""
        return self._total / len(self._means) if self._means else 0.0

    def learn(self, calling_ae: str, moved_bytes: float) -> None:
        """Take in what an association has moved; what is no number of bytes is passed over."""
        if not _is_sane(moved_bytes):
            return
        mean = self._means.get(calling_ae) or self._enter(calling_ae, 0, seen=0)
        mean.seen += 1
        share = max(NEWEST, 1 / mean.seen)  # the first few weigh the same
        self._total -= mean.bytes
        mean.bytes = round(mean.bytes + share * (moved_bytes - mean.bytes))
        self._total += mean.bytes
        self._means.move_to_end(calling_ae)
        self._changed.add(calling_ae)
        if len(self._means) > self._max_entries:
            self._forget_oldest()

    def take_changes(self) -> dict[str, float]:
        """Return what was learned since this was last asked, at most `max_entries`."""
        changes = {calling_ae: float(self._means[calling_ae].bytes) for calling_ae in sorted(self._changed)}
        self._changed.clear()
        return changes

    def load(self, means: Mapping[str, float]) -> None:
        """Take means of an earlier life; what was learned here stays, and what is no number of bytes is passed over."""
        for calling_ae, mean in means.items():
            if len(self._means) >= self._max_entries:
                return
            if calling_ae not in self._means and _is_sane(mean):
                self._total += round(mean)
                self._enter(calling_ae, round(mean), seen=round(1 / NEWEST))
                self._means.move_to_end(calling_ae, last=False)

    def means(self) -> dict[str, float]:
        """Return all means; who moved something last is last."""
        return {calling_ae: float(mean.bytes) for calling_ae, mean in self._means.items()}

    def _enter(self, calling_ae: str, mean_bytes: int, seen: int) -> _Mean:
        mean = self._means[calling_ae] = _Mean(mean_bytes, seen)
        return mean

    def _forget_oldest(self) -> None:
        calling_ae, mean = self._means.popitem(last=False)
        self._total -= mean.bytes
        self._changed.discard(calling_ae)


def _is_sane(count: float) -> bool:
    return isfinite(count) and 0 <= count <= MAX_BYTES

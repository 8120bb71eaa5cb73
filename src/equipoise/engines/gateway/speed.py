"""How fast one node takes what it is sent, as its TCP connections tell.  Pure; what they tell is passed in.

Throughput would say little: a node with two ultrasound machines moves little, and may be the quickest of all.  But the
kernel counts for how long bytes were on their way to the node; a sender that is slow, or waits for an answer, adds
nothing to that.  Leaves out how long a node takes to answer: associations that wait stay open, and count for that.
Source: tcp(7), TCP_INFO; linux/tcp.h, tcpi_bytes_acked and tcpi_busy_time.
"""

from math import log2

SAMPLE_S = 1.0
_SAMPLE_BYTES = 4_000_000  # less measures round trips
_NEWEST = 0.3  # what a sample counts beside those before it
_HALF_LIFE_S = 600.0  # a node that was slow may have been mended: what is known of it fades
_STEPS = 2  # for each factor of two: nodes within about 20 % of each other count as equal


class Speedometer:
    """One node's."""

    __slots__ = ("_busy_s", "_from_s", "_measured_s", "_taken_bytes", "bytes_per_s")

    def __init__(self) -> None:
        self._taken_bytes = 0
        self._busy_s = 0.0
        self._from_s = float("-inf")
        self._measured_s = 0.0
        self.bytes_per_s = 0.0  # 0: nothing is known

    def saw(self, taken_bytes: int, busy_s: float) -> None:
        """Hear what one association was relieved of, and for how long bytes of it were on their way."""
        self._taken_bytes += taken_bytes
        self._busy_s += busy_s

    def take_sample(self, now_s: float) -> None:
        """End the sample, if enough was seen in it.

        Several at once share the node: together they were busy for longer than the time that passed, which is then how
        long the node took.
        """
        passed_s = now_s - self._from_s
        if self._taken_bytes >= _SAMPLE_BYTES and self._busy_s > 0:
            rate = self._taken_bytes / min(self._busy_s, passed_s)
            before = self.bytes_per_s
            self.bytes_per_s = before + _NEWEST * (rate - before) if before else rate
            self._measured_s = now_s
        self._from_s, self._taken_bytes, self._busy_s = now_s, 0, 0.0

    def share(self, fastest_bytes_per_s: float, now_s: float) -> float:
        """Return the speed as a share of the fastest node's, in steps; 1 where nothing is known of it."""
        if not self.bytes_per_s:
            return 1.0
        fading = 0.5 ** ((now_s - self._measured_s) / _HALF_LIFE_S)
        share = min(self.bytes_per_s / fastest_bytes_per_s, 1.0) ** fading
        return float(2.0 ** (round(_STEPS * log2(share)) / _STEPS))

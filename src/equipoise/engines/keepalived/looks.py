"""What a look at keepalived's two processes says, with those before it: whether it has to be started anew."""

from equipoise.engines.keepalived.process import Keepalived

_MOST_MUTE_LOOKS = 10  # 5 s, in which keepalived itself starts its second process anew


class Looks:
    """Looks at the same intervals; what holds at two of them in a row is no accident."""

    def __init__(self, keepalived: Keepalived) -> None:
        self._keepalived = keepalived
        self._stopped: frozenset[int] = frozenset()
        self._mute = 0

    def wrong(self) -> str | None:
        """Return why keepalived has to be started anew; None where it need not."""
        if not self._keepalived.is_alive:
            return "it had ended"
        stopped = frozenset(self._keepalived.stopped())
        lasting, self._stopped = stopped & self._stopped, stopped
        if lasting - {self._keepalived.pid}:
            return "it was stopped, so that the peer took its addresses over while it had them too"
        if lasting:  # the first one only sees that the second one runs, and no address need move for it
            self._keepalived.wake(tuple(lasting))
        self._mute = 0 if self._keepalived.speaks else self._mute + 1
        return "its second process was gone" if self._mute > _MOST_MUTE_LOOKS else None

    def begin_again(self) -> None:
        """Forget what was seen of one that is no more."""
        self._stopped, self._mute = frozenset(), 0

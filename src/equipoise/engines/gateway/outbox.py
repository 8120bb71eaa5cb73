"""What happened in a gateway and waits until a supervisor has been told; past a bound the oldest are forgotten."""

import asyncio
import os
from collections import deque
from itertools import islice

import msgspec

from equipoise.base.clock import Clock, rfc3339
from equipoise.engines.gateway.channel import Channel
from equipoise.engines.gateway.messages import Happened
from equipoise.state.events import Event, EventsDropped

MAX_EVENTS = 20_000  # about 10 MB; at a busy site several minutes without a supervisor
_AT_ONCE = 500
_FLUSH_S = 0.2  # a busy site has hundreds a second; each flush wakes the supervisor


class Outbox:
    """The events of one process; `reader` is the supervisor, while there is one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: deque[msgspec.Raw] = deque()
        self._dropped = 0
        self._flushing = False
        self.reader: Channel | None = None

    def put(self, event: Event) -> None:
        """Have the supervisor told, soon."""
        at = rfc3339(self._clock.wall())
        if len(self._events) >= MAX_EVENTS:
            self._events.popleft()
            self._dropped += 1
        self._events.append(msgspec.Raw(event.line(at)))
        self._flush_soon()

    def flush(self) -> None:
        """Tell it now, as long as it takes them."""
        self._flushing = False
        if self._dropped and self.reader is not None:
            count, self._dropped = self._dropped, 0
            self.put(EventsDropped(pid=os.getpid(), count=count))
        while self._events and self.reader is not None and not self.reader.is_behind:
            batch = tuple(islice(self._events, _AT_ONCE))
            self.reader.send(Happened(events=batch))
            if self.reader is not None:  # else it was gone, and the next one is told
                for _ in batch:
                    self._events.popleft()
        if self._events and self.reader is not None:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_later(_FLUSH_S, self.flush)

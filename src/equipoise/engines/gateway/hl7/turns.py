"""One message under way for each patient.  A message of several patients, such as a merge, waits for all of them.

Each message stands in the queue of every patient that it names and goes on when it is first in all.  Messages join all
their queues at once, so two never wait for each other.
"""

from collections import deque

from equipoise.engines.gateway.hl7.exchange import Exchange


class Turns:
    """The queues of a service's patients; a patient without messages has none."""

    def __init__(self) -> None:
        self._queues: dict[bytes, deque[Exchange]] = {}
        self._patients: dict[Exchange, tuple[bytes, ...]] = {}

    @property
    def is_taken(self) -> bool:
        """Whether any message is under way, or waits."""
        return bool(self._patients)

    def join(self, exchange: Exchange, patients: tuple[bytes, ...]) -> bool:
        """Say whether a message may go on now; else `leave` of an earlier one will return it."""
        self._patients[exchange] = patients
        for patient in patients:
            self._queues.setdefault(patient, deque()).append(exchange)
        return self._is_first(exchange)

    def leave(self, exchange: Exchange) -> list[Exchange]:
        """Take a message out; return those that may go on now."""
        ready: list[Exchange] = []
        for patient in self._patients.pop(exchange, ()):
            queue = self._queues[patient]
            was_first = queue[0] is exchange
            queue.remove(exchange)
            if not queue:
                del self._queues[patient]
            elif was_first and queue[0] not in ready and self._is_first(queue[0]):
                ready.append(queue[0])
        return ready

    def _is_first(self, exchange: Exchange) -> bool:
        return all(self._queues[patient][0] is exchange for patient in self._patients[exchange])

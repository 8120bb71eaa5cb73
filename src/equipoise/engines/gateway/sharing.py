"""A gateway's side of what two machines tell each other: which nodes the clients of its services keep.

A supervisor that wants to know is told in batches what is learned, may ask for the table of a service, and gives what
another machine knows.  Nobody is told before it asks, and a new supervisor has to ask again.  Leaves out which entries
are news (`policy.persistence`) and the way to the other machine.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator

from equipoise.base.clock import Clock
from equipoise.engines.gateway.channel import Channel
from equipoise.engines.gateway.messages import Done, Kept, KeptClient, Message, Recall, Share
from equipoise.engines.gateway.service import Service

_EVERY_S = 0.1
_MOST_AT_ONCE = 5000  # of all services: 50 000 new clients a second
_MOST_KEY_CHARS = 256  # an HL7 sender may call itself anything; what is longer stays here
_MOST_BYTES = 8 << 20  # of a whole table: half of the longest line


class Sharing:
    """What the tables of these services learn, for the supervisor that asked.

    Args:
        services: Gives all services, those that leave before those that serve.
        clock: Tells how long entries live on.
    """

    def __init__(self, services: Callable[[], Iterable[Service]], clock: Clock) -> None:
        self._services = services
        self._clock = clock
        self._reader: Channel | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, service: Service) -> None:
        """Have a service take part that begins to serve."""
        service.pool.table.record(on=self._reader is not None)

    def heard(self, channel: Channel, message: Message) -> None:
        """Take what a supervisor says of it."""
        match message.body:
            case Share(on=on):
                self._share(channel if on else None)
            case Recall(service=name, most=most):
                channel.send(Kept(tables={name: tuple(self._youngest(name, most))}), answers=message.number)
            case Kept(tables=tables):
                self._merge(tables)
                channel.send(Done(), answers=message.number)

    def closed(self, channel: Channel) -> None:
        """Tell one no more that is gone."""
        if channel is self._reader:
            self._share(None)

    def _share(self, reader: Channel | None) -> None:
        self._reader = reader
        for service in self._services():
            self.begin(service)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if reader is None else asyncio.get_running_loop().call_later(_EVERY_S, self._tell)

    def _tell(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_EVERY_S, self._tell)
        if self._reader is None or self._reader.is_behind:
            return
        room, now_s = _MOST_AT_ONCE, self._clock.monotonic()
        tables: dict[str, tuple[KeptClient, ...]] = {}
        for service in self._services():
            if room and (news := service.pool.table.take_news(room, now_s)):
                room -= len(news)
                tables[service.name] = (*tables.get(service.name, ()), *filter(_is_short, news))
        if tables:
            self._reader.send(Kept(tables=tables))

    def _youngest(self, name: str, most: int) -> Iterator[KeptClient]:
        service, room = self._service(name), _MOST_BYTES
        for entry in service.pool.table.youngest(self._clock.monotonic()) if service is not None else ():
            most, room = most - 1, room - len(entry[0].encode()) - len(entry[1]) - 32
            if most < 0 or room < 0:
                return
            if _is_short(entry):
                yield entry

    def _merge(self, tables: dict[str, tuple[KeptClient, ...]]) -> None:
        now_s = self._clock.monotonic()
        for name, entries in tables.items():
            if (service := self._service(name)) is not None:
                known = service.pool.members
                service.pool.table.merge([entry for entry in entries if entry[1] in known], now_s)

    def _service(self, name: str) -> Service | None:
        found = None
        for service in self._services():
            found = service if service.name == name else found
        return found


def _is_short(entry: KeptClient) -> bool:
    return len(entry[0]) <= _MOST_KEY_CHARS

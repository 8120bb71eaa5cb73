"""A connection for every message: a free one, or one that is opened for it, within what its node takes.

Kept are connections to nodes that take work, made by the settings of now.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from equipoise.engines.gateway.hl7.exchange import Exchange, Stage
from equipoise.engines.gateway.hl7.link import Link
from equipoise.engines.gateway.hl7.links import Links
from equipoise.engines.gateway.messages import ServiceTask
from equipoise.engines.gateway.pool import Picked, Pool


class Network(Protocol):
    """Who opens connections."""

    now: Callable[[], float]

    def open_link(self, exchange: Exchange, picked: Picked) -> Link:
        """Begin to connect to a node; `opened` or `not_opened` follows."""

    def link_gone(self) -> None:
        """Hear that a connection to a receiver is closed."""


class Carrier(Protocol):
    """Who sends messages by them."""

    def write(self, exchange: Exchange, link: Link) -> bool:
        """Send a message; say whether anything of it may have left."""

    def refused(self, exchange: Exchange, node: str, reason: str, *, ours: bool) -> None:
        """Hear that a node has no connection for a message; `ours`: for a reason of this machine."""


class Connections:
    """The connections of one service to its nodes."""

    def __init__(self, network: Network, carrier: Carrier, task: ServiceTask, pool: Pool) -> None:
        self._network, self._carrier = network, carrier
        self._roomless: dict[Exchange, Picked] = {}  # whose node has connections that are still closing
        self._outdated_s = -1.0  # connections made before that are kept no more
        self._using_room: set[str] = set()
        self._serving = False
        self.links = Links()
        self.configure(task, pool)

    def configure(self, task: ServiceTask, pool: Pool) -> None:
        """Take a new task."""
        self._settings, self._pool = task.hl7, pool
        self._keeps = task.hl7.idle_timeout_s > 0

    def carry(self, exchange: Exchange, picked: Picked) -> None:
        """Send a message by a free connection to its node, or open one."""
        self._roomless.pop(exchange, None)
        name, port = picked.node.name, picked.node.port or exchange.sender.arrival.port
        while (link := self.links.take(name, port, exchange.header.control_id)) is not None:
            if self._carrier.write(exchange, link):
                return
            link.close()  # the receiver had closed it, and not a byte has left
        if exchange.stage is not Stage.CONNECTION:
            exchange.stage = Stage.CONNECTION
            exchange.deadline_s = self._network.now() + self._settings.connect_timeout_s
        if self.links.make_room(name, picked.node.max_connections):
            link = self._network.open_link(exchange, picked)
            link.exchange, exchange.link = exchange, link
            self.links.add(link)
        else:
            self._roomless[exchange] = picked

    def forget(self, exchange: Exchange) -> None:
        """Hear that a message needs no connection any more; one that is being opened for it is kept for others."""
        self._roomless.pop(exchange, None)
        if exchange.link is not None:
            part(exchange.link)

    def opened(self, link: Link) -> None:
        """Hear that a connection stands."""
        exchange = part(link)
        if exchange is None:
            self.keep(link)
        elif not self._carrier.write(exchange, link):
            link.close()
            self._carrier.refused(exchange, link.node, "closed the connection as soon as it stood", ours=False)

    def not_opened(self, link: Link, reason: str, *, ours: bool) -> None:
        """Hear that a connection could not be had; `ours`: for a reason of this machine."""
        exchange = part(link)
        self.gone(link)
        if exchange is not None:
            self._carrier.refused(exchange, link.node, reason, ours=ours)

    def too_late(self, exchange: Exchange) -> None:
        """Give up a connection that took too long."""
        link, name = exchange.link, exchange.picked.node.name if exchange.picked is not None else ""
        self._roomless.pop(exchange, None)
        if link is None:
            self._carrier.refused(exchange, name, "has too many connections that are not closed yet", ours=True)
            return
        part(link)
        link.cancel()
        self.gone(link)
        said = f"did not accept within {self._settings.connect_timeout_s:g} s"
        self._carrier.refused(exchange, name, said, ours=False)

    def keep(self, link: Link) -> None:
        """Keep a connection, where its node takes a next message by it."""
        if not link.is_open:
            return
        member = self._pool.members.get(link.node)
        if member is None or not member.takes_work or not self._keeps or link.made_s <= self._outdated_s:
            link.part()
            return
        self.links.free(link, self._network.now())
        if self._roomless:
            self._use_room(link.node)

    def gone(self, link: Link) -> None:
        """Hear that a connection is closed."""
        self.links.gone(link)
        link.expects.clear()
        if self._roomless:
            self._use_room(link.node)
        self._network.link_gone()

    def _use_room(self, node: str) -> None:
        """Carry the messages that wait for a connection to a node; that may make room again, which is not nested."""
        self._using_room.add(node)
        if self._serving:
            return
        self._serving = True
        try:
            while self._using_room:
                self._use_room_at(self._using_room.pop())
        finally:
            self._serving = False

    def _use_room_at(self, node: str) -> None:
        member = self._pool.members.get(node)
        for exchange, picked in list(self._roomless.items()):
            if exchange not in self._roomless or picked.node.name != node:
                continue
            if member is None:
                del self._roomless[exchange]
                self._carrier.refused(exchange, node, "is no longer configured", ours=True)
            else:  # its address may have changed meanwhile
                self.carry(exchange, replace(picked, node=member.node))

    def outdate(self) -> None:
        """Keep no connection that is open now: others are to be made from here on."""
        self._outdated_s = self._network.now()
        self.links.close_free()

    def leave(self) -> None:
        """Keep no connection any more: the service leaves.  `configure` takes that back."""
        self._keeps = False
        self.links.close_free()

    def close_free(self) -> None:
        """Close free connections to nodes that take no work."""
        working = {name for name, member in self._pool.members.items() if member.takes_work}
        for node in {link.node for link in self.links} - working:
            self.links.close_free(node)

    def sweep(self, now_s: float) -> None:
        """Close connections that were not used for long."""
        self.links.close_free(unused_since_s=now_s - self._settings.idle_timeout_s)


def part(link: Link) -> Exchange | None:
    """Part a connection and its message; return the message."""
    exchange, link.exchange = link.exchange, None
    if exchange is not None:
        exchange.link = None
    return exchange

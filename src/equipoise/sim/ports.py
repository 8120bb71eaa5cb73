"""Free TCP ports for programs of a site that are started a moment later, and for those that come back.

Outgoing connections begin at 32768 (net.ipv4.ip_local_port_range), so ports below are taken by servers alone.  Of those
every process that was started by itself, and not forked, has a block: a port that was given away is free to all until
its program listens.
"""

import socket
from collections.abc import Iterator
from functools import cache
from itertools import cycle
from random import SystemRandom

_BLOCK = 500
_BLOCKS = range(10_000, 32_000, _BLOCK)
_LOOPBACK = "127.0.0.1"


def free_port(*hosts: str) -> int:
    """Return a port that is free now at each of these addresses (of 127.0.0.1 alone where none is named).

    The next one is another, until the block is used up.  Raises: OSError where an address is not of this machine, or no
    port of the block is free.
    """
    ports = _own_ports()
    for _ in range(_BLOCK):
        port = next(ports)
        try:
            for host in hosts or (_LOOPBACK,):
                socket.create_server((host, port), family=_family(host)).close()
        except OSError as error:
            refusal = error
            continue
        return port
    raise refusal


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@cache
def _own_ports() -> Iterator[int]:
    """Return the ports of a block that no other process has, in no order, again and again."""
    chance = SystemRandom()
    for first in chance.sample(_BLOCKS, len(_BLOCKS)):
        mark = socket.socket(socket.AF_UNIX)
        try:
            mark.bind(f"\0equipoise.ports.{first}")
        except OSError:
            mark.close()
        else:
            return _ports(mark, chance.sample(range(first, first + _BLOCK), _BLOCK))
    raise OSError(f"all {len(_BLOCKS)} blocks of ports are taken by other processes")


def _ports(mark: socket.socket, block: list[int]) -> Iterator[int]:
    with mark:  # the block is ours for as long as it is open
        yield from cycle(block)

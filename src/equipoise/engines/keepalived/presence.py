"""Which addresses are on this machine, and taking those away that a keepalived left.  Every call blocks for some ms.

Source: rtnetlink(7).
"""

import errno
from collections.abc import Collection
from ipaddress import ip_address
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from equipoise.base.errors import EngineError


def here() -> frozenset[str]:
    """Return all addresses of this machine.  Raises: EngineError."""
    try:
        with IPRoute() as route:
            return frozenset(_host(message) for message in route.get_addr())
    except (NetlinkError, OSError) as error:
        raise EngineError(f"cannot read this machine's addresses: {error}") from None


def interfaces() -> frozenset[str]:
    """Return the names of all interfaces.  Raises: EngineError."""
    try:
        with IPRoute() as route:
            return frozenset(message.get("ifname") for message in route.get_links())
    except (NetlinkError, OSError) as error:
        raise EngineError(f"cannot read this machine's interfaces: {error}") from None


def remove(hosts: Collection[str]) -> None:
    """Take addresses away that stand alone in their network, as keepalived puts them here.  Raises: EngineError."""
    try:
        with IPRoute() as route:
            for message in list(route.get_addr()):
                host, length = _host(message), message["prefixlen"]
                if host in hosts and length == (128 if ":" in host else 32):
                    _remove(route, message["index"], host, length)
    except (NetlinkError, OSError) as error:
        raise EngineError(f"cannot take addresses away that keepalived left: {error}") from None


def _remove(route: Any, index: int, host: str, length: int) -> None:
    try:
        route.addr("del", index=index, address=host, prefixlen=length)
    except NetlinkError as error:
        if error.code not in (errno.EADDRNOTAVAIL, errno.ENODEV):
            raise


def _host(message: Any) -> str:
    return str(ip_address(message.get("local") or message.get("address")))

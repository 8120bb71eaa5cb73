"""Conditions on who asks: AE titles by patterns, addresses by networks.  Empty ones let everybody in.

Leaves out what follows from them: admission and routing.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network


def fits(title: str, patterns: tuple[str, ...]) -> bool:
    """Return whether a title is one of these."""
    return not patterns or _matcher(patterns).fullmatch(title) is not None


def networks_of(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Return the networks that these texts name."""
    return tuple(ip_network(text) for text in texts)


def is_within(source_ip: str, networks: tuple[Network, ...]) -> bool:
    """Return whether an address is in one of these networks."""
    if not networks:
        return True
    address = _address(source_ip)
    return any(address in network for network in networks)


@lru_cache(maxsize=256)  # asked of each association; there are as many as a site has lists, and lists change
def _matcher(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Return one expression for shell-style patterns, in which only * and ? are special."""
    return re.compile("|".join(re.escape(p).replace(r"\*", ".*").replace(r"\?", ".") for p in patterns))


@lru_cache(maxsize=1024)  # asked for each list and route; devices are fewer, and strangers must not fill memory
def _address(text: str) -> IPv4Address | IPv6Address:
    """Return an address; an IPv4 client of a socket for both is told as ::ffff:a.b.c.d, and networks name a.b.c.d."""
    address = ip_address(text)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address

"""Host names of nodes, resolved: the facts that a plan needs beside the configuration."""

import asyncio
import socket
from collections.abc import Iterable, Mapping

from equipoise.config.fields import numeric
from equipoise.plan.inputs import HostFacts

_RESOLVE_S = 5.0  # a resolver that is down must not keep a balancer from starting


async def resolve(names: Iterable[str], known: HostFacts, versions: Mapping[str, int] | None = None) -> HostFacts:
    """Return the address of each name; of those in `versions`, one of that IP version where there is one.

    A name whose resolver does not answer keeps the address that is `known`: a DNS outage moves no traffic.  One that
    does not exist has none.
    """
    listed = sorted(set(names))
    wanted = versions or {}
    found = await asyncio.gather(*(_address(name, known.resolved.get(name), wanted.get(name)) for name in listed))
    return HostFacts(dict(zip(listed, found, strict=True)))


async def _address(name: str, known: str | None, version: int | None) -> str | None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_RESOLVE_S):
            answers = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        return known
    except socket.gaierror as error:
        return known if error.errno == socket.EAI_AGAIN else None
    except UnicodeError:
        return None
    addresses = [str(answer[4][0]) for answer in answers]
    addresses = [address for address in addresses if _is_of(address, version)] or addresses
    return known if known in addresses else addresses[0]  # round-robin DNS must not move a node each time


def _is_of(address: str, version: int | None) -> bool:
    number = numeric(address)
    return number is not None and number.version == version

"""Values as HAProxy's configuration wants them written: durations, quoted texts, networks, paths of the document.

Source: HAProxy configuration manual 2.6, sections 2.2 (quoting), 2.5 (time format) and 7.1.6 (matching addresses).
"""

import math
from collections.abc import Iterable, Iterator

from equipoise.config.fields import numeric
from equipoise.engines.haproxy.artifact import DIRECTORY_VARIABLE, Line
from equipoise.plan.model import Service

INDENT = "    "
# Timers are milliseconds in 31 bits: `haproxy -c` refuses what is beyond 24.8 days.
_LONGEST_MS = 24 * 86_400_000
_UNITS_MS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_IS_IPV6 = "is_ipv6"


def duration(seconds: float) -> str:
    """Return a timer; 24 days at most, and never 0, which HAProxy takes for no limit at all.

    >>> duration(1800), duration(2.5), duration(1e-9), duration(366 * 86400)
    ('30m', '2500ms', '1ms', '24d')
    """
    total_ms = min(_LONGEST_MS, max(1, math.ceil(seconds * 1000)))
    return next(f"{total_ms // size}{unit}" for unit, size in _UNITS_MS if total_ms % size == 0)


def whole_seconds(seconds: float) -> int:
    """Return seconds for a header of HTTP, which knows no parts of one: at least 1."""
    return max(1, math.ceil(seconds))


def quoted(text: str) -> str:
    r"""Return the text as one word that means itself, whatever is in it.

    >>> quoted('a "b" $HOME')
    '"a \\"b\\" \\$HOME"'
    """
    for character in ("\\", '"', "$"):
        text = text.replace(character, f"\\{character}")
    return f'"{text}"'


def below_directory(name: str) -> str:
    """Return a path of HAProxy's directory, wherever that is."""
    return f'"${{{DIRECTORY_VARIABLE}}}/{name}"'


def at(service: Service, *keys: str | int) -> tuple[str, ...]:
    """Return the keys of the document that lead to a value of this service."""
    return ("services", service.name, *map(str, keys))


def inside(text: str, path: tuple[str, ...] = ()) -> Line:
    """Return a line within a section."""
    return Line(f"{INDENT}{text}", path)


def networks(name: str, wanted: Iterable[str], path: tuple[str, ...]) -> Iterator[Line]:
    """Yield what defines the networks of `within`: a line each, since a line has 64 words and 2 kB at most."""
    for number, network in enumerate(wanted):
        yield inside(f"acl {name}_{_family(network)} src {network}", (*path, str(number)))


def within(name: str, wanted: Iterable[str], also: str = "") -> str:
    """Return the condition that the client is in one of these networks, `also` being true.

    The families are told apart by the text of the address (`family_line` goes before): HAProxy takes 2002:a00:1::1
    for 10.0.0.1 too, as 6to4 would have it, and a network of IPv6 for one of IPv4 (tried on 2.6.12 and 2.8.25).
    """
    families = sorted({_family(network) for network in wanted})
    sign = {"4": "!", "6": ""}
    return " or ".join(f"{also}{name}_{family} {sign[family]}{_IS_IPV6}" for family in families)


def family_line() -> Line:
    """Return what tells IPv6 from IPv4."""
    return inside(f"acl {_IS_IPV6} src -m sub :")


def _family(network: str) -> str:
    address = numeric(network.partition("/")[0])
    return str(address.version) if address else "4"

"""Durations and sizes as people write them: `5s`, `30m`, `64KiB`.  Numbers alone are refused: they hide their unit.

And as people read them, where that is something else: `1.5 KiB`, `12 days`.
"""

import re

_DURATION_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_QUANTITY = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([A-Za-z]{1,3})")


def _quantity(text: str, units: dict[str, float] | dict[str, int], example: str) -> float:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in units:
        raise ValueError(
            f"{text!r} is not a number with one of the units {', '.join(units)}; write for example {example}"
        )
    return float(match[1]) * units[match[2]]


def parse_duration(text: str) -> float:
    """Return the seconds that a text such as `250ms`, `5s`, `30m`, `12h` or `1d` means.  Raises: ValueError."""
    return _quantity(text, _DURATION_S, "5s")


def parse_size(text: str) -> int:
    """Return the bytes that a text such as `64KiB` or `256MiB` means.  Raises: ValueError."""
    return int(_quantity(text, _SIZE_BYTES, "64KiB"))


def format_duration(seconds: float) -> str:
    """Return the shortest exact text: 0.25 gives `250ms`, 1800 gives `30m`.

    >>> format_duration(90), format_duration(1800), format_duration(0.25)
    ('90s', '30m', '250ms')
    """
    for unit in ("d", "h", "m", "s"):
        if seconds >= _DURATION_S[unit] and seconds % _DURATION_S[unit] == 0:
            return f"{int(seconds / _DURATION_S[unit])}{unit}"
    if seconds == 0:
        return "0s"
    number, unit = (seconds * 1000, "ms") if seconds < 1 else (seconds, "s")
    return f"{number:.6f}".rstrip("0").rstrip(".") + unit


def format_days(seconds: float) -> str:
    """Return whole days for people to read, whichever side of now they are on.

    >>> format_days(86400 * 12.7), format_days(-86400), format_days(3600)
    ('12 days', '1 day', 'less than a day')
    """
    days = int(abs(seconds) / _DURATION_S["d"])
    return f"{days} day{'' if days == 1 else 's'}" if days else "less than a day"


def format_size(size_bytes: float) -> str:
    """Return a size for people to read, with three digits at most: 1536 gives `1.5 KiB`."""
    for unit in ("GiB", "MiB", "KiB"):
        if size_bytes >= _SIZE_BYTES[unit]:
            return (
                f"{size_bytes / _SIZE_BYTES[unit]:.3g} {unit}"
                if size_bytes < 999.5 * _SIZE_BYTES[unit]
                else (f"{size_bytes / _SIZE_BYTES[unit]:.0f} {unit}")
            )
    return f"{int(size_bytes)} B"

"""What HAProxy says of a configuration, in the words of the document that it comes from.

Its lines are `[ALERT] (PID) : config : parsing [FILE:LINE] : what is wrong.`, others leave the file out, or name a
proxy and a server.  Source: HAProxy 2.6 and 2.8, as they print.
"""

import re
from collections.abc import Iterator, Sequence

from equipoise.engines.base import Refusal
from equipoise.engines.haproxy.artifact import Artifact, ServerLine

_ALERT = re.compile(r"^\[ALERT\]\s*\(\d+\) : (?:config : )?(.*)$")
_PLACE = re.compile(r"\[[^]\s]*?:(\d+)\]")
_SERVER = re.compile(r"'server ([^'/\s]+)/([^'\s]+)'|\bserver '?([^'/\s]+)/([^'\s:,]+)")
_OF_NO_INTEREST = re.compile(r"\[NOTICE\]|.*Former worker")  # what it says when all is well
_PARSING = re.compile(r"^(?:parsing )?\[[^]]*\] ?: ?")
_SUMMARY = ("Error(s) found in configuration file", "Fatal errors found in configuration", "Proxy '")


def refusals(output: str, artifact: Artifact) -> list[Refusal]:
    """Return why HAProxy would not take an artifact; one at least."""
    told = [_refusal(said, artifact) for said in alerts(output.splitlines()) if not said.startswith(_SUMMARY[:2])]
    if told:
        return list(dict.fromkeys(told))
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "it says nothing")
    return [Refusal(f"HAProxy refuses what this configuration means for it: {last}")]


def alerts(lines: Sequence[str]) -> Iterator[str]:
    """Yield what HAProxy is alarmed about, without what stands before it."""
    for line in lines:
        if (alert := _ALERT.match(line)) is not None:
            yield alert[1].strip()


def last_words(lines: Sequence[str], most: int = 3) -> str:
    """Return in a line what a HAProxy that failed said last: its alarms, else whatever it printed."""
    said = [alert for alert in alerts(lines) if not alert.startswith(_SUMMARY[:2])]
    told = said or [line for line in lines if line.strip() and not _OF_NO_INTEREST.match(line)]
    return "; ".join(told[:most] if said else told[-most:]) or "it was killed, or ended without a word"


def _refusal(said: str, artifact: Artifact) -> Refusal:
    reason = _PARSING.sub("", said).rstrip(".")
    return Refusal(f"HAProxy refuses what this means for it: {reason}", _path(said, artifact))


def _path(said: str, artifact: Artifact) -> tuple[str, ...]:
    if (place := _PLACE.search(said)) is not None:
        return artifact.path_of_line(int(place[1]))
    if (server := _SERVER.search(said)) is not None:
        service, node = (server[1], server[2]) if server[1] else (server[3], server[4])
        lines = [line for line in artifact.lines if isinstance(line, ServerLine)]
        return next((line.path for line in lines if line.key == f"{service}/{node}"), ())
    return ()

"""What asks: requests of one kind through one contender, and what came of them.

HTTP/1.1 by `web_load.c`, whose head says why; HTTP/2 within TLS by h2load of nghttp2.  Leaves out whom it is sent to.
"""

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from bench.programs import BenchError, build, find_program

PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What was answered whole; times in seconds and milliseconds.  With errors it is worth nothing.

    Attributes:
        bytes: Of bodies, in the direction that the load is about.
        stale: Of the errors, those of kept connections that were closed when they were asked again.
        cpu_s: The generator's own.
    """

    seconds: float
    requests: int
    bytes: int
    errors: int
    first_error: str
    cpu_s: float = 0.0
    stale: int = 0
    opened: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class WebLoad:
    """One kind of request, over so many connections.

    Attributes:
        upload_bytes: 0 means that it is a download of `size_bytes`.
        streams: Requests at a time on each connection, by HTTP/2 within TLS; 0 means HTTP/1.1, plain.
    """

    name: str
    path: str
    connections: int
    size_bytes: int
    upload_bytes: int = 0
    streams: int = 0

    @property
    def by_requests(self) -> bool:
        """Whether requests a second are what counts, rather than bytes."""
        return self.size_bytes < 10_000 and not self.upload_bytes


def ask(load: WebLoad, ports: Mapping[str, str], seconds: float) -> Asked:
    """Ask through a contender for so long; what is open then goes on to its end.  Raises: BenchError."""
    return _by_tls(load, ports["tls_port"], seconds) if load.streams else _by_plain(load, ports["port"], seconds)


def plain_command(load: WebLoad, port: str, seconds: float, **more: str | int) -> list[str]:
    """Return the command line of `web_load`."""
    wishes = {"port": port, "path": load.path, "connections": load.connections, "seconds": seconds, **more}
    wishes |= {"expect-bytes": load.size_bytes, "body-bytes": load.upload_bytes, "patience": PATIENCE_S}
    return [str(build("web_load")), *(f"--{name}={value}" for name, value in wishes.items())]


def read_plain(said: str) -> Asked:
    """Return what `web_load` said.  Raises: BenchError."""
    try:
        told = json.loads(said)
        return Asked(**{name: told[name] for name in Asked.__dataclass_fields__})
    except (ValueError, KeyError) as error:
        raise BenchError(f"web_load said {said!r}, not a result: {error}") from None


def _by_plain(load: WebLoad, port: str, seconds: float) -> Asked:
    """Ask by HTTP/1.1.  Raises: BenchError."""
    return read_plain(_run(plain_command(load, port, seconds), seconds))


def _by_tls(load: WebLoad, port: str, seconds: float) -> Asked:
    command = [find_program("h2load", "nghttp2-client"), "--clients", str(load.connections)]
    command += [
        "--max-concurrent-streams",
        str(load.streams),
        "--warm-up-time",
        "0",
        "--duration",
        f"{seconds * 1000:.0f}ms",
    ]
    said = _run([*command, f"https://127.0.0.1:{port}{load.path}"], seconds)
    try:
        return _read_h2load(said)
    except (AttributeError, ValueError) as error:
        raise BenchError(f"h2load said what cannot be read ({error}):\n{said[-1500:]}") from None


def _read_h2load(said: str) -> Asked:
    """Return the result.  What is still open when time is up is no failure, and not counted but for its bytes."""
    time = _found(r"finished in ([\d.]+)(ms|s|us),", said)
    scale = {"s": 1.0, "ms": 1e-3, "us": 1e-6}[time[2]]
    counts = _found(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", said)
    done, good, *bad = (int(count) for count in counts.groups())
    others = _found(r"status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said).groups()
    errors = sum(bad) + done - good + sum(int(count) for count in others) + ("Application protocol: h2" not in said)
    return Asked(
        seconds=float(time[1]) * scale,
        requests=good,
        bytes=int(_found(r"\((\d+)\) data", said)[1]),
        errors=errors,
        first_error=_found(r"requests: .*\n.*", said)[0] if errors else "",
    )


def _found(pattern: str, said: str) -> re.Match[str]:
    found = re.search(pattern, said)
    if found is None:
        raise ValueError(f"nothing like {pattern}")
    return found


def _run(command: list[str], seconds: float) -> str:
    limit_s = seconds + 2 * PATIENCE_S
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{command[0]} did not end within {limit_s:.0f} s") from None
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} failed: {(done.stderr or done.stdout)[-1500:]}")
    return done.stdout

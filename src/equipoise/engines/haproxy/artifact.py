"""What a plan means for HAProxy: the lines of its configuration, and the files that these name.

A line knows which keys of the document it comes from, so that what HAProxy says of it can be told in the document's
words.  Weights and states of nodes are blanks in it: they change far more often, and without a reload.

The configuration names its directory as `"${EQUIPOISE_HAPROXY}"`, which HAProxy takes from its environment: the same
plan gives the same bytes on every machine.  Leaves out files and processes (`runner.py`).
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from equipoise.plan.model import Endpoint

DIRECTORY_VARIABLE = "EQUIPOISE_HAPROXY"
# The authorities that this machine trusts: a file, or a folder of them.  Whoever starts HAProxy says where they are,
# since one from a wheel looks for them where the machine that built it had them; `@system-ca` is its word for that.
SYSTEM_CA_VARIABLE = "EQUIPOISE_SYSTEM_CA"
DIRECTORY = "haproxy"  # below the runtime directory
WORKER_SOCKET = "worker.sock"  # below that one, as are all that follow
MASTER_SOCKET = "master.sock"
CONFIGURATION = "haproxy.cfg"
_DIGEST_DIGITS = 16
# Stands in the line `description`, which `show info` tells: who runs can be asked what it runs.
DIGEST_MARK = "@digest@"


@dataclass(frozen=True, slots=True)
class Line:
    """One line, without its end; `path` are the keys of the document that it comes from."""

    text: str
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerLine:
    """The line of one node: `text`, and behind it what its state is now.

    Attributes:
        key: "SERVICE/NODE".
        weight: The plan's, until another one is known.
    """

    text: str
    path: tuple[str, ...]
    key: str
    weight: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """A file of certificates that HAProxy reads: the contents of `parts`, one behind the other.

    Attributes:
        name: Below the directory; it changes with the contents of the parts.
        parts: Paths of the document: a certificate and its key, or authorities.
        path: The keys of the document that name the first part.
    """

    name: str
    parts: tuple[str, ...]
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A whole HTTP answer that HAProxy gives by itself; `name` is its file below the directory."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Pool:
    """What must be known of a service to take its nodes in and out.

    Attributes:
        nodes: Those that stand in the configuration, by name, in its order: the id of each in HAProxy.
        table: The stick table that remembers clients' nodes, or None.
        cut: Whether what is open on a node that goes down is ended.
        reads_http: Whether requests are read one by one, so that what is open ends with its request.
    """

    service: str
    nodes: Mapping[str, int]
    table: str | None
    cut: bool
    reads_http: bool = True


@dataclass(frozen=True)  # without slots: `cached_property` keeps the digest in the instance's dictionary
class Artifact:
    """All that HAProxy is to do; nothing where no service needs it.

    `is_shared` says that the HAProxy of another machine tells it what stick tables remember.
    """

    lines: tuple[Line | ServerLine, ...] = ()
    bundles: tuple[Bundle, ...] = ()
    pages: tuple[Page, ...] = ()
    pools: tuple[Pool, ...] = ()
    listen: tuple[Endpoint, ...] = ()
    drain_timeout_s: float = 30.0
    is_shared: bool = False

    def __bool__(self) -> bool:
        return bool(self.pools)

    @cached_property
    def digest(self) -> str:
        """What stands for the structure: where it changes, HAProxy has to load its configuration anew."""
        content = [line.text for line in self.lines]
        content += [bundle.name for bundle in self.bundles]
        content += [f"{page.name} {hashlib.sha256(page.content).hexdigest()}" for page in self.pages]
        return hashlib.sha256("\n".join(content).encode()).hexdigest()[:_DIGEST_DIGITS]

    def text(self, state_of: Callable[[ServerLine], str]) -> str:
        """Return the configuration; `state_of` says what stands behind the line of a node."""
        return "".join(
            f"{line.text.replace(DIGEST_MARK, self.digest)}{state_of(line) if isinstance(line, ServerLine) else ''}\n"
            for line in self.lines
        )

    def path_of_line(self, number: int) -> tuple[str, ...]:
        """Return the keys of the document that line `number`, counted from 1, comes from."""
        return self.lines[number - 1].path if 1 <= number <= len(self.lines) else ()

"""What the doctor looks at, as plain values: gathered in one place, judged in another.

None stands for what could not be read here.
"""

from dataclasses import dataclass
from pathlib import Path

from equipoise.base.certificates import Certificate
from equipoise.plan.model import Endpoint


@dataclass(frozen=True, slots=True)
class Running:
    """The supervisor that answers in this instance's runtime directory."""

    pid: int
    version: str
    site: str
    listen: frozenset[str]


@dataclass(frozen=True, slots=True)
class ClockState:
    """What the kernel says of its clock.

    Attributes:
        synchronised: Whether something keeps it right.
        max_error_s: By how much it may be wrong at most.
        keeper: The program here that keeps it; empty where none is seen, as in a container, whose host does it.
    """

    synchronised: bool | None
    max_error_s: float
    keeper: str


@dataclass(frozen=True, slots=True)
class FileLimit:
    """How many files a process may have open; `whose` process says it for people."""

    soft: int
    hard: int
    whose: str


@dataclass(frozen=True, slots=True)
class Conntrack:
    """The kernel's table of connections, where a firewall has it loaded."""

    maximum: int
    used: int
    established_timeout_s: int | None


@dataclass(frozen=True, slots=True)
class Kernel:
    """Settings of the network.

    Attributes:
        first_free_port: The lowest port that needs no right (`ip_unprivileged_port_start`).
        local_ports: From where to where outgoing connections take their ports.
        reserved_ports: Ranges within them that they leave alone.
        missing: Settings that could not be read.
    """

    somaxconn: int | None
    receive_max_bytes: int | None
    send_max_bytes: int | None
    window_scaling: bool | None
    abort_on_overflow: bool | None
    keepalive_s: int | None
    first_free_port: int
    local_ports: tuple[int, int] | None
    reserved_ports: tuple[tuple[int, int], ...]
    conntrack: Conntrack | None
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory of this instance; room is that of its file system, or of the one where it will be made."""

    path: Path
    variable: str
    exists: bool
    writable: bool
    free_bytes: int
    free_files: int | None


@dataclass(frozen=True, slots=True)
class Software:
    """What runs us."""

    python: tuple[int, int, int]
    openssl: str
    openssl_version: tuple[int, int, int]
    tls_1_3: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything that does not depend on a site.

    Attributes:
        user: Who asks, by name or number.
        capabilities: The effective ones, as a bit mask.
        engines: Gateways, and HAProxy, of this instance that listen for a supervisor.
        longest_socket_path: Of those that will be in the runtime directory, in bytes.
    """

    user: str
    capabilities: int
    clock: ClockState
    files: FileLimit
    kernel: Kernel
    runtime: Directory
    state: Directory
    engines: int
    longest_socket_path: int
    software: Software


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that the site asks for.

    Attributes:
        held: Whether the running balancer has it.
        local: Whether its address is on this machine.
        refused: Why it could not be opened; None where it could, or is held.
    """

    endpoint: Endpoint
    held: bool
    local: bool
    refused: str | None


@dataclass(frozen=True, slots=True)
class Source:
    """An address that nodes are called from; `where` names the key."""

    address: str
    where: str
    local: bool


@dataclass(frozen=True, slots=True)
class Lookup:
    """A node's host name, looked up; `took_s` is None where no answer came in time."""

    name: str
    addresses: tuple[str, ...]
    took_s: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Haproxy:
    """The HAProxy that would be started: its file and version; else why there is none, and the way out."""

    path: str = ""
    version: str = ""
    missing: str = ""
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a site finds on this machine.

    Attributes:
        haproxy: Which HAProxy there is for its services; None where none needs it.
    """

    listeners: tuple[Listener, ...]
    sources: tuple[Source, ...]
    lookups: tuple[Lookup, ...]
    haproxy: Haproxy | None = None


@dataclass(frozen=True, slots=True)
class PemFile:
    """A file that the site names for TLS.

    Attributes:
        where: The key of the site that names it.
        holds: `certificate`, `key` or `authorities`.
        unusable: What keeps a gateway from using it; empty where nothing does.
        certificates: What it holds, in its order; of a certificate's file the first is our own.
        private: Whether a private key is in it.
        mode: The file's permission bits, and with `owner` whose they are.
    """

    path: str
    where: str
    holds: str
    unusable: str
    certificates: tuple[Certificate, ...] = ()
    private: bool = False
    mode: int = 0
    owner: int = 0

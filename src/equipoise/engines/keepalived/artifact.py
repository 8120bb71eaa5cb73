"""What a plan means for keepalived: its configuration, packet rules, and which addresses move together."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from equipoise.plan.model import VipGroup


@dataclass(frozen=True, slots=True)
class Place:
    """What of this machine stands in the configuration.

    Attributes:
        directory: That of the engine's own files.
        gateway_sockets: How the path of every gateway's control socket begins, which is in its command line.
        haproxy_socket: That of HAProxy's master, which is in its command line.
        user: Who runs keepalived, and what it runs; empty where the machine has no name for that number.
        table: The name of the table of packet rules.
        runs_scripts: Whether keepalived may run programs: it sets the groups of each anew, its own too (CAP_SETGID).
    """

    directory: Path
    gateway_sockets: Path
    haproxy_socket: Path
    user: str
    table: str
    runs_scripts: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """What the packet rules are made of.

    Attributes:
        doors: Interfaces where packets for the addresses come in.
        router_ids: Whose advertisements are meant.
    """

    table: str
    doors: tuple[str, ...]
    peer: str
    router_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Artifact:
    """All that keepalived is to do; nothing where the machine stands alone.

    Attributes:
        configuration: The text of `keepalived.conf`.
        anchors: By group, the address that is advertised in place of the real ones.
        rules: None where there are none.
        silence_ms: How long the peer may say nothing before its addresses are taken over.
        helpers: Programs that keepalived runs, by their paths.
    """

    groups: tuple[VipGroup, ...] = ()
    configuration: str = ""
    rules: Rules | None = None
    interface: str = ""
    peer: str = ""
    silence_ms: int = 0
    helpers: tuple[str, ...] = ()
    anchors: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.groups)

    def hosts_of(self, names: frozenset[str]) -> frozenset[str]:
        """Return the addresses of these groups."""
        return frozenset(each.host for group in self.groups if group.name in names for each in group.addresses)

"""What a plan is made of beside the configuration: facts of the machine, looked up elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from equipoise.config.cluster import Here
from equipoise.plan.model import Secured


@dataclass(frozen=True, slots=True)
class Way:
    """How this machine reaches an address.

    Attributes:
        interface: Where packets for it go out, or where it is itself, where it is one of this machine's.
        router: Whom they are handed to; None where it is on a segment of this machine.
        source: This machine's address that they are sent from, where the kernel names one.
    """

    interface: str
    router: str | None = None
    source: str | None = field(default=None, compare=False)  # it changes where a floating address comes or goes


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What was found out about names and files.

    Attributes:
        resolved: Host name to numeric address; None, or no entry, where the name does not resolve.
        files: Path to what stands for the file's content; a renewed certificate makes another plan.
        ways: Numeric address to the way there; None, or no entry, where there is none.
        here: What the file of this machine says of its place in a pair; None where there is no such file.
        secured: The files with which it and its peer know each other, where they have joined.
    """

    resolved: Mapping[str, str | None] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    ways: Mapping[str, Way | None] = field(default_factory=dict)
    here: Here | None = None
    secured: Secured | None = None

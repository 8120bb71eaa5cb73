"""What a plan is made of beside the configuration: facts of the machine, looked up elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What was found out about names and files.

    Attributes:
        resolved: Host name to numeric address; None, or no entry, where the name does not resolve.
        files: Path to what stands for the file's content; a renewed certificate makes another plan.
    """

    resolved: Mapping[str, str | None] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

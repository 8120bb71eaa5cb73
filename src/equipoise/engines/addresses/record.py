"""Which addresses of this machine are ours: a small file that a supervisor leaves to the next one.

It is written before an address is added, so that after a sudden end no address of ours is taken for another's.
"""

import json
from collections.abc import Collection
from pathlib import Path

from equipoise.base.errors import EngineError
from equipoise.base.paths import Directories, replace_file
from equipoise.plan.model import ManagedAddress

_VERSION = 1
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_WAY_OUT = "what an earlier balancer brought up stays until you take it away: `ip address del`"


class Record:
    """The file.

    Args:
        directories: It lies in the runtime directory.
        boot: Names the machine's present run: what is there after a restart of the machine others have put there.
    """

    def __init__(self, directories: Directories, boot: Path = _BOOT) -> None:
        self.path = directories.runtime / "addresses.json"
        self._boot = boot

    def read(self) -> frozenset[ManagedAddress]:
        """Return what was written since the machine was started.  Raises: EngineError."""
        try:
            content = json.loads(self.path.read_bytes())
            if content["version"] != _VERSION:
                raise EngineError(f"{self.path} is of version {content['version']}, known is {_VERSION}; {_WAY_OUT}")
            if content["boot"] != self._boot.read_text().strip():
                return frozenset()
            return frozenset(ManagedAddress(str(each["host"]), str(each["interface"])) for each in content["addresses"])
        except FileNotFoundError:
            return frozenset()
        except OSError as error:
            raise EngineError(f"{self.path} cannot be read: {error.strerror}; {_WAY_OUT}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(f"{self.path} is damaged: {error}; {_WAY_OUT}") from None

    def write(self, addresses: Collection[ManagedAddress]) -> None:
        """Keep these in place of those before.  Raises: EngineError."""
        content = {
            "version": _VERSION,
            "boot": self._boot.read_text().strip(),
            "addresses": [{"host": each.host, "interface": each.interface} for each in sorted(addresses)],
        }
        try:
            replace_file(self.path, json.dumps(content).encode())
        except OSError as error:
            raise EngineError(f"cannot write {self.path}: {error.strerror}; nothing else was changed") from None

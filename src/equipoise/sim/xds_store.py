"""What the nodes of an XDS pool share: files by unique id in one directory, each written once, whole, and to disk.

Two nodes that are given the same id at the same moment agree on who was first: the file system decides (link(2)).
Source: ours.
"""

import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


class WriteOnce:
    """Files of one kind below a directory, which several processes may share."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def add(self, unique_id: str, content: bytes) -> bool:
        """Write a file to disk, and say whether it is new; one that was there stays as it is.  Raises: OSError."""
        target, draft = self._path(unique_id), self._root / f".{uuid.uuid4().hex}.part"
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            target.hardlink_to(draft)
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        self._sync_directory()
        return True

    def get(self, unique_id: str) -> bytes | None:
        """Return what a file holds, None where there is none."""
        try:
            return self._path(unique_id).read_bytes()
        except FileNotFoundError:
            return None

    def contents(self) -> Iterator[bytes]:
        """Give what each file holds."""
        for path in sorted(self._root.glob("[0-9a-f]*")):
            yield path.read_bytes()

    def _path(self, unique_id: str) -> Path:
        return self._root / hashlib.sha256(unique_id.encode()).hexdigest()  # an id is never a file name

    def _sync_directory(self) -> None:
        descriptor = os.open(self._root, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

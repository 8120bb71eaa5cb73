"""The files of an archive: one folder a study, one file an object, never half an object under its own name.

Several archives may share one directory, as a cluster with shared storage does: there is no index beside the files.
Files are not forced to disk: archives are killed here, machines are not.
Source: DICOM PS3.10, section 7.1.
"""

import re
import shutil
import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread

from equipoise.base.errors import PeerError
from equipoise.sim.query import selected, wanted_uids

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")  # becomes a file name: no other character, no empty component
_UID_LIMIT = 64


class Store:
    """The objects below one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def save(self, encoded: bytes, sop_instance_uid: str) -> Path:
        """Write one object in Part 10 form and return its path; an object that was there is replaced.

        Raises: PeerError where it is not the object that the command named, OSError where it cannot be written.
        """
        header = dcmread(
            BytesIO(encoded), stop_before_pixels=True, specific_tags=["SOPInstanceUID", "StudyInstanceUID"]
        )
        sop_uid, study_uid = _name(header, "SOPInstanceUID"), _name(header, "StudyInstanceUID")
        if sop_uid != sop_instance_uid:
            raise PeerError(f"the data set is {sop_uid}, its command says {sop_instance_uid}")
        folder = self._root / study_uid
        folder.mkdir(exist_ok=True)
        draft = folder / f".{sop_uid}.{uuid.uuid4().hex}.part"
        try:
            draft.write_bytes(encoded)
            return draft.replace(folder / f"{sop_uid}.dcm")
        except OSError:
            draft.unlink(missing_ok=True)
            raise

    def paths(self, study_instance_uid: str = "*") -> list[Path]:
        """Return the files of one study, or all of them."""
        return sorted(self._root.glob(f"{study_instance_uid}/*.dcm"))

    def headers(self, identifier: Any) -> Iterator[tuple[Path, Any]]:
        """Give path and elements (without pixels) of each object in the studies that a request names."""
        wanted = wanted_uids(identifier, "StudyInstanceUID")
        for study_uid in [uid for uid in wanted if _UID.fullmatch(uid)] if wanted else ["*"]:
            for path in self.paths(study_uid):
                try:
                    yield path, dcmread(path, stop_before_pixels=True)
                except FileNotFoundError:
                    continue  # removed by another archive of the cluster since it was listed

    def select(self, identifier: Any) -> list[tuple[Path, Any]]:
        """Return path and header of each object that a C-GET or C-MOVE asks for."""
        return [(path, header) for path, header in self.headers(identifier) if selected(header, identifier)]

    def remove(self, study_instance_uid: str) -> None:
        """Delete a study."""
        shutil.rmtree(self._root / study_instance_uid, ignore_errors=True)


def _name(header: Any, keyword: str) -> str:
    uid = str(header.get(keyword, ""))
    if len(uid) > _UID_LIMIT or not _UID.fullmatch(uid):
        raise PeerError(f"{keyword} {uid[:_UID_LIMIT]!r} is not a UID")
    return uid

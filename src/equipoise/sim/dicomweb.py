"""A simulated DICOMweb server over the files of an archive: search for studies, and retrieval of one object.

Every path that ends like one of DICOMweb's is answered, whatever stands in front of it.  Leaves out storing, metadata,
frames, and all search keys but limit.  A process of its own:

    python -m equipoise.sim.dicomweb --name a --port 0 --store DIR

Source: DICOM PS3.18, sections 10.4 (retrieve) and 10.6 (search); annex F.2 (DICOM JSON); 8.7.1 (multipart/related).
"""

import asyncio
import json
import re
import uuid
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from equipoise.sim.http_server import Exchange
from equipoise.sim.node_process import arguments_of, run
from equipoise.sim.query import find
from equipoise.sim.store import Store

_SEARCH = re.compile(r".*/studies")
_OBJECT = re.compile(r".*/studies/([0-9.]+)/series/[0-9.]+/instances/([0-9.]+)")
_JSON, _TEXT = "application/dicom+json", "text/plain; charset=utf-8"
_KEYS = ("StudyInstanceUID", "PatientID", "StudyDate", "ModalitiesInStudy", "NumberOfStudyRelatedInstances")


class DicomwebServer:
    """One node; `handle` answers a request."""

    def __init__(self, name: str, store: Path) -> None:
        self._name = name
        self._store = Store(store)

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        request = exchange.request
        if _SEARCH.fullmatch(request.path) and request.method == "GET":
            limit = request.query.get("limit", "")
            await self._search(exchange, int(limit) if limit.isdecimal() else None)
        elif named := _OBJECT.fullmatch(request.path):
            await self._retrieve(exchange, named[1], named[2])
        else:
            await exchange.answer(404, b"nothing here\n", _TEXT, [("x-served-by", self._name)])

    async def _search(self, exchange: Exchange, limit: int | None) -> None:
        studies = (await asyncio.to_thread(self._studies))[:limit]
        body = json.dumps(studies).encode() if studies else b""
        await exchange.answer(200 if studies else 204, body, _JSON, [("x-served-by", self._name)])

    def _studies(self) -> list[Any]:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "STUDY"
        for keyword in _KEYS:
            setattr(identifier, keyword, "")
        headers = (header for _, header in self._store.headers(identifier))
        return [match.to_json_dict() for match in find(headers, identifier, self._name)]

    async def _retrieve(self, exchange: Exchange, study_uid: str, sop_uid: str) -> None:
        found = [path for path in self._store.paths(study_uid) if path.stem == sop_uid]
        if not found:
            await exchange.answer(404, b"no such object\n", _TEXT, [("x-served-by", self._name)])
            return
        boundary = uuid.uuid4().hex
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join((head, await asyncio.to_thread(found[0].read_bytes), f"\r\n--{boundary}--\r\n".encode()))
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        await exchange.answer(200, body, kind, [("x-served-by", self._name)])


def main() -> None:
    """Serve until told to stop."""
    parser = arguments_of("dicomweb", "A simulated DICOMweb server.")
    parser.add_argument("--store", type=Path, required=True, help="directory of an archive's files")
    arguments = parser.parse_args()
    run(DicomwebServer(arguments.name, arguments.store).handle, arguments)


if __name__ == "__main__":
    main()

"""Peers of check `qido`: PS3.18 table 10.6.3-1, annex F.2."""

from collections.abc import Mapping

from tests.unit.health.fake_peer import Script
from tests.unit.health.peers.http import answering, page, status

LISTENS = True
DICOM_JSON = "application/dicom+json"
STUDY = b'{"0020000D":{"vr":"UI","Value":["2.25.1"]},"00100010":{"vr":"PN","Value":[{"Alphabetic":"DOE^JANE"}]}}'
ASKED = "GET /dicom-web/studies?limit=1 answered "
NO_LIST = "not a list in DICOM JSON; correct health.path, or health.port"

HEALTHY: Script = answering(page(b"[" + STUDY + b"]", DICOM_JSON))
SICK: Mapping[str, Script] = {
    f"{ASKED}200 with text/html, {NO_LIST}": answering(page(b"<html>DOE^JANE</html>")),
    f"{ASKED}200 with application/json, {NO_LIST}": answering(page(b'{"Error": "DOE^JANE"}', "application/json")),
    f"{ASKED}200 with application/dicom+json, {NO_LIST}": answering(page(b"[" * 100_000, DICOM_JSON)),
    f"{ASKED}200 with no media type, {NO_LIST}": answering(page(b'["DOE^JANE"]', "DOE^JANE")),
    f"{ASKED}200 without a body, where a list, or status 204, is due; correct health.path": answering(page(b"")),
    f"{ASKED}401, expected 200, 204; it needs a log-in; let this balancer search without one, or add 401 to "
    "health.status": answering(status("401 No", "Content-Length: 0")),
    f"{ASKED}302 to /login, expected 200, 204; set health.path, or health.tls, to where it leads": answering(
        status("302 Found", "Content-Length: 0", "Location: /login")
    ),
    f"{ASKED}404, expected 200, 204; correct health.path: the part of the DICOMweb address in front of "
    "/studies": answering(page(b"DOE^JANE", "text/plain", "404 No")),
    f"{ASKED}413, expected 200, 204; the node does not heed limit=1; use check http for this node": answering(
        page(b"DOE^JANE", "text/plain", "413 Big")
    ),
    f"{ASKED}503, expected 200, 204; the node's log says why": answering(page(b"DOE^JANE", "text/plain", "503 Down")),
}

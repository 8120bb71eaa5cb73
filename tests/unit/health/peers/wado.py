"""Peers of check `wado`: PS3.18 section 8.7.3, PS3.10 section 7.1."""

from collections.abc import Mapping

from tests.unit.health.fake_peer import Script
from tests.unit.health.peers.http import answering, page, status

LISTENS = True
SETTINGS = {"study": "1.2.3", "series": "1.2.3.4", "instance": "1.2.3.4.5"}
RELATED = 'multipart/related; type="application/dicom"; boundary=cut'
FILE = bytes(128) + b"DICM\x02\0\0\0UL\x04\0\xc0\0\0\0"
ASKED = "GET of instance 1.2.3.4.5 answered "


def related(content: bytes) -> bytes:
    head = b"--cut\r\nContent-Type: application/dicom;transfer-syntax=1.2.840.10008.1.2.1\r\n\r\n"
    return head + content + b"\r\n--cut--\r\n"


HEALTHY: Script = answering(page(related(FILE), RELATED))
SICK: Mapping[str, Script] = {
    f"{ASKED}404, expected 200; the node does not have this object: store it there, or name another one; or correct "
    "health.path": answering(status("404 No", "Content-Length: 0")),
    f"{ASKED}406, expected 200; the node does not send objects as they are stored; use check qido for this "
    "node": answering(status("406 No", "Content-Length: 0")),
    f"{ASKED}500, expected 200; the node's log says why": answering(page(b"DOE^JANE", "text/plain", "500 Disk")),
    f"{ASKED}200 with text/html, expected multipart/related; correct health.path": answering(page(b"<html>")),
    f"{ASKED}200 with no part in it; the node's log says why": answering(page(b"nothing", RELATED)),
    f"{ASKED}200, but its first part does not begin as a DICOM file; the node's log says why": answering(
        page(related(b"x" * 500), RELATED)
    ),
    "a multipart answer whose Content-Type names no boundary": answering(page(related(FILE), "multipart/related")),
}

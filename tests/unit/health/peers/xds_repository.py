"""Peers of check `xds_repository`: ITI TF-2 section 3.43.4.2, ITI TF-3 table 4.2.4.1-2, MTOM."""

from collections.abc import Mapping

from tests.unit.health.fake_peer import Script
from tests.unit.health.peers.http import answering, page
from tests.unit.health.peers.xds_registry import FAILURE, RS, SUCCESS, enveloped, errors, soap

LISTENS = True
SETTINGS = {"path": "/xds/repository", "repository": "1.2.3.9"}
XDS_B = "urn:ihe:iti:xds-b:2007"
ACTION = "urn:ihe:iti:2007:RetrieveDocumentSetResponse"
MTOM = (
    'multipart/related; boundary=MIMEBoundary_7; type="application/xop+xml"; start="<0.7@example.org>"; '
    'start-info="application/soap+xml"; action="urn:ihe:iti:2007:RetrieveDocumentSetResponse"'
)


def retrieved(status: str, listed: str = "", documents: str = "") -> str:
    response = f'<rs:RegistryResponse xmlns:rs="{RS}" status="{status}">{listed}</rs:RegistryResponse>'
    return f'<d:RetrieveDocumentSetResponse xmlns:d="{XDS_B}">{response}{documents}</d:RetrieveDocumentSetResponse>'


def packed(body: str, *attachments: bytes) -> bytes:
    """MTOM: the message, and what belongs to it."""
    parts = [
        b'Content-Type: application/xop+xml; charset=UTF-8; type="application/soap+xml"\r\n'
        b"Content-Transfer-Encoding: binary\r\nContent-ID: <0.7@example.org>\r\n\r\n" + enveloped(body, ACTION)
    ]
    parts += [b"Content-Type: text/plain\r\nContent-ID: <1@example.org>\r\n\r\n" + each for each in attachments]
    return b"".join(b"--MIMEBoundary_7\r\n" + part + b"\r\n" for part in parts) + b"--MIMEBoundary_7--\r\n"


def failing(*codes: str) -> Script:
    return answering(page(packed(retrieved(FAILURE, errors(*codes))), MTOM))


SAID = "ITI-43 answered "
HEALTHY: Script = failing("XDSDocumentUniqueIdError")
SICK: Mapping[str, Script] = {
    f"{SAID}Failure with XDSUnknownRepositoryId; the node is another repository, not 1.2.3.9: correct "
    "health.repository": failing("XDSUnknownRepositoryId"),
    f"{SAID}Failure with XDSRepositoryBusy; too many requests at the node": failing("XDSRepositoryBusy"),
    f"{SAID}Failure with XDSRepositoryOutOfResources; the node is out of resources: memory, disk or database "
    "connections": failing("XDSDocumentUniqueIdError", "XDSRepositoryOutOfResources"),
    f"{SAID}Failure with XDSRepositoryError; the node cannot do its work, often because its database is away; its log "
    "says why": soap(retrieved(FAILURE, errors("XDSRepositoryError"))),
    f"{SAID}with another message; correct health.path": soap(f'<d:RetrieveDocumentSetResponse xmlns:d="{XDS_B}"/>'),
    "POST /xds/repository answered 202, expected 200": answering(page(b"", line="202 Accepted")),
    "a multipart answer with no part in it; the node's log says why": answering(page(b"--other\r\n\r\n", MTOM)),
    "no end of the SOAP message within 1048576 bytes; the node's log says why": answering(
        page(packed(retrieved(SUCCESS, documents="<x/>" * 300_000)), MTOM)
    ),
}

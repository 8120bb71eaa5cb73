"""Peers of check `fhir`: FHIR R4, CapabilityStatement and OperationOutcome."""

from collections.abc import Mapping

from tests.unit.health.fake_peer import Script
from tests.unit.health.peers.http import answering, page, status

LISTENS = True
FHIR_JSON = "application/fhir+json;charset=utf-8"
ASKED = "GET /fhir/metadata answered "
INCOMPLETE = "a CapabilityStatement without fhirVersion or status; the node's log says why"


def statement(more: bytes = b'"status":"active","fhirVersion":"4.0.1"', kind: bytes = b"CapabilityStatement") -> bytes:
    return page(b'{"resourceType":"%s","kind":"instance",%s,"format":["json"]}' % (kind, more), FHIR_JSON)


HEALTHY: Script = answering(statement())
SICK: Mapping[str, Script] = {
    f"{ASKED}200 with an OperationOutcome instead of its capabilities; the node's log says why": answering(
        statement(b'"issue":[{"severity":"fatal","code":"exception"}]', b"OperationOutcome")
    ),
    f"{ASKED}200 with Conformance: a version of FHIR before 3.0, no CapabilityStatement; correct health.path, or use "
    "check http": answering(statement(kind=b"Conformance")),
    f"{ASKED}200 with another resource, no CapabilityStatement; correct health.path, or use check http": answering(
        statement(kind=b"Patient")
    ),
    f"{ASKED}200 with {INCOMPLETE}": answering(statement(b'"status":"active"')),
    f"{ASKED}200 with text/html, no FHIR in JSON; correct health.path, or health.port": answering(page(b"<html>")),
    f"{ASKED}401, expected 200; let this balancer read /metadata without a log-in, or use check http with status "
    "401": answering(status("401 No", "Content-Length: 0")),
    f"{ASKED}404, expected 200; correct health.path: the FHIR address in front of /metadata": answering(
        status("404 No", "Content-Length: 0")
    ),
    f"{ASKED}503, expected 200; the node's log says why": answering(status("503 No", "Content-Length: 0")),
}

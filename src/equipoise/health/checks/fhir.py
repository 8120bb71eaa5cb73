"""Check `fhir`: ask for the capabilities of a FHIR server.  Passes when it sends its CapabilityStatement.

No patient's data is asked for, and servers send this without a log-in.  Leaves out what the statement promises: only
its kind, version and status are looked at.  It does not see a database that is away where the server knows its
capabilities by heart.
Source: FHIR R4 (4.0.1), RESTful API, section 3.1.0.10 (capabilities); CapabilityStatement (status, fhirVersion: 1..1);
the same in STU3 and R5.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator

from equipoise.config.base import CheckParams
from equipoise.health.base import Check, Link, Result
from equipoise.health.checks.settings import BasePath, HostHeader
from equipoise.health.web import Answer, Request, below, exchange, read_json, unexpected

_MAX_BODY_BYTES = 2 * 1024 * 1024  # a server that knows every resource with all its searches sends some 1 MiB
_VERSION = re.compile(r"\d{1,3}(?:\.\d{1,3}){1,2}(?:-[A-Za-z0-9.-]{1,32})?")
_WANTED = re.compile(r"\d{1,3}(?:\.\d{1,3}){0,2}", re.ASCII)
_STATUSES = ("draft", "active", "retired", "unknown")  # publication-status
_KIND_FIRST = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"resourceType"\s*:\s*"([A-Za-z]{1,64})"')
_TEXT = r'"%s"\s*:\s*"([^"\\]{1,64})"'

_HINTS = {
    401: "let this balancer read /metadata without a log-in, or use check http with status 401",
    404: "correct health.path: the FHIR address in front of /metadata",
    406: "the node has no JSON; use check http for this node",
    410: "correct health.path: the FHIR address in front of /metadata",
}


def _wanted(text: str) -> str:
    if not _WANTED.fullmatch(text):
        raise ValueError(f"{text!r} is not a version of FHIR; write for example '4.0', or '4.0.1' (R4)")
    return text


class Params(CheckParams):
    """Where to ask, and which version is expected."""

    path: BasePath = "/fhir"
    """The path of the FHIR service, in front of `/metadata`."""
    host: HostHeader | None = None
    """The Host header.  By default the node's address and port."""
    fhir_version: Annotated[str, AfterValidator(_wanted)] | None = None
    """The version that it must have: `4.0` takes 4.0.1, too.  By default any."""


async def probe(link: Link, params: Params) -> Result:
    """Ask and judge the answer.  Raises: PeerError."""
    request = Request("GET", below(params.path, "/metadata"), params.host, (("Accept", "application/fhir+json"),))
    answer = await exchange(link, request, max_body_bytes=_MAX_BODY_BYTES)
    if answer.status != 200:
        return Result.failed(unexpected(request, answer, "200", _HINTS))
    said = f"{request} answered 200"
    statement = _statement(answer)
    if not isinstance(statement, dict):
        return Result.failed(f"{said} with {answer.media_type}, no FHIR in JSON; correct health.path, or health.port")
    return _judged(said, statement, params.fhir_version)


def _statement(answer: Answer) -> Any:
    """Return the statement; of one that is longer than what is read, what its beginning says."""
    if answer.whole:
        try:
            return read_json(answer)
        except ValueError:
            return None
    kind = _KIND_FIRST.match(answer.body)
    text = answer.body.decode("utf-8", "replace")
    found = {name: re.search(_TEXT % name, text) for name in ("status", "fhirVersion")}
    return kind and {"resourceType": kind[1].decode(), **{name: each and each[1] for name, each in found.items()}}


def _judged(said: str, statement: dict[str, Any], wanted: str | None) -> Result:
    kind, version, status = (statement.get(name) for name in ("resourceType", "fhirVersion", "status"))
    if kind == "OperationOutcome":
        return Result.failed(f"{said} with an OperationOutcome instead of its capabilities; the node's log says why")
    if kind != "CapabilityStatement":
        other = "Conformance: a version of FHIR before 3.0" if kind == "Conformance" else "another resource"
        return Result.failed(f"{said} with {other}, no CapabilityStatement; correct health.path, or use check http")
    if not isinstance(version, str) or not _VERSION.fullmatch(version) or status not in _STATUSES:
        return Result.failed(
            f"{said} with a CapabilityStatement without fhirVersion or status; the node's log says why"
        )
    if wanted is not None and not f"{version}.".startswith(f"{wanted}."):
        return Result.failed(
            f"{said} with a CapabilityStatement of FHIR {version}, expected {wanted}; correct health.path, or "
            "health.fhir_version"
        )
    return Result.passed(f"{said} with a CapabilityStatement of FHIR {version}, {status}")


CHECK = Check(name="fhir", params=Params, probe=probe)

"""Check `wado`: fetch a known object over DICOMweb.  Passes when it begins to come, as a DICOM file.

It proves what no search does: that the node reaches its files.  Only the beginning of the object is taken, then the
connection is closed; name a small object, which has to be in every node.  Leaves out the object itself: it is not read.
Source: DICOM PS3.18 section 10.4 (retrieve transaction), 8.7.3 (media types, transfer-syntax=*); PS3.10 section 7.1
(preamble and prefix).
"""

from equipoise.config.base import CheckParams
from equipoise.health.base import Check, Link, Result
from equipoise.health.checks.settings import BasePath, HostHeader, Uid
from equipoise.health.multipart import read_parts
from equipoise.health.web import Answer, Request, below, exchange, unexpected

_MAX_BODY_BYTES = 16 * 1024  # the headers of a part, and the beginning of a file
_PREFIX_AT, _PREFIX = 128, b"DICM"
_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'

_HINTS = {
    404: "the node does not have this object: store it there, or name another one; or correct health.path",
    406: "the node does not send objects as they are stored; use check qido for this node",
    410: "the node has deleted this object: store it there again, or name another one",
}


class Params(CheckParams):
    """Which object, and where."""

    study: Uid
    """The Study Instance UID of the object."""
    series: Uid
    """Its Series Instance UID."""
    instance: Uid
    """Its SOP Instance UID."""
    path: BasePath = "/dicom-web"
    """The path of the DICOMweb service, in front of `/studies`."""
    host: HostHeader | None = None
    """The Host header.  By default the node's address and port."""


async def probe(link: Link, params: Params) -> Result:
    """Fetch the object's beginning and judge it.  Raises: PeerError."""
    place = f"/studies/{params.study}/series/{params.series}/instances/{params.instance}"
    called = f"GET of instance {params.instance}"
    request = Request("GET", below(params.path, place), params.host, (("Accept", _ACCEPT),), called=called)
    answer = await exchange(link, request, max_body_bytes=_MAX_BODY_BYTES)
    if answer.status != 200:
        return Result.failed(unexpected(request, answer, "200", _HINTS))
    return _judged(f"{request} answered 200", answer)


def _judged(said: str, answer: Answer) -> Result:
    if answer.media_type != "multipart/related":
        return Result.failed(f"{said} with {answer.media_type}, expected multipart/related; correct health.path")
    parts = read_parts(answer.content_type, answer.body)
    if not parts:
        return Result.failed(f"{said} with no part in it; the node's log says why")
    if parts[0].content[_PREFIX_AT : _PREFIX_AT + len(_PREFIX)] != _PREFIX:
        return Result.failed(f"{said}, but its first part does not begin as a DICOM file; the node's log says why")
    return Result.passed(f"{said} with a DICOM file")


CHECK = Check(name="wado", params=Params, probe=probe)

"""Check `qido`: search for one study over DICOMweb.  Passes when the answer is a list in DICOM JSON, empty or not.

The node has to look into its database.  What it finds may be a patient's: it is looked at only to see that it is a
list, and nothing of it is kept or told.  Leaves out logging in.
Source: DICOM PS3.18 section 10.6 (search transaction), 10.6.3 (200 with results, 204 for none), 8.3.4.4 (limit);
PS3.18 annex F.2 (a list of objects).
"""

import re

from equipoise.config.base import CheckParams
from equipoise.health.base import Check, Link, Result
from equipoise.health.checks.settings import BasePath, HostHeader, Statuses
from equipoise.health.web import Answer, Request, below, exchange, read_json, unexpected, within

_MAX_BODY_BYTES = 1024 * 1024  # one study is some 2 KiB; a server that does not know `limit` sends all it has
_ONE_STUDY = "/studies?limit=1"
_BEGINNING = re.compile(rb'(?:\xef\xbb\xbf)?\s*\[\s*\{\s*"')  # a list, its first object, and a name in it

_HINTS = {
    # So does Orthanc's own REST API, which lies at the root and has /studies, too.
    400: "correct health.path; where it is right, the node does not take limit=1: use check http",
    401: "it needs a log-in; let this balancer search without one, or add 401 to health.status",
    404: "correct health.path: the part of the DICOMweb address in front of /studies",
    406: "the node has no DICOM JSON; use check http for this node",
    413: "the node does not heed limit=1; use check http for this node",
}


class Params(CheckParams):
    """Where to search."""

    path: BasePath = "/dicom-web"
    """The path of the DICOMweb service, in front of `/studies`."""
    host: HostHeader | None = None
    """The Host header.  By default the node's address and port."""
    status: Statuses = ("200", "204")
    """The status codes that are taken.  One from 200 to 299 needs its list, too; 204 is the empty one."""


async def probe(link: Link, params: Params) -> Result:
    """Search and judge the answer.  Raises: PeerError."""
    request = Request("GET", below(params.path, _ONE_STUDY), params.host, (("Accept", "application/dicom+json"),))
    answer = await exchange(link, request, max_body_bytes=_MAX_BODY_BYTES)
    if not any(within(answer.status, each) for each in params.status):
        return Result.failed(unexpected(request, answer, ", ".join(params.status), _HINTS))
    said = f"{request} answered {answer.status}"
    if answer.status == 204 or not within(answer.status, "200-299"):
        return Result.passed(said)
    return _judged(said, answer)


def _judged(said: str, answer: Answer) -> Result:
    if not answer.body:
        return Result.failed(f"{said} without a body, where a list, or status 204, is due; correct health.path")
    if not answer.whole:
        if _BEGINNING.match(answer.body):
            return Result.passed(
                f"{said}, a list of more than {_MAX_BODY_BYTES >> 20} MiB; the node does not heed limit=1"
            )
        return Result.failed(_no_list(said, answer))
    try:
        found = read_json(answer)
    except ValueError:
        return Result.failed(_no_list(said, answer))
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        return Result.failed(_no_list(said, answer))
    return Result.passed(f"{said}, a list of {len(found)}")


def _no_list(said: str, answer: Answer) -> str:
    return f"{said} with {answer.media_type}, not a list in DICOM JSON; correct health.path, or health.port"


CHECK = Check(name="qido", params=Params, probe=probe)

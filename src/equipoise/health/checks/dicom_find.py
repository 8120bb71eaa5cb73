"""Check `dicom_find`: associate, C-FIND with a key that matches nothing, release.  Passes when the search succeeds.

The node has to look into its database and finds nothing, so no patient's data comes back.  A node that ignores the key
and answers with matches is stopped with C-CANCEL after a few of them, which are not looked at.
Source: DICOM PS3.4 annex C.4.1 (query), K.4.1 (worklist), table C.4-1 (status); PS3.7 sections 9.1.2 and 9.3.2.
"""

from typing import Literal

from equipoise.health.base import Check, Link, Result
from equipoise.health.dicom import MESSAGE_ID, Association, DicomParams
from equipoise.proto.dicom.dimse import CommandSet
from equipoise.proto.dicom.find import (
    C_FIND_RSP,
    STUDY_ROOT_FIND,
    WORKLIST_FIND,
    encode_cancel_request,
    encode_find_request,
    study_identifier,
    worklist_identifier,
)

_NO_STUDY = "2.25.128491163832547752452354280459019057049"  # ours alone: PS3.5 annex B.2
_NO_ORDER = "EQUIPOISE-PROBE"  # an accession number and a station that no site has
_MOST_MATCHES = 8  # then the node is told to stop
_MOST_AFTER_CANCEL = 1000  # what may be on its way by then

_ASKED = {
    "study": (STUDY_ROOT_FIND, study_identifier(_NO_STUDY)),
    "worklist": (WORKLIST_FIND, worklist_identifier(_NO_ORDER, _NO_ORDER)),
}
_LABELS = {
    "study": ("Study Root Query (FIND)", "set health.model to worklist, or use check dicom_echo for this node"),
    "worklist": ("Modality Worklist (FIND)", "set health.model to study, or use check dicom_echo for this node"),
}
_CANCELLED = 0xFE00


class Params(DicomParams):
    """Who asks whom, and what is searched."""

    model: Literal["study", "worklist"] = "study"
    """What is searched: `study`, the studies of an archive; `worklist`, the steps of a modality worklist."""


async def probe(link: Link, params: Params) -> Result:
    """Hold the conversation.  Raises: PeerError."""
    sop_class, identifier = _ASKED[params.model]

    async def search(association: Association) -> Result:
        await association.send("C-FIND-RQ", encode_find_request(MESSAGE_ID, sop_class), identifier)
        return await _answers(association, params)

    return await Association(link, params, sop_class, _LABELS[params.model]).converse(search)


async def _answers(association: Association, params: Params) -> Result:
    for matches in range(_MOST_AFTER_CANCEL):
        if matches == _MOST_MATCHES:
            await association.send("C-CANCEL-RQ", encode_cancel_request(MESSAGE_ID))
        response = await association.response()
        if response.field != C_FIND_RSP or response.message_id != MESSAGE_ID:
            kind = "response" if response.is_response else "request"
            return Result.failed(
                f"C-FIND-RQ {MESSAGE_ID} answered with a {response.command} {kind}, message id {response.message_id}"
            )
        if not response.is_pending:
            return _ended(response, matches, params)
    return Result.failed(
        f"C-FIND answered with {_MOST_AFTER_CANCEL} matches for a key that nothing has, C-CANCEL "
        "notwithstanding; use check dicom_echo for this node"
    )


def _ended(response: CommandSet, matches: int, params: Params) -> Result:
    status = response.status or 0
    if status == 0 or (status == _CANCELLED and matches):
        found = f", but {matches} matches for a key that nothing has" if matches else ", nothing found, as it must be"
        return Result.passed(f"C-FIND ({params.model}) answered {status:04X}{found}")
    return Result.failed(f"C-FIND ({params.model}) answered {status:04X}, {_meaning(status, params)}")


def _meaning(status: int, params: Params) -> str:
    if status >> 8 == 0xA7:
        return "out of resources: the node cannot search now; its database, disk or licence is at its limit"
    if status == 0xA900:
        return "the identifier does not match: the node wants other keys; use check dicom_echo for this node"
    if status >> 12 == 0xC:
        return (
            "unable to process: the search failed, often because the database does not answer; the node's log says why"
        )
    if status == 0x0122:
        return f"SOP class not supported: {_LABELS[params.model][1]}"
    if status == 0x0124:
        return f"not authorized: register {params.calling_ae} at the PACS with the right to query"
    return "expected 0000, the node's log says why"


CHECK = Check(name="dicom_find", params=Params, probe=probe)

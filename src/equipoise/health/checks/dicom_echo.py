"""Check `dicom_echo`: associate, C-ECHO, release.  Passes when C-ECHO is answered with status 0000.

C-ECHO does not touch a node's database, so a node whose database hangs may still pass: `dicom_find` asks it.
Source: DICOM PS3.7 sections 9.1.5 and 9.3.5, annex C (status).
"""

from equipoise.health.base import Check, Link, Result
from equipoise.health.dicom import MESSAGE_ID, Association, DicomParams
from equipoise.proto.dicom.association import VERIFICATION
from equipoise.proto.dicom.dimse import C_ECHO_RSP, CommandSet, encode_echo_request

_LABEL = "Verification", "use check tcp for this node"
_STATUSES = {
    0x0110: "processing failure",
    0x0122: "SOP class not supported",
    0x0124: "not authorized",
    0x0210: "duplicate invocation",
    0x0211: "unrecognized operation",
    0x0212: "mistyped argument",
}


class Params(DicomParams):
    """Who asks, and whom."""


async def probe(link: Link, params: Params) -> Result:
    """Hold the conversation.  Raises: PeerError."""
    return await Association(link, params, VERIFICATION, _LABEL).converse(_echo)


async def _echo(association: Association) -> Result:
    await association.send("C-ECHO-RQ", encode_echo_request(MESSAGE_ID))
    return _answered(await association.response())


def _answered(response: CommandSet) -> Result:
    if response.field != C_ECHO_RSP or response.message_id != MESSAGE_ID:
        kind = "response" if response.is_response else "request"
        return Result.failed(
            f"C-ECHO-RQ {MESSAGE_ID} answered with a {response.command} {kind}, message id {response.message_id}"
        )
    if response.status == 0:
        return Result.passed("C-ECHO answered 0000")
    meaning = _STATUSES.get(response.status or 0, "not a status of C-ECHO")
    return Result.failed(f"C-ECHO answered {response.status:04X}, {meaning}; expected 0000, the node's log says why")


CHECK = Check(name="dicom_echo", params=Params, probe=probe)

"""Peers of check `dicom_find`: PS3.7 table 9.3-4, PS3.4 table C.4-1."""

from collections.abc import Mapping

from tests.unit.health.fake_peer import Script
from tests.unit.health.peers.dicom_echo import (
    abortion,
    answering,
    data,
    element,
    rejection,
    saying,
    u16,
)

LISTENS = True
STUDY_ROOT = b"1.2.840.10008.5.1.4.1.2.2.1\0"
PENDING, CANCELLED = 0xFF00, 0xFE00


def find_response(status: int, message_id: int = 1) -> bytes:
    has_match = status in (0xFF00, 0xFF01)
    elements = element(0x0002, STUDY_ROOT) + element(0x0100, u16(0x8020)) + element(0x0120, u16(message_id))
    elements += element(0x0800, u16(0x0000 if has_match else 0x0101)) + element(0x0900, u16(status))
    return element(0x0000, len(elements).to_bytes(4, "little")) + elements


def match() -> bytes:
    """A pending response with the data set of a match."""
    return data(find_response(PENDING)) + data(b"\x08\0\x52\0\x06\0\0\0STUDY ", control=2)


def finding(*statuses: int) -> Script:
    return answering(echo=b"".join(data(find_response(status)) for status in statuses))


HEALTHY: Script = finding(0)
SICK: Mapping[str, Script] = {
    "rejected (1,1,3): permanent, calling AE title not recognized; register EQUIPOISE at the PACS or set "
    "health.calling_ae": saying(rejection(1, 1, 3)),
    "associated, but Study Root Query (FIND) was not accepted: abstract syntax not supported; set health.model to "
    "worklist, or use check dicom_echo for this node": answering(accept_result=3),
    "C-FIND (study) answered A700, out of resources: the node cannot search now; its database, disk or licence is at "
    "its limit": finding(0xA700),
    "C-FIND (study) answered A900, the identifier does not match: the node wants other keys; use check dicom_echo for "
    "this node": finding(0xA900),
    "C-FIND (study) answered C001, unable to process: the search failed, often because the database does not answer; "
    "the node's log says why": finding(0xC001),
    "C-FIND (study) answered 0122, SOP class not supported: set health.model to worklist, or use check dicom_echo for "
    "this node": finding(0x0122),
    "C-FIND (study) answered 0124, not authorized: register EQUIPOISE at the PACS with the right to query": finding(
        0x0124
    ),
    "C-FIND (study) answered 0110, expected 0000, the node's log says why": finding(0x0110),
    "C-FIND (study) answered FE00, expected 0000, the node's log says why": finding(CANCELLED),
    "C-FIND-RQ answered with A-ABORT by the service user; the node's log says why": answering(echo=abortion(0, 0)),
    "C-FIND-RQ 1 answered with a C-FIND response, message id 9": answering(echo=data(find_response(0, message_id=9))),
    "C-FIND answered with 1000 matches for a key that nothing has, C-CANCEL notwithstanding; use check dicom_echo for "
    "this node": answering(echo=match() * 1000),
}

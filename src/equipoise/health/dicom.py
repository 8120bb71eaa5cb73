"""One DICOM association of a check: associate, ask, release.  What a check asks is its own.

One presentation context is proposed, in Implicit VR Little Endian, which every DICOM node accepts.  The node is left in
order: released after an answer, aborted when it breaks the protocol or the deadline cuts in.
Source: DICOM PS3.8 sections 7.1 to 7.3 and table 9-18 (context results); PS3.7 section 6.3.
"""

from collections import deque
from collections.abc import Awaitable, Callable

from equipoise.base.errors import PeerError
from equipoise.config.base import CheckParams
from equipoise.config.fields import AeTitle
from equipoise.health.base import Link, Result
from equipoise.proto.dicom.association import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    AssociateAccept,
    PresentationContext,
    encode_request,
    parse_accept,
)
from equipoise.proto.dicom.dimse import CommandSet, encode_command_pdu
from equipoise.proto.dicom.find import encode_data_pdu
from equipoise.proto.dicom.pdu import (
    HEADER,
    REJECT_CALLED_AE,
    REJECT_CALLING_AE,
    RELEASE_RQ,
    AbortReason,
    AbortSource,
    Pdu,
    PduError,
    PduType,
    Reject,
    describe_abort,
    encode_abort,
    parse_type,
)
from equipoise.proto.dicom.walker import Walker

MESSAGE_ID = 1  # of the one request that a check makes
_CONTEXT_ID = 1
_MAX_PDU_BYTES = 16384  # announced to the node; an answer to one context, or to a request of ours, has some 200 bytes

_CONTEXT_RESULTS = {
    1: "user rejection",
    2: "no reason given",
    3: "abstract syntax not supported",
    4: "transfer syntaxes not supported",
}


class DicomParams(CheckParams):
    """Who asks, and whom."""

    calling_ae: AeTitle = "EQUIPOISE"
    """The AE title that the check calls itself; many nodes must know it."""
    called_ae: AeTitle = "ANY-SCP"
    """The AE title that the node answers to."""


class Association:
    """One association with a node.

    Args:
        link: The connection.
        titles: Who calls whom.
        sop_class: What is proposed.
        label: What the SOP class is called, and what to do where the node does not take it.

    Attributes:
        asked: What the node is to answer, for reasons.
        farewell: What is sent before the connection is closed, however the conversation ended.
    """

    def __init__(self, link: Link, titles: DicomParams, sop_class: str, label: tuple[str, str]) -> None:
        self._link = link
        self._titles = titles
        self._context = PresentationContext(_CONTEXT_ID, sop_class, (IMPLICIT_VR_LITTLE_ENDIAN,))
        self._label = label
        self._walker = Walker(_MAX_PDU_BYTES, accepted_mask=1 << _CONTEXT_ID)
        self._notes: deque[CommandSet] = deque()
        self.asked = "A-ASSOCIATE-RQ"
        self.farewell = encode_abort(AbortSource.USER)

    async def converse(self, talk: "Callable[[Association], Awaitable[Result]]") -> Result:
        """Associate, talk, release; return what `talk` does, or why it could not.  Raises: PeerError."""
        try:
            return await self._through(talk)
        except PduError as error:
            self.farewell = encode_abort(AbortSource.PROVIDER, error.reason)
            raise PeerError(f"broken answer to {self.asked}: {error}; is this the node's plain DICOM port?") from None
        finally:
            if self.farewell:
                await self._link.send(self.farewell)

    async def send(self, asked: str, command: bytes, data_set: bytes = b"") -> None:
        """Send a request, and the data set behind it; `asked` is its name."""
        self.asked = asked
        message = encode_command_pdu(_CONTEXT_ID, command)
        await self._link.send(message + (encode_data_pdu(_CONTEXT_ID, data_set) if data_set else b""))

    async def response(self) -> CommandSet:
        """Return the next command set that comes; the data sets between them are not looked at.  Raises: PeerError."""
        while not self._notes:
            pdu = await self._receive()
            for note in self._walker.walk(memoryview(pdu.encode())):
                if not isinstance(note, CommandSet):
                    raise _unexpected(pdu)
                self._notes.append(note)
        return self._notes.popleft()

    async def _through(self, talk: "Callable[[Association], Awaitable[Result]]") -> Result:
        titles = self._titles
        request = encode_request(titles.called_ae, titles.calling_ae, [self._context], _MAX_PDU_BYTES)
        await self._link.send(request)
        answer = await self._receive()
        if answer.type is PduType.ASSOCIATE_RJ:
            rejected = _rejected(answer.as_reject(), titles)
            self.farewell = b""  # there is no association to end
            return rejected
        if answer.type is not PduType.ASSOCIATE_AC:
            raise _unexpected(answer)
        accept = parse_accept(answer.body)
        result = await talk(self) if accept.results.get(_CONTEXT_ID) == 0 else self._not_accepted(accept)
        await self._release()
        return result

    def _not_accepted(self, accept: AssociateAccept) -> Result:
        result = accept.results.get(_CONTEXT_ID)
        if result is None:
            reason = "the answer leaves the proposed context out"
        else:
            reason = _CONTEXT_RESULTS.get(result, f"result {result}, not in the standard")
        name, way_out = self._label
        return Result.failed(f"associated, but {name} was not accepted: {reason}; {way_out}")

    async def _release(self) -> None:
        """End the association.  What the node thinks of that no longer changes what it answered."""
        self.asked = "A-RELEASE-RQ"
        await self._link.send(RELEASE_RQ)
        try:
            while (pdu := await self._receive()).type is PduType.DATA_TF:
                pass  # still on its way when we asked: PS3.8 section 7.2.1
        except PeerError:
            return  # some nodes close, or abort, instead
        if pdu.type is PduType.RELEASE_RP:
            self.farewell = b""

    async def _receive(self) -> Pdu:
        """Return the next PDU, unless it is an A-ABORT.  Raises: PeerError."""
        try:
            code = await self._link.receive_exactly(1)
            kind = parse_type(code[0])  # before five more bytes, which another protocol may never send
            _, length = HEADER.unpack(code + await self._link.receive_exactly(HEADER.size - 1))
            if length > _MAX_PDU_BYTES:
                raise PduError(
                    f"{kind.label} of {length} bytes, at most {_MAX_PDU_BYTES} accepted", AbortReason.INVALID_VALUE
                )
            pdu = Pdu(kind, await self._link.receive_exactly(length))
        except PduError:
            raise
        except PeerError as error:
            self.farewell = b""
            raise PeerError(f"no answer to {self.asked}: {error}") from None
        if kind is PduType.ABORT:
            self.farewell = b""
            raise PeerError(f"{self.asked} answered with {describe_abort(pdu.body)}; the node's log says why")
        return pdu


def _unexpected(pdu: Pdu) -> PduError:
    return PduError(f"{pdu.type.label} must not come here", AbortReason.UNEXPECTED_PDU)


def _rejected(reject: Reject, params: DicomParams) -> Result:
    if reject == REJECT_CALLING_AE:
        hint = f"register {params.calling_ae} at the PACS or set health.calling_ae"
    elif reject == REJECT_CALLED_AE:
        # DCMTK's dcmqrscp says the same of a calling AE title that it does not know.
        hint = f"the node does not answer to {params.called_ae}, or not when {params.calling_ae} calls; "
        hint += "set health.called_ae"
    elif reject.transient:
        hint = "the node is busy, or its limit of associations is reached"
    else:
        hint = f"the node's log says why; it may be busy, or not know {params.calling_ae} or {params.called_ae}"
    return Result.failed(f"{reject}; {hint}")

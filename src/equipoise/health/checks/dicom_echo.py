"""Check `dicom_echo`: associate, C-ECHO, release.  Passes when C-ECHO is answered with status 0000.

One presentation context is proposed, Verification in Implicit VR Little Endian, which every DICOM node accepts.  The
node is left in order: released after an answer, aborted when it breaks the protocol or the deadline cuts in.  C-ECHO
does not touch a node's database, so a node whose database hangs may still pass.
Source: DICOM PS3.8 sections 7.1 to 7.3 and table 9-18 (context results); PS3.7 sections 9.1.5 and 9.3.5, annex C
(status).
"""

from equipoise.base.errors import PeerError
from equipoise.config.base import CheckParams
from equipoise.config.fields import AeTitle
from equipoise.health.base import Check, Link, Result
from equipoise.proto.dicom.association import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
    AssociateAccept,
    PresentationContext,
    encode_request,
    parse_accept,
)
from equipoise.proto.dicom.dimse import C_ECHO_RSP, CommandSet, encode_command_pdu, encode_echo_request
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

_CONTEXT = PresentationContext(1, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,))
_MESSAGE_ID = 1
_MAX_PDU_BYTES = 16384  # announced to the node; an answer to one context, or to a C-ECHO, has some 200 bytes

_CONTEXT_RESULTS = {
    1: "user rejection",
    2: "no reason given",
    3: "abstract syntax not supported",
    4: "transfer syntaxes not supported",
}
_STATUSES = {
    0x0110: "processing failure",
    0x0122: "SOP class not supported",
    0x0124: "not authorized",
    0x0210: "duplicate invocation",
    0x0211: "unrecognized operation",
    0x0212: "mistyped argument",
}


class Params(CheckParams):
    """Who asks, and whom."""

    calling_ae: AeTitle = "EQUIPOISE"
    """The AE title that the check calls itself; many nodes must know it."""
    called_ae: AeTitle = "ANY-SCP"
    """The AE title that the node answers to."""


async def probe(link: Link, params: Params) -> Result:
    """Hold the conversation.  Raises: PeerError."""
    association = _Association(link, params)
    try:
        return await association.ask()
    except PduError as error:
        association.farewell = encode_abort(AbortSource.PROVIDER, error.reason)
        raise PeerError(
            f"broken answer to {association.asked}: {error}; is this the node's plain DICOM port?"
        ) from None
    finally:
        if association.farewell:
            await link.send(association.farewell)


class _Association:
    """One association with a node.

    Attributes:
        asked: What the node is to answer, for reasons.
        farewell: What is sent before the connection is closed, however the conversation ended.
    """

    def __init__(self, link: Link, params: Params) -> None:
        self._link = link
        self._params = params
        self.asked = "A-ASSOCIATE-RQ"
        self.farewell = encode_abort(AbortSource.USER)

    async def ask(self) -> Result:
        request = encode_request(self._params.called_ae, self._params.calling_ae, [_CONTEXT], _MAX_PDU_BYTES)
        await self._link.send(request)
        answer = await self._receive()
        if answer.type is PduType.ASSOCIATE_RJ:
            rejected = _rejected(answer.as_reject(), self._params)
            self.farewell = b""  # there is no association to end
            return rejected
        if answer.type is not PduType.ASSOCIATE_AC:
            raise _unexpected(answer)
        accept = parse_accept(answer.body)
        result = await self._echo() if accept.results.get(_CONTEXT.id) == 0 else _not_accepted(accept)
        await self._release()
        return result

    async def _echo(self) -> Result:
        self.asked = "C-ECHO-RQ"
        await self._link.send(encode_command_pdu(_CONTEXT.id, encode_echo_request(_MESSAGE_ID)))
        walker = Walker(_MAX_PDU_BYTES, accepted_mask=1 << _CONTEXT.id)
        while True:
            pdu = await self._receive()
            for note in walker.walk(memoryview(pdu.encode())):
                if not isinstance(note, CommandSet):
                    raise _unexpected(pdu)
                return _answered(note)

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


def _rejected(reject: Reject, params: Params) -> Result:
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


def _not_accepted(accept: AssociateAccept) -> Result:
    result = accept.results.get(_CONTEXT.id)
    if result is None:
        reason = "the answer leaves the proposed context out"
    else:
        reason = _CONTEXT_RESULTS.get(result, f"result {result}, not in the standard")
    return Result.failed(f"associated, but Verification was not accepted: {reason}; use check tcp for this node")


def _answered(response: CommandSet) -> Result:
    if response.field != C_ECHO_RSP or response.message_id != _MESSAGE_ID:
        kind = "response" if response.is_response else "request"
        return Result.failed(
            f"C-ECHO-RQ {_MESSAGE_ID} answered with a {response.command} {kind}, message id {response.message_id}"
        )
    if response.status == 0:
        return Result.passed("C-ECHO answered 0000")
    meaning = _STATUSES.get(response.status or 0, "not a status of C-ECHO")
    return Result.failed(f"C-ECHO answered {response.status:04X}, {meaning}; expected 0000, the node's log says why")


CHECK = Check(name="dicom_echo", params=Params, probe=probe)

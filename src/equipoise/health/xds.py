"""What the checks of XDS registries and repositories share: settings, one transaction, and what its answer says.

An answer of HTTP 200 may say in its RegistryErrorList that the node cannot work.  Of it only error codes are told,
never a text: `codeContext` repeats what was asked, such as a patient ID.
Leaves out what is asked, and what of it is good news.  Source: IHE ITI TF-3, section 4.2.4 (success and error
reporting), table 4.2.4.1-2 (codes) and section 4.2.4.2 (status); ebRS 3.0, section 2.1; ITI TF-2, appendix V.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from equipoise.base.errors import PeerError
from equipoise.config.base import CheckParams
from equipoise.health import soap
from equipoise.health.base import Link, Result
from equipoise.health.checks.settings import HostHeader, UrlPath
from equipoise.health.web import Answer, Request, exchange, unexpected

_MAX_BODY_BYTES = 1024 * 1024  # an answer without a document has some 2 KiB
_RS = "urn:oasis:names:tc:ebxml-regrep:xsd:rs:3.0"
_STATUS = re.compile(r"urn:(?:oasis:names:tc:ebxml-regrep|ihe:iti:2007):ResponseStatusType:([A-Za-z]{1,32})")
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", re.ASCII)
_MOST_CODES = 8

_HINTS = {
    404: "correct health.path: the path of the web service in the node's documentation or WSDL",
    405: "correct health.path: this one takes no SOAP",
    415: "correct health.path: this service takes no SOAP 1.2, or not in the form that IHE wants",
}
_NO_SAML = "it wants a SAML assertion (XUA), which no check has: use check http or tcp for this node"
_FAULTS = {
    "ActionNotSupported": "this web service is another one: correct health.path",
    "DestinationUnreachable": "it wants its own address: set health.host to the name in its endpoint address",
    "EndpointUnavailable": "the service behind this address is away; the node's log says why",
    "InvalidSecurity": _NO_SAML,
    "FailedAuthentication": _NO_SAML,
    "MustUnderstand": "this service knows no WS-Addressing: correct health.path",
    "Sender": "it does not take this request: correct health.path, or see the node's log",
    "VersionMismatch": "this service speaks SOAP 1.1: correct health.path",
}
_CODES = {
    "Busy": "too many requests at the node",
    "OutOfResources": "the node is out of resources: memory, disk or database connections",
    "NotAvailable": "the node does not reach its registry",
    "XDSMissingHomeCommunityId": "the node is a gateway to other communities: correct health.path",
    "XDSUnknownCommunity": "the node is a gateway to other communities: correct health.path",
    "Error": "the node cannot do its work, often because its database is away; its log says why",
}


class XdsParams(CheckParams):
    """Where the web service is."""

    path: UrlPath
    """The path of the web service, as the node's documentation or WSDL has it; products differ."""
    host: HostHeader | None = None
    """The Host header, and the host of wsa:To.  By default the node's address and port."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """What is asked, and what a good answer is.

    Attributes:
        name: As IHE numbers it, for reasons.
        action: Of SOAP and WS-Addressing.
        body: The request in XML.
        mtom: Whether it is sent as MTOM; the answer may be plain all the same.
        answer: The element of the answer.
        well: The error codes that are as good as success.
        hints: What to do about further error codes.
    """

    name: str
    action: str
    body: str
    mtom: bool
    answer: str
    well: frozenset[str]
    hints: Mapping[str, str]


async def converse(link: Link, params: XdsParams, transaction: Transaction) -> Result:
    """Ask and judge the answer.  Raises: PeerError."""
    request = _request(link, params, transaction)
    answer = await exchange(link, request, max_body_bytes=_MAX_BODY_BYTES)
    body = _read(answer)
    if isinstance(body, soap.Fault):
        return Result.failed(f"{transaction.name} answered with the SOAP fault {body}; {_fault_hint(body)}")
    if answer.status != 200:
        return Result.failed(unexpected(request, answer, "200", _HINTS))
    if body is None:
        return Result.failed(f"{request} answered 200 with {answer.media_type}, no SOAP; correct health.path")
    return _judged(transaction, body)


def _read(answer: Answer) -> Element | soap.Fault | None:
    """Return what SOAP says; None where it is none, or where the status says more.  Raises: PeerError."""
    if not soap.speaks_xml(answer):
        return None
    try:
        return soap.read(answer)
    except PeerError:
        if answer.status == 200:
            raise
        return None


def _request(link: Link, params: XdsParams, transaction: Transaction) -> Request:
    message_id = str(uuid.uuid4())  # WS-Addressing wants a new one each time, and a node may refuse one that it knows
    to = f"{'https' if link.tls else 'http'}://{params.host or link.peer}{params.path}"
    message = soap.envelope(transaction.action, to, message_id, transaction.body)
    form = (
        soap.mtom(message, transaction.action, message_id)
        if transaction.mtom
        else soap.plain(message, transaction.action)
    )
    headers = (("Accept", "application/soap+xml, multipart/related"), ("Content-Type", form[0]))
    return Request("POST", params.path, params.host, headers, form[1])


def _judged(transaction: Transaction, body: Element) -> Result:
    response = body.find(f"{{{_RS}}}RegistryResponse") if "RetrieveDocumentSet" in body.tag else body
    status = _STATUS.fullmatch(response.get("status", "")) if response is not None else None
    if body.tag != transaction.answer or response is None or status is None:
        return Result.failed(f"{transaction.name} answered with another message; correct health.path")
    said = f"{transaction.name} answered {status[1]}"
    if status[1] == "Success":
        return Result.passed(said)
    codes = _error_codes(response)
    bad = [code for code in codes if code not in transaction.well]
    if codes and not bad:
        return Result.passed(f"{said} with {', '.join(codes)}, as it must for what nobody has")
    if not bad:
        return Result.failed(f"{said} without an error code; the node's log says why")
    return Result.failed(f"{said} with {bad[0]}; {_code_hint(bad[0], transaction.hints)}")


def _error_codes(response: Element) -> list[str]:
    """Return the different error codes, at most 8; one that is no word is said to be unknown."""
    found = (error.get("errorCode", "").strip() for error in response.iter(f"{{{_RS}}}RegistryError"))
    codes = (code if _CODE.fullmatch(code) else "an error code that is none" for code in found)
    return list(dict.fromkeys(codes))[:_MOST_CODES]


def _code_hint(code: str, hints: Mapping[str, str]) -> str:
    if code in hints:
        return hints[code]
    return next((said for end, said in _CODES.items() if code.endswith(end)), "the node's log says why")


def _fault_hint(fault: soap.Fault) -> str:
    return next((_FAULTS[code] for code in reversed(fault.codes) if code in _FAULTS), "the node's log says why")

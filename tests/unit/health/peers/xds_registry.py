"""Peers of check `xds_registry`: SOAP 1.2 section 5, ebRS 3.0 section 2.1, ITI TF-3 table 4.2.4.1-2."""

from collections.abc import Mapping

from tests.unit.health.fake_peer import Script
from tests.unit.health.peers.http import answering, page

LISTENS = True
SETTINGS = {"path": "/xds/registry"}
SOAP = "application/soap+xml; charset=utf-8"
SUCCESS = "urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:Success"
FAILURE = "urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:Failure"
RS = "urn:oasis:names:tc:ebxml-regrep:xsd:rs:3.0"
QUERY = "urn:oasis:names:tc:ebxml-regrep:xsd:query:3.0"
RIM = "urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"
SEVERITY = "urn:oasis:names:tc:ebxml-regrep:ErrorSeverityType:Error"


def enveloped(body: str, action: str = "urn:ihe:iti:2007:RegistryStoredQueryResponse") -> bytes:
    return (
        "<?xml version='1.0' encoding='UTF-8'?>\n"
        '<soapenv:Envelope xmlns:soapenv="http://www.w3.org/2003/05/soap-envelope">'
        f'<soapenv:Header xmlns:wsa="http://www.w3.org/2005/08/addressing"><wsa:Action>{action}</wsa:Action>'
        f"</soapenv:Header><soapenv:Body>{body}</soapenv:Body></soapenv:Envelope>"
    ).encode()


def errors(*codes: str) -> str:
    listed = "".join(
        f'<rs:RegistryError errorCode="{code}" codeContext="DOE^JANE" location="here" severity="{SEVERITY}"/>'
        for code in codes
    )
    return f'<rs:RegistryErrorList xmlns:rs="{RS}" highestSeverity="{SEVERITY}">{listed}</rs:RegistryErrorList>'


def queried(status: str, inner: str = f'<rim:RegistryObjectList xmlns:rim="{RIM}"/>') -> str:
    return f'<query:AdhocQueryResponse xmlns:query="{QUERY}" status="{status}">{inner}</query:AdhocQueryResponse>'


def fault(code: str, subcode: str) -> str:
    inner = f"<soapenv:Subcode><soapenv:Value>wsa:{subcode}</soapenv:Value></soapenv:Subcode>"
    return (
        f"<soapenv:Fault><soapenv:Code><soapenv:Value>soapenv:{code}</soapenv:Value>{inner}</soapenv:Code>"
        '<soapenv:Reason><soapenv:Text xml:lang="en">DOE^JANE</soapenv:Text></soapenv:Reason></soapenv:Fault>'
    )


def soap(body: str, line: str = "200 OK") -> Script:
    return answering(page(enveloped(body), SOAP, line))


def failing(code: str) -> Script:
    return soap(queried(FAILURE, errors(code)))


SAID = "ITI-18 answered "
HEALTHY: Script = soap(queried(SUCCESS))
SICK: Mapping[str, Script] = {
    f"{SAID}Failure with XDSRegistryBusy; too many requests at the node": failing("XDSRegistryBusy"),
    f"{SAID}Failure with XDSRegistryOutOfResources; the node is out of resources: memory, disk or database "
    "connections": failing("XDSRegistryOutOfResources"),
    f"{SAID}Failure with XDSRegistryError; the node cannot do its work, often because its database is away; its log "
    "says why": failing("XDSRegistryError"),
    f"{SAID}Failure with XDSStoredQueryParamNumber; this registry takes no such health.patient_id": failing(
        "XDSStoredQueryParamNumber"
    ),
    f"{SAID}Failure with XDSUnknownCommunity; the node is a gateway to other communities: correct health.path": failing(
        "XDSUnknownCommunity"
    ),
    f"{SAID}Failure with an error code that is none; the node's log says why": failing("DOE^JANE 1970-01-01"),
    f"{SAID}Failure without an error code; the node's log says why": soap(queried(FAILURE)),
    f"{SAID}with the SOAP fault Sender/ActionNotSupported; this web service is another one: correct health.path": soap(
        fault("Sender", "ActionNotSupported"), "500 Internal Server Error"
    ),
    f"{SAID}with the SOAP fault Sender; it does not take this request: correct health.path, or see the node's "
    "log": soap(fault("Sender", "DOE^JANE"), "400 Bad Request"),
    f"{SAID}with the SOAP fault Receiver; the node's log says why": soap(fault("Receiver", "DOE^JANE")),
    f"{SAID}with another message; correct health.path": soap(
        f'<rs:RegistryResponse xmlns:rs="{RS}" status="{SUCCESS}"/>'
    ),
    "POST /xds/registry answered 200 with text/html, no SOAP; correct health.path": answering(page(b"<html>")),
    "POST /xds/registry answered 404, expected 200; correct health.path: the path of the web service in the node's "
    "documentation or WSDL": answering(page(b"<html>", line="404 No")),
    "POST /xds/registry answered 503, expected 200; the node's log says why": answering(page(b"", line="503 Down")),
    "POST /xds/registry answered 500, expected 200; the node's log says why": answering(
        page(b"<broken", SOAP, "500 Error")
    ),
    "answered in SOAP 1.1, where IHE wants 1.2; correct health.path": answering(
        page(b'<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"/>', "text/xml")
    ),
    "answered with XML that has a DTD, which SOAP does not allow; correct health.path": answering(
        page(b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>', SOAP)
    ),
    "answered with broken XML: mismatched tag; correct health.path": answering(page(b"<a><b></a>", SOAP)),
}

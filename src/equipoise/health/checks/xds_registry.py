"""Check `xds_registry`: ask a Document Registry for the documents of a patient that need not exist (ITI-18).

Passes when it answers Success, with nothing or with references to documents, which are not looked at, or that it does
not know the patient.  The registry has to look into its database.  Real registries write each query into their audit
trail.  Leaves out SAML assertions (XUA).
Source: IHE ITI TF-2, section 3.18 (Registry Stored Query; 3.18.4.1.2.3.7.1 FindDocuments, 3.18.4.1.2.3.5 coding of
values); ITI TF-3, section 4.2.4; ebRS 3.0, chapter 6, and ebRIM 3.0.
"""

from xml.sax.saxutils import escape

from equipoise.health.base import Check, Link, Result
from equipoise.health.checks.settings import PatientId
from equipoise.health.xds import Transaction, XdsParams, converse

_QUERY = "urn:oasis:names:tc:ebxml-regrep:xsd:query:3.0"
_RIM = "urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"
_FIND_DOCUMENTS = "urn:uuid:14d4debf-8f97-4251-9a74-a90016b0af0d"
_APPROVED = "('urn:oasis:names:tc:ebxml-regrep:StatusType:Approved')"
_NOBODY = "EQUIPOISE^^^&2.25.201476125380967343926580263945017820637&ISO"  # an authority of ours alone

_HINTS = {
    "XDSUnknownStoredQuery": "this registry knows no FindDocuments; use check http for this node",
    "XDSStoredQueryMissingParam": "this registry wants more than the standard; use check http for this node",
    "XDSStoredQueryParamNumber": "this registry takes no such health.patient_id",
    "XDSTooManyResults": "name a health.patient_id with fewer documents, or none",
}


class Params(XdsParams):
    """Where the registry is, and of whom it is asked."""

    patient_id: PatientId = _NOBODY
    """The patient, as `ID^^^&OID&ISO`; need not exist.  Some registries want an authority that they know."""


async def probe(link: Link, params: Params) -> Result:
    """Ask and judge the answer.  Raises: PeerError."""
    return await converse(link, params, _transaction(params.patient_id))


def _transaction(patient_id: str) -> Transaction:
    patient = "'" + patient_id.replace("'", "''") + "'"
    body = (
        f'<q:AdhocQueryRequest xmlns:q="{_QUERY}" xmlns:r="{_RIM}">'
        '<q:ResponseOption returnComposedObjects="true" returnType="ObjectRef"/>'
        f'<r:AdhocQuery id="{_FIND_DOCUMENTS}">'
        f"{_slot('$XDSDocumentEntryPatientId', patient)}"
        f"{_slot('$XDSDocumentEntryStatus', _APPROVED)}"
        "</r:AdhocQuery></q:AdhocQueryRequest>"
    )
    return Transaction(
        name="ITI-18",
        action="urn:ihe:iti:2007:RegistryStoredQuery",
        body=body,
        mtom=False,
        answer=f"{{{_QUERY}}}AdhocQueryResponse",
        well=frozenset({"XDSUnknownPatientId"}),  # the standard of today says Success instead
        hints=_HINTS,
    )


def _slot(name: str, value: str) -> str:
    return f'<r:Slot name="{name}"><r:ValueList><r:Value>{escape(value)}</r:Value></r:ValueList></r:Slot>'


CHECK = Check(name="xds_registry", params=Params, probe=probe)

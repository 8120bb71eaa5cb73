"""The words of XDS.b: transactions, metadata in ebRIM, and answers with their errors.

Leaves out folders, associations but the membership in a submission, and most of a document's metadata.
Source: IHE ITI TF-2, 3.18, 3.41 to 3.43; TF-3, 4.2 (metadata), table 4.2.4.1-2 (error codes); OASIS ebRIM, ebRS 3.0.
"""

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from xml.etree import ElementTree

from equipoise.base.errors import PeerError
from equipoise.sim.soap import Element

RIM = "urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"
RS = "urn:oasis:names:tc:ebxml-regrep:xsd:rs:3.0"
LCM = "urn:oasis:names:tc:ebxml-regrep:xsd:lcm:3.0"
QUERY = "urn:oasis:names:tc:ebxml-regrep:xsd:query:3.0"
XDSB = "urn:ihe:iti:xds-b:2007"

_STATUS = "urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:"
SUCCESS, FAILURE = f"{_STATUS}Success", f"{_STATUS}Failure"
PARTIAL_SUCCESS = "urn:ihe:iti:2007:ResponseStatusType:PartialSuccess"
_SEVERE = "urn:oasis:names:tc:ebxml-regrep:ErrorSeverityType:Error"
APPROVED = "urn:oasis:names:tc:ebxml-regrep:StatusType:Approved"
_HAS_MEMBER = "urn:oasis:names:tc:ebxml-regrep:AssociationType:HasMember"

STABLE_DOCUMENT = "urn:uuid:7edca82f-054d-47f2-a032-9b2a5b5186c1"
_DOCUMENT_PATIENT = "urn:uuid:58a6f841-87b3-4a3e-92fd-a8ffeff98427"
_DOCUMENT_UNIQUE_ID = "urn:uuid:2e82c1f6-a085-4c72-9da3-8640a32e42ab"
_SUBMISSION_SET = "urn:uuid:a54d6aa5-d40d-43f9-88c5-b4633d873bdd"
_SUBMISSION_PATIENT = "urn:uuid:6b5aea1a-874d-4603-a4bc-96a0a7b38446"
_SUBMISSION_UNIQUE_ID = "urn:uuid:96fdda7c-d067-4183-912e-bf5ee74998a8"

FIND_DOCUMENTS = "urn:uuid:14d4debf-8f97-4251-9a74-a90016b0af0d"
GET_DOCUMENTS = "urn:uuid:5c4f972b-d56b-40ac-a5fc-c8ca9b40b9d4"


class Transaction(StrEnum):
    """A request, by its action; the answer's has `Response` behind it."""

    STORED_QUERY = "urn:ihe:iti:2007:RegistryStoredQuery"
    REGISTER = "urn:ihe:iti:2007:RegisterDocumentSet-b"
    PROVIDE_AND_REGISTER = "urn:ihe:iti:2007:ProvideAndRegisterDocumentSet-b"
    RETRIEVE = "urn:ihe:iti:2007:RetrieveDocumentSet"

    @property
    def answer(self) -> str:
        """The action of the answer."""
        return f"{self}Response"


class XdsError(PeerError):
    """A request failed as XDS says it: with a code of its table, inside an answer that HTTP calls good."""

    def __init__(self, code: str, context: str) -> None:
        super().__init__(f"{code}: {context}")
        self.code = code
        self.context = context


@dataclass(frozen=True, slots=True)
class Entry:
    """One document's metadata, and what a node needs of it."""

    element: Element

    @property
    def identifier(self) -> str:
        """Its id within a submission, or its UUID."""
        return self.element.get("id", "")

    @property
    def unique_id(self) -> str:
        """XDSDocumentEntry.uniqueId."""
        return _external(self.element, _DOCUMENT_UNIQUE_ID)

    @property
    def patient_id(self) -> str:
        """XDSDocumentEntry.patientId."""
        return _external(self.element, _DOCUMENT_PATIENT)

    @property
    def mime_type(self) -> str:
        """XDSDocumentEntry.mimeType."""
        return self.element.get("mimeType", "")

    def slot(self, name: str) -> str:
        """Return the first value of a slot, empty where there is none."""
        return next(iter(slots(self.element).get(name, [])), "")

    def set_slot(self, name: str, value: str) -> None:
        """Let a slot have this value alone."""
        for slot in [one for one in self.element.findall(f"{{{RIM}}}Slot") if one.get("name") == name]:
            self.element.remove(slot)
        self.element.insert(0, _slot(name, value))  # the schema has slots before all else


def slots(element: Element) -> dict[str, list[str]]:
    """Return the values of each slot."""
    return {
        slot.get("name", ""): [value.text or "" for value in slot.iter(f"{{{RIM}}}Value")]
        for slot in element.findall(f"{{{RIM}}}Slot")
    }


def entries_of(submission: Element) -> list[Entry]:
    """Return the documents of a submission, as they stand in it.  Raises: XdsError."""
    entries = [Entry(element) for element in submission.iter(f"{{{RIM}}}ExtrinsicObject")]
    for entry in entries:
        if not (entry.unique_id and entry.patient_id and entry.mime_type):
            lacking = f"{entry.identifier}: uniqueId, patientId or mimeType is missing"
            raise XdsError("XDSRegistryMetadataError", lacking)
    if not entries:
        raise XdsError("XDSRegistryMetadataError", "a submission without an ExtrinsicObject")
    return entries


def submission_set_id(submission: Element) -> str:
    """Return XDSSubmissionSet.uniqueId.  Raises: XdsError."""
    for package in submission.iter(f"{{{RIM}}}RegistryPackage"):
        if unique_id := _external(package, _SUBMISSION_UNIQUE_ID):
            return unique_id
    raise XdsError("XDSRegistryMetadataError", "a submission without a SubmissionSet that has a uniqueId")


def document_entry(unique_id: str, patient_id: str, mime_type: str, content: bytes) -> Entry:
    """Return the metadata of a document to be submitted."""
    identifier = f"urn:uuid:{uuid.uuid4()}"
    attributes = {"id": identifier, "mimeType": mime_type, "objectType": STABLE_DOCUMENT, "status": APPROVED}
    element = ElementTree.Element(f"{{{RIM}}}ExtrinsicObject", attributes)
    element.append(_slot("hash", hash_of(content)))
    element.append(_slot("size", str(len(content))))
    _identify(element, _DOCUMENT_PATIENT, patient_id, "XDSDocumentEntry.patientId")
    _identify(element, _DOCUMENT_UNIQUE_ID, unique_id, "XDSDocumentEntry.uniqueId")
    return Entry(element)


def submission(entries: Iterable[Entry], patient_id: str, set_id: str) -> Element:
    """Return a SubmitObjectsRequest of these documents in one submission set."""
    request = ElementTree.Element(f"{{{LCM}}}SubmitObjectsRequest")
    objects = ElementTree.SubElement(request, f"{{{RIM}}}RegistryObjectList")
    package = ElementTree.SubElement(objects, f"{{{RIM}}}RegistryPackage", {"id": "SubmissionSet", "status": APPROVED})
    membership = {"id": "class", "classifiedObject": "SubmissionSet", "classificationNode": _SUBMISSION_SET}
    ElementTree.SubElement(package, f"{{{RIM}}}Classification", membership)
    _identify(package, _SUBMISSION_PATIENT, patient_id, "XDSSubmissionSet.patientId")
    _identify(package, _SUBMISSION_UNIQUE_ID, set_id, "XDSSubmissionSet.uniqueId")
    for number, entry in enumerate(entries):
        objects.append(entry.element)
        ends = {"sourceObject": "SubmissionSet", "targetObject": entry.identifier}
        link = {"id": f"member{number}", "associationType": _HAS_MEMBER, **ends}
        ElementTree.SubElement(objects, f"{{{RIM}}}Association", link).append(_slot("SubmissionSetStatus", "Original"))
    return request


def stored_query(query: str, **parameters: str) -> Element:
    """Return an AdhocQueryRequest for whole entries; values are written as the query's own language has them."""
    request = ElementTree.Element(f"{{{QUERY}}}AdhocQueryRequest")
    option = {"returnComposedObjects": "true", "returnType": "LeafClass"}
    ElementTree.SubElement(request, f"{{{QUERY}}}ResponseOption", option)
    asked = ElementTree.SubElement(request, f"{{{RIM}}}AdhocQuery", {"id": query})
    for name, value in parameters.items():
        asked.append(_slot(f"${name}", value))
    return request


def registry_response(troubles: Sequence[XdsError] = (), *, partly: bool = False) -> Element:
    """Return an answer that says how it went."""
    return _with_errors(ElementTree.Element(f"{{{RS}}}RegistryResponse"), troubles, partly=partly)


def query_response(objects: Iterable[Element], troubles: Sequence[XdsError] = ()) -> Element:
    """Return the answer to a query."""
    response = _with_errors(ElementTree.Element(f"{{{QUERY}}}AdhocQueryResponse"), troubles, partly=False)
    ElementTree.SubElement(response, f"{{{RIM}}}RegistryObjectList").extend(list(objects))
    return response


def raise_troubles(response: Element) -> None:
    """Raise the first error that an answer names; of a success, nothing.  Raises: XdsError."""
    status = next((one.get("status", "") for one in response.iter() if one.get("status")), "")
    if status != SUCCESS:
        for error in response.iter(f"{{{RS}}}RegistryError"):
            raise XdsError(error.get("errorCode", ""), error.get("codeContext", ""))
        raise XdsError("XDSRegistryError", f"answered with status {status!r} and without an error")


def hash_of(content: bytes) -> str:
    """Return the hash as metadata has it: SHA-1, in hexadecimal (TF-3 table 4.2.3.2-1)."""
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def quoted(values: Iterable[str]) -> str:
    """Return a list of a stored query's language (TF-2 3.18.4.1.2.3.5).

    >>> quoted(["a", "it's"])
    "('a','it''s')"
    """
    return "(" + ",".join("'" + value.replace("'", "''") + "'" for value in values) + ")"


def unquoted(texts: Iterable[str]) -> Iterator[str]:
    """Give the values of a parameter that is written as one or as a list."""
    for text in texts:
        inner = text.strip().removeprefix("(").removesuffix(")").strip()
        yield from (part.strip().strip("'").replace("''", "'") for part in inner.split("','"))


def _with_errors(response: Element, troubles: Sequence[XdsError], *, partly: bool) -> Element:
    response.set("status", SUCCESS if not troubles else PARTIAL_SUCCESS if partly else FAILURE)
    if troubles:
        errors = ElementTree.SubElement(response, f"{{{RS}}}RegistryErrorList", {"highestSeverity": _SEVERE})
        for trouble in troubles:
            told = {"errorCode": trouble.code, "codeContext": trouble.context, "location": "", "severity": _SEVERE}
            ElementTree.SubElement(errors, f"{{{RS}}}RegistryError", told)
    return response


def _slot(name: str, value: str) -> Element:
    slot = ElementTree.Element(f"{{{RIM}}}Slot", {"name": name})
    ElementTree.SubElement(ElementTree.SubElement(slot, f"{{{RIM}}}ValueList"), f"{{{RIM}}}Value").text = value
    return slot


def _identify(element: Element, scheme: str, value: str, meaning: str) -> None:
    owner = {"id": f"urn:uuid:{uuid.uuid4()}", "registryObject": element.get("id", "")}
    identifier = {**owner, "identificationScheme": scheme, "value": value}
    name = ElementTree.SubElement(
        ElementTree.SubElement(element, f"{{{RIM}}}ExternalIdentifier", identifier), f"{{{RIM}}}Name"
    )
    ElementTree.SubElement(name, f"{{{RIM}}}LocalizedString", {"value": meaning})


def _external(element: Element, scheme: str) -> str:
    for identifier in element.findall(f"{{{RIM}}}ExternalIdentifier"):
        if identifier.get("identificationScheme") == scheme:
            return identifier.get("value", "")
    return ""

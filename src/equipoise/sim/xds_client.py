"""A small XDS client: a source that provides documents, a consumer that finds them and gets them back, compared.

Also how the simulated repository speaks with its registry.  Blocking; call it from a thread.
Source: IHE ITI TF-2, 3.18, 3.41, 3.42, 3.43.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit
from xml.etree import ElementTree

from equipoise.base.errors import PeerError
from equipoise.sim import mtom, soap
from equipoise.sim.soap import Element
from equipoise.sim.xds import (
    APPROVED,
    FIND_DOCUMENTS,
    GET_DOCUMENTS,
    RIM,
    XDSB,
    Entry,
    Transaction,
    document_entry,
    hash_of,
    quoted,
    raise_troubles,
    stored_query,
    submission,
)

_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Found:
    """A document as the registry knows it."""

    unique_id: str
    repository_id: str
    hash: str
    size_bytes: int


def call(
    url: str, transaction: Transaction, body: Element, parts: Mapping[str, bytes] | None = None
) -> tuple[Element, Mapping[str, bytes]]:
    """Ask, in MTOM where `parts` are given; return the answer's body and parts.  Raises: PeerError."""
    envelope = soap.request(transaction, url, body)
    if parts is None:
        kind, content = f'{soap.CONTENT_TYPE}; charset=UTF-8; action="{transaction}"', envelope
    else:
        kind, content = mtom.write(envelope, parts, transaction)
    answer_kind, answer = _post(url, kind, content)
    if mtom.is_mtom(answer_kind) != (parts is not None):
        raise PeerError(f"{transaction} was answered in another format: {answer_kind}")
    package = mtom.read(answer_kind, answer) if parts is not None else mtom.Package(answer, {})
    message = soap.read(package.envelope)
    if message.action != transaction.answer:
        raise PeerError(f"{transaction} was answered with action {message.action!r}")
    if message.relates_to != soap.read(envelope).message_id:
        raise PeerError(f"the answer is to another message, {message.relates_to!r}")
    return message.body, package.parts


class XdsClient:
    """Source and consumer of documents; each request is a connection of its own."""

    def __init__(self, registry_url: str, repository_url: str) -> None:
        self._registry_url = registry_url
        self._repository_url = repository_url

    def provide_and_register(self, content: bytes, patient_id: str, mime_type: str = "text/plain") -> str:
        """Submit one document by ITI-41 and return its unique id.  Raises: PeerError; XdsError."""
        unique_id, set_id = (f"2.25.{uuid.uuid4().int}" for _ in range(2))
        self.submit(content, document_entry(unique_id, patient_id, mime_type, content), patient_id, set_id)
        return unique_id

    def submit(self, content: bytes, entry: Entry, patient_id: str, set_id: str) -> None:
        """Submit one document with its metadata.  Raises: PeerError; XdsError."""
        request = ElementTree.Element(f"{{{XDSB}}}ProvideAndRegisterDocumentSetRequest")
        request.append(submission([entry], patient_id, set_id))
        mtom.include(ElementTree.SubElement(request, f"{{{XDSB}}}Document", {"id": entry.identifier}), "document@sim")
        answer, _ = call(
            self._repository_url, Transaction.PROVIDE_AND_REGISTER, request, parts={"document@sim": content}
        )
        raise_troubles(answer)

    def find(self, patient_id: str) -> list[Found]:
        """Return a patient's documents by ITI-18, FindDocuments.  Raises: PeerError; XdsError."""
        status = quoted([APPROVED])
        patient = "'" + patient_id.replace("'", "''") + "'"
        return self._query(
            stored_query(FIND_DOCUMENTS, XDSDocumentEntryPatientId=patient, XDSDocumentEntryStatus=status)
        )

    def get(self, unique_id: str) -> Found | None:
        """Return one document as the registry knows it, by GetDocuments.  Raises: PeerError; XdsError."""
        return next(iter(self._query(stored_query(GET_DOCUMENTS, XDSDocumentEntryUniqueId=quoted([unique_id])))), None)

    def retrieve(self, document: Found) -> bytes:
        """Return a document's content by ITI-43.

        Raises: PeerError where it is not the bytes whose hash and size the registry has; XdsError.
        """
        request = ElementTree.Element(f"{{{XDSB}}}RetrieveDocumentSetRequest")
        wanted = ElementTree.SubElement(request, f"{{{XDSB}}}DocumentRequest")
        ElementTree.SubElement(wanted, f"{{{XDSB}}}RepositoryUniqueId").text = document.repository_id
        ElementTree.SubElement(wanted, f"{{{XDSB}}}DocumentUniqueId").text = document.unique_id
        answer, parts = call(self._repository_url, Transaction.RETRIEVE, request, parts={})
        raise_troubles(answer)
        element = answer.find(f"{{{XDSB}}}DocumentResponse/{{{XDSB}}}Document")
        if element is None:
            raise PeerError(f"no document in the answer for {document.unique_id}")
        content = mtom.included(element, parts)
        if (hash_of(content), len(content)) != (document.hash, document.size_bytes):
            raise PeerError(f"document {document.unique_id} came back altered, {len(content)} bytes")
        return content

    def _query(self, request: Element) -> list[Found]:
        answer, _ = call(self._registry_url, Transaction.STORED_QUERY, request)
        raise_troubles(answer)
        entries = [Entry(element) for element in answer.iter(f"{{{RIM}}}ExtrinsicObject")]
        return [
            Found(entry.unique_id, entry.slot("repositoryUniqueId"), entry.slot("hash"), int(entry.slot("size")))
            for entry in entries
        ]


def _post(url: str, kind: str, content: bytes) -> tuple[str, bytes]:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request("POST", parts.path or "/", body=content, headers={"Content-Type": kind})
        response = connection.getresponse()
        answer = response.read()
    except (OSError, HTTPException) as error:
        raise PeerError(f"{url}: {error}") from None
    finally:
        connection.close()
    if response.status != 200 and not response.headers.get_content_type().startswith(soap.CONTENT_TYPE):
        raise PeerError(f"{url} answered {response.status} {response.reason}")
    return response.headers.get("content-type", ""), answer

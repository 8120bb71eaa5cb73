"""A simulated XDS repository: it keeps documents, has them registered, and gives them back.

Nodes of one pool share a store and one repositoryUniqueId.  A document is on disk, whole, before success is answered.
A process of its own:

    python -m equipoise.sim.xds_repository --name a --port 0 --store DIR --registry http://127.0.0.1:PORT/

Source: IHE ITI TF-2, 3.41 (ITI-41) and 3.43 (ITI-43).
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from equipoise.base.errors import PeerError
from equipoise.sim import mtom
from equipoise.sim.node_process import arguments_of, run
from equipoise.sim.soap import Element
from equipoise.sim.xds import (
    LCM,
    XDSB,
    Entry,
    Transaction,
    XdsError,
    entries_of,
    hash_of,
    raise_troubles,
    registry_response,
)
from equipoise.sim.xds_client import call
from equipoise.sim.xds_node import Asked, Told, XdsNode
from equipoise.sim.xds_store import WriteOnce

REPOSITORY_ID = "2.25.101"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One document of a retrieval."""

    repository_id: str
    unique_id: str


class Repository:
    """What one repository does."""

    def __init__(self, store: Path, registry_url: str, repository_id: str = REPOSITORY_ID) -> None:
        self._documents = WriteOnce(store / "documents")
        self._registry_url = registry_url
        self._repository_id = repository_id

    async def provide(self, asked: Asked) -> Told:
        """Answer ITI-41: keep every document, then have them all registered.  Raises: XdsError, PeerError."""
        submitted = asked.body.find(f"{{{LCM}}}SubmitObjectsRequest")
        if submitted is None:
            raise XdsError("XDSRepositoryMetadataError", "no SubmitObjectsRequest")
        given = {element.get("id", ""): element for element in asked.body.findall(f"{{{XDSB}}}Document")}
        entries = entries_of(submitted)
        if strangers := given.keys() - {entry.identifier for entry in entries}:
            raise XdsError("XDSMissingDocumentMetadata", min(strangers))
        for entry in entries:
            if entry.identifier not in given:
                raise XdsError("XDSMissingDocument", entry.identifier)
            content = mtom.included(given[entry.identifier], asked.parts)
            await asyncio.to_thread(self._keep, entry, content)
        await asyncio.to_thread(self._have_registered, submitted)
        return Told(registry_response())

    async def retrieve(self, asked: Asked) -> Told:
        """Answer ITI-43: what is here, and an error for each document that is not."""
        response = ElementTree.Element(f"{{{XDSB}}}RetrieveDocumentSetResponse")
        parts: dict[str, bytes] = {}
        troubles: list[XdsError] = []
        answers: list[Element] = []
        for wanted in _wanted(asked.body):
            try:
                mime_type, content = await asyncio.to_thread(self._get, wanted)
            except XdsError as error:
                troubles.append(error)
                continue
            content_id = f"document{len(parts)}@sim"
            parts[content_id] = content
            answers.append(_document_response(wanted, mime_type, content_id))
        response.append(registry_response(troubles, partly=bool(parts)))
        response.extend(answers)
        return Told(response, parts)

    def _keep(self, entry: Entry, content: bytes) -> None:
        if (claimed := entry.slot("hash")) and claimed.lower() != hash_of(content):
            raise XdsError("XDSRepositoryMetadataError", f"{entry.unique_id}: the hash is not that of the document")
        kept = entry.mime_type.encode() + b"\n" + content
        if not self._documents.add(entry.unique_id, kept) and self._documents.get(entry.unique_id) != kept:
            raise XdsError("XDSDuplicateUniqueIdInRegistry", entry.unique_id)
        entry.set_slot("repositoryUniqueId", self._repository_id)
        entry.set_slot("hash", hash_of(content))
        entry.set_slot("size", str(len(content)))

    def _have_registered(self, submitted: Element) -> None:
        try:
            answer, _ = call(self._registry_url, Transaction.REGISTER, submitted)
            raise_troubles(answer)
        except XdsError:
            raise
        except PeerError as error:
            raise XdsError("XDSRegistryNotAvailable", str(error)) from None

    def _get(self, wanted: Wanted) -> tuple[str, bytes]:
        if wanted.repository_id != self._repository_id:
            raise XdsError("XDSUnknownRepositoryId", wanted.repository_id)
        kept = self._documents.get(wanted.unique_id)
        if kept is None:
            raise XdsError("XDSDocumentUniqueIdError", wanted.unique_id)
        mime_type, _, content = kept.partition(b"\n")
        return mime_type.decode(), content


def _wanted(request: Element) -> list[Wanted]:
    return [
        Wanted(
            (one.findtext(f"{{{XDSB}}}RepositoryUniqueId") or "").strip(),
            (one.findtext(f"{{{XDSB}}}DocumentUniqueId") or "").strip(),
        )
        for one in request.findall(f"{{{XDSB}}}DocumentRequest")
    ]


def _document_response(wanted: Wanted, mime_type: str, content_id: str) -> Element:
    answer = ElementTree.Element(f"{{{XDSB}}}DocumentResponse")
    ElementTree.SubElement(answer, f"{{{XDSB}}}RepositoryUniqueId").text = wanted.repository_id
    ElementTree.SubElement(answer, f"{{{XDSB}}}DocumentUniqueId").text = wanted.unique_id
    ElementTree.SubElement(answer, f"{{{XDSB}}}mimeType").text = mime_type
    mtom.include(ElementTree.SubElement(answer, f"{{{XDSB}}}Document"), content_id)
    return answer


def _not_retrieved(error: XdsError) -> Element:
    response = ElementTree.Element(f"{{{XDSB}}}RetrieveDocumentSetResponse")
    response.append(registry_response([error]))
    return response


def repository_node(name: str, repository: Repository) -> XdsNode:
    """Return the actor."""
    transactions = {
        Transaction.PROVIDE_AND_REGISTER: repository.provide,
        Transaction.RETRIEVE: repository.retrieve,
    }
    return XdsNode(name, "XDSRepositoryBusy", transactions, {Transaction.RETRIEVE: _not_retrieved})


def main() -> None:
    """Serve until told to stop."""
    parser = arguments_of("xds_repository", "A simulated XDS repository.")
    parser.add_argument("--store", type=Path, required=True, help="directory of its documents; may be shared")
    parser.add_argument("--registry", required=True, metavar="URL", help="where documents are registered")
    parser.add_argument("--repository-id", default=REPOSITORY_ID, help="its repositoryUniqueId, that of the whole pool")
    arguments = parser.parse_args()
    repository = Repository(arguments.store, arguments.registry, arguments.repository_id)
    run(repository_node(arguments.name, repository).handle, arguments)


if __name__ == "__main__":
    main()

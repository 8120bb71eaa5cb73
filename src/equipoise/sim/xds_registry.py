"""A simulated XDS registry: it registers documents and answers stored queries.

Nodes of one pool share a store.  A process of its own:

    python -m equipoise.sim.xds_registry --name a --port 0 --store DIR [--patient ID …] [--query-unknown error]

Leaves out all stored queries but FindDocuments and GetDocuments, and replacement of documents.
Source: IHE ITI TF-2, 3.18 (ITI-18) and 3.42 (ITI-42).
"""

import asyncio
from collections.abc import Collection
from pathlib import Path

from equipoise.sim.node_process import arguments_of, run
from equipoise.sim.soap import Element, parse_xml, serialized
from equipoise.sim.xds import (
    APPROVED,
    FIND_DOCUMENTS,
    GET_DOCUMENTS,
    RIM,
    Entry,
    Transaction,
    XdsError,
    entries_of,
    query_response,
    registry_response,
    slots,
    submission_set_id,
    unquoted,
)
from equipoise.sim.xds_node import Asked, Told, XdsNode
from equipoise.sim.xds_store import WriteOnce


class Registry:
    """What one registry does; `patients` are those it knows, all where there are none."""

    def __init__(self, store: Path, patients: Collection[str] = (), *, refuses_unknown: bool = False) -> None:
        self._entries = WriteOnce(store / "entries")
        self._submissions = WriteOnce(store / "submissions")
        self._patients = frozenset(patients)
        self._refuses_unknown = refuses_unknown

    async def register(self, asked: Asked) -> Told:
        """Answer ITI-42.  Raises: XdsError."""
        return await asyncio.to_thread(self._register, asked.body)

    async def query(self, asked: Asked) -> Told:
        """Answer ITI-18.  Raises: XdsError."""
        return await asyncio.to_thread(self._query, asked.body)

    def _register(self, submitted: Element) -> Told:
        entries, set_id = entries_of(submitted), submission_set_id(submitted)
        for entry in entries:
            self._require_known(entry.patient_id)
            held = self._entries.get(entry.unique_id)
            if held is not None and Entry(parse_xml(held)).slot("hash") != entry.slot("hash"):
                raise XdsError("XDSNonIdenticalHash", entry.unique_id)
        if not self._submissions.add(set_id, b""):
            raise XdsError("XDSDuplicateUniqueIdInRegistry", set_id)
        for entry in entries:
            entry.element.set("status", APPROVED)
            self._entries.add(entry.unique_id, serialized(entry.element))
        return Told(registry_response())

    def _query(self, request: Element) -> Told:
        query = request.find(f"{{{RIM}}}AdhocQuery")
        if query is None:
            raise XdsError("XDSRegistryError", "AdhocQueryRequest without an AdhocQuery")
        parameters = {name.removeprefix("$"): list(unquoted(values)) for name, values in slots(query).items()}
        held = [Entry(parse_xml(content)) for content in self._entries.contents()]
        match query.get("id"):
            case str(name) if name == FIND_DOCUMENTS:
                found = self._find_documents(held, parameters)
            case str(name) if name == GET_DOCUMENTS:
                found = _get_documents(held, parameters)
            case other:
                raise XdsError("XDSUnknownStoredQuery", f"{other}")
        return Told(query_response(entry.element for entry in found))

    def _find_documents(self, held: list[Entry], parameters: dict[str, list[str]]) -> list[Entry]:
        patients = _required(parameters, "XDSDocumentEntryPatientId")
        statuses = _required(parameters, "XDSDocumentEntryStatus")
        if self._refuses_unknown:
            for patient_id in patients:
                self._require_known(patient_id)
        return [entry for entry in held if entry.patient_id in patients and entry.element.get("status") in statuses]

    def _require_known(self, patient_id: str) -> None:
        if self._patients and patient_id not in self._patients:
            raise XdsError("XDSUnknownPatientId", patient_id)


def _get_documents(held: list[Entry], parameters: dict[str, list[str]]) -> list[Entry]:
    unique_ids = parameters.get("XDSDocumentEntryUniqueId", [])
    identifiers = parameters.get("XDSDocumentEntryEntryUUID", [])
    if not unique_ids and not identifiers:
        raise XdsError("XDSStoredQueryMissingParam", "$XDSDocumentEntryUniqueId or $XDSDocumentEntryEntryUUID")
    return [entry for entry in held if entry.unique_id in unique_ids or entry.identifier in identifiers]


def _required(parameters: dict[str, list[str]], name: str) -> list[str]:
    if not parameters.get(name):
        raise XdsError("XDSStoredQueryMissingParam", f"${name}")
    return parameters[name]


def registry_node(name: str, registry: Registry) -> XdsNode:
    """Return the actor."""
    transactions = {Transaction.STORED_QUERY: registry.query, Transaction.REGISTER: registry.register}
    errors = {Transaction.STORED_QUERY: lambda error: query_response([], [error])}
    return XdsNode(name, "XDSRegistryBusy", transactions, errors)


def main() -> None:
    """Serve until told to stop."""
    parser = arguments_of("xds_registry", "A simulated XDS registry.")
    parser.add_argument("--store", type=Path, required=True, help="directory of its entries; may be shared")
    parser.add_argument("--patient", action="append", default=[], help="one that it knows; without any, all are known")
    # TF-3 table 4.2.4.1-2: the code is not for ITI-18; some registries answer with it all the same.
    parser.add_argument(
        "--query-unknown", choices=("empty", "error"), default="empty", help="what queries for unknown patients get"
    )
    arguments = parser.parse_args()
    registry = Registry(arguments.store, arguments.patient, refuses_unknown=arguments.query_unknown == "error")
    run(registry_node(arguments.name, registry).handle, arguments)


if __name__ == "__main__":
    main()

"""Check `xds_repository`: ask a Document Repository for a document that nobody has (ITI-43), as MTOM.

Passes when it says so, or sends the document where one is named that it has: that is not looked at.  Leaves out SAML
assertions (XUA) and the repository's way to its registry, which ITI-43 does not need.
Source: IHE ITI TF-2, section 3.43 (Retrieve Document Set); ITI TF-3, section 4.2.4 (error codes).
"""

from xml.sax.saxutils import escape

from equipoise.health.base import Check, Link, Result
from equipoise.health.checks.settings import DocumentId, Uid
from equipoise.health.xds import Transaction, XdsParams, converse

_XDS_B = "urn:ihe:iti:xds-b:2007"
_NO_DOCUMENT = "2.25.66129418523085671190437752846390125574"  # ours alone: PS3.5 annex B.2


class Params(XdsParams):
    """Where the repository is, who it is, and what it is asked for."""

    repository: Uid
    """Its repositoryUniqueId, an OID, as the registry has it with its documents."""
    document: DocumentId = _NO_DOCUMENT
    """The documentUniqueId that is asked for; need not exist."""


async def probe(link: Link, params: Params) -> Result:
    """Ask and judge the answer.  Raises: PeerError."""
    return await converse(link, params, _transaction(params))


def _transaction(params: Params) -> Transaction:
    body = (
        f'<x:RetrieveDocumentSetRequest xmlns:x="{_XDS_B}"><x:DocumentRequest>'
        f"<x:RepositoryUniqueId>{escape(params.repository)}</x:RepositoryUniqueId>"
        f"<x:DocumentUniqueId>{escape(params.document)}</x:DocumentUniqueId>"
        "</x:DocumentRequest></x:RetrieveDocumentSetRequest>"
    )
    another = f"the node is another repository, not {params.repository}: correct health.repository"
    return Transaction(
        name="ITI-43",
        action="urn:ihe:iti:2007:RetrieveDocumentSet",
        body=body,
        mtom=True,
        answer=f"{{{_XDS_B}}}RetrieveDocumentSetResponse",
        well=frozenset({"XDSDocumentUniqueIdError"}),
        hints={"XDSUnknownRepositoryId": another},
    )


CHECK = Check(name="xds_repository", params=Params, probe=probe)

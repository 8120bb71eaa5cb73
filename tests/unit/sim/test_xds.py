"""The simulated registry and repository, asked by our own client and with messages written out by hand."""

import base64
import re
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from equipoise.base.errors import PeerError
from equipoise.sim import mtom, soap
from equipoise.sim.xds import FIND_DOCUMENTS, XdsError, document_entry, hash_of, stored_query
from equipoise.sim.xds_client import Found, XdsClient
from equipoise.sim.xds_registry import Registry, registry_node
from equipoise.sim.xds_repository import REPOSITORY_ID, Repository, repository_node
from equipoise.sim.xds_store import WriteOnce
from tests.unit.sim.nodes import RunningNode

PATIENT = "P1^^^&2.25.7&ISO"
AWKWARD = b"\r\n--part-\x00\xff\r\nContent-ID: <document@sim>\r\n\r\n" * 500
Start = Callable[..., RunningNode]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def registry(stack: ExitStack, tmp_path: Path) -> Start:
    def start(*patients: str, refuses_unknown: bool = False) -> RunningNode:
        actor = Registry(tmp_path / "registry", patients, refuses_unknown=refuses_unknown)
        node = RunningNode(registry_node("registry", actor).handle)
        stack.callback(node.close)
        return node

    return start


@pytest.fixture
def repository(stack: ExitStack, tmp_path: Path) -> Start:
    def start(registry_url: str) -> RunningNode:
        node = RunningNode(repository_node("repository", Repository(tmp_path / "repository", registry_url)).handle)
        stack.callback(node.close)
        return node

    return start


@pytest.fixture
def client(registry: Start, repository: Start) -> XdsClient:
    url = registry(PATIENT).url
    return XdsClient(url, repository(url).url)


def post(url: str, body: bytes, kind: str = "application/soap+xml; charset=UTF-8") -> tuple[int, str, bytes]:
    request = urllib.request.Request(url, body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["content-type"], answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["content-type"], error.read()


@pytest.mark.parametrize("content", [b"", b"a report", AWKWARD], ids=["empty", "short", "like a multipart"])
def test_a_document_comes_back_as_it_was_provided(client: XdsClient, content: bytes) -> None:
    unique_id = client.provide_and_register(content, PATIENT)
    (found,) = client.find(PATIENT)
    assert found == Found(unique_id, REPOSITORY_ID, hash_of(content), len(content))
    assert client.get(unique_id) == found
    assert client.retrieve(found) == content


def test_another_node_with_the_same_store_has_what_the_first_one_took(registry: Start, repository: Start) -> None:
    first, second = registry().url, registry().url
    taker = XdsClient(first, repository(first).url)
    asked = XdsClient(second, repository(second).url)
    unique_id = taker.provide_and_register(b"shared", PATIENT)
    found = asked.get(unique_id)
    assert found is not None
    assert asked.retrieve(found) == b"shared"


def test_bytes_that_changed_on_their_way_are_noticed(client: XdsClient, tmp_path: Path) -> None:
    found = client.get(client.provide_and_register(b"a report", PATIENT))
    assert found is not None
    (kept,) = (tmp_path / "repository" / "documents").iterdir()
    kept.write_bytes(kept.read_bytes().replace(b"report", b"rep0rt"))
    with pytest.raises(PeerError, match="came back altered"):
        client.retrieve(found)


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(XdsError) as caught:
        call()
    return caught.value.code


def test_each_error_has_its_code(client: XdsClient) -> None:
    content = b"a report"
    assert code_of(lambda: client.retrieve(Found("1.2.3", REPOSITORY_ID, "", 0))) == "XDSDocumentUniqueIdError"
    assert code_of(lambda: client.retrieve(Found("1.2.3", "2.25.999", "", 0))) == "XDSUnknownRepositoryId"
    assert code_of(lambda: client.provide_and_register(content, "NOBODY")) == "XDSUnknownPatientId"
    assert code_of(lambda: client.provide_and_register(content, "")) == "XDSRegistryMetadataError"
    entry = document_entry("2.25.5", PATIENT, "text/plain", content)
    client.submit(content, entry, PATIENT, "2.25.6")
    assert code_of(lambda: client.submit(content, entry, PATIENT, "2.25.6")) == "XDSDuplicateUniqueIdInRegistry"
    wrong = document_entry("2.25.8", PATIENT, "text/plain", b"another report")
    assert code_of(lambda: client.submit(content, wrong, PATIENT, "2.25.9")) == "XDSRepositoryMetadataError"


def test_queries_for_unknown_patients_find_nothing_unless_the_registry_is_of_the_other_kind(registry: Start) -> None:
    url = registry(PATIENT).url
    assert XdsClient(url, url).find("NOBODY") == []
    other = registry(PATIENT, refuses_unknown=True).url
    assert code_of(lambda: XdsClient(other, other).find("NOBODY")) == "XDSUnknownPatientId"


def test_a_busy_node_says_so_inside_http_200(registry: Start, repository: Start) -> None:
    node = registry()
    keeper = repository(node.url)
    client = XdsClient(node.url, keeper.url)
    for one in (node, keeper):
        assert post(f"{one.url}busy?on=1", b"")[0] == 200
    assert code_of(lambda: client.find(PATIENT)) == "XDSRegistryBusy"
    assert code_of(lambda: client.retrieve(Found("1", REPOSITORY_ID, "", 0))) == "XDSRepositoryBusy"
    post(f"{keeper.url}busy?on=0", b"")
    assert code_of(lambda: client.provide_and_register(b"x", PATIENT)) == "XDSRegistryBusy", "as the registry said"
    assert post(node.url, soap.request("urn:ihe:iti:2007:RegistryStoredQuery", "", stored_query("1")))[0] == 200


def test_a_registry_that_is_gone_is_not_available(repository: Start) -> None:
    client = XdsClient("http://127.0.0.1:9/", repository("http://127.0.0.1:9/").url)
    assert code_of(lambda: client.provide_and_register(b"x", PATIENT)) == "XDSRegistryNotAvailable"


# A query as IHE ITI TF-2, 3.18.4.1.3, prints it: prefixes, namespaces and WS-Addressing of another writer than ours.
QUERY = f"""<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://www.w3.org/2005/08/addressing">
 <s:Header><a:Action s:mustUnderstand="1">urn:ihe:iti:2007:RegistryStoredQuery</a:Action>
 <a:MessageID>urn:uuid:0fbfdced-6c01-4d09-a110-2201afedaa02</a:MessageID>
 <a:ReplyTo><a:Address>http://www.w3.org/2005/08/addressing/anonymous</a:Address></a:ReplyTo></s:Header>
 <s:Body><query:AdhocQueryRequest xmlns:query="urn:oasis:names:tc:ebxml-regrep:xsd:query:3.0"
   xmlns="urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0">
  <query:ResponseOption returnComposedObjects="true" returnType="LeafClass"/>
  <AdhocQuery id="{FIND_DOCUMENTS}"><Slot name="$XDSDocumentEntryPatientId"><ValueList>
   <Value>'P1^^^&amp;2.25.7&amp;ISO'</Value></ValueList></Slot><Slot name="$XDSDocumentEntryStatus"><ValueList>
   <Value>('urn:oasis:names:tc:ebxml-regrep:StatusType:Approved')</Value></ValueList></Slot></AdhocQuery>
 </query:AdhocQueryRequest></s:Body></s:Envelope>""".encode()


def test_a_query_of_another_writer_is_answered_as_the_standard_has_it(client: XdsClient, registry: Start) -> None:
    unique_id = client.provide_and_register(b"x", PATIENT)
    status, kind, answer = post(registry(PATIENT).url, QUERY)
    assert (status, kind.split(";")[0]) == (200, "application/soap+xml")
    message = soap.read(answer)
    assert message.action == "urn:ihe:iti:2007:RegistryStoredQueryResponse"
    assert message.relates_to == "urn:uuid:0fbfdced-6c01-4d09-a110-2201afedaa02"
    assert message.body.get("status") == "urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:Success"
    assert unique_id.encode() in answer


def test_a_retrieval_in_simple_soap_is_answered_in_simple_soap(client: XdsClient, repository: Start) -> None:
    unique_id = client.provide_and_register(b"a report", PATIENT)
    asked = soap.parse_xml(
        b'<r:RetrieveDocumentSetRequest xmlns:r="urn:ihe:iti:xds-b:2007"><r:DocumentRequest><r:RepositoryUniqueId>'
        + REPOSITORY_ID.encode()
        + b"</r:RepositoryUniqueId><r:DocumentUniqueId>"
        + unique_id.encode()
        + b"</r:DocumentUniqueId></r:DocumentRequest></r:RetrieveDocumentSetRequest>"
    )
    url = repository("http://127.0.0.1:9/").url
    _, kind, answer = post(url, soap.request("urn:ihe:iti:2007:RetrieveDocumentSet", url, asked))
    assert not mtom.is_mtom(kind)
    assert base64.b64encode(b"a report") in answer


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>'
OUTSIDE = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'
DEEP = b"<x>" * 200 + b"</x>" * 200


@pytest.mark.parametrize("content", [BOMB, OUTSIDE, DEEP, b"<x>", b"", b"<x/>", QUERY.replace(b"StoredQuery", b"None")])
def test_what_is_no_request_gets_a_fault_and_400(registry: Start, content: bytes) -> None:
    status, kind, answer = post(registry().url, content)
    assert (status, kind) == (400, "application/soap+xml")
    assert b"root:" not in answer
    with pytest.raises(soap.SoapFaultError):
        soap.read(answer)


@pytest.mark.parametrize("harm", ["cut", "no boundary", "no root", "encoded", "no part"])
def test_a_multipart_that_is_broken_is_refused(repository: Start, harm: str) -> None:
    url = repository("http://127.0.0.1:9/").url
    envelope = soap.request("urn:ihe:iti:2007:RetrieveDocumentSet", url, stored_query("1"))
    kind, body = mtom.write(envelope, {"a@b": b"content"}, "x")
    match harm:
        case "cut":
            body = body[:-10]
        case "no boundary":
            kind = kind.replace("boundary", "bound")
        case "no root":
            kind = kind.replace("envelope@", "another@")
        case "encoded":
            body = body.replace(b"Encoding: binary", b"Encoding: base64")
        case "no part":
            body = b""
    assert post(url, body, kind)[0] == 400


def test_multipart_as_another_stack_writes_it_is_read() -> None:
    """Boundary without quotes, a preamble, headers in another order and case: as Axis2 and CXF send them."""
    body = (
        b"preamble\r\n--b:1 \r\ncontent-id: <root.message@cxf.apache.org>\r\n"
        b"Content-Transfer-Encoding: binary\r\n\r\n<x/>"
        b"\r\n--b:1\r\nContent-ID: <1@a>\r\n\r\n\x00\r\n\r\n--b:1--\r\nepilogue"
    )
    kind = 'multipart/related; type="application/xop+xml"; boundary="b:1"; start="<root.message@cxf.apache.org>"'
    assert mtom.read(kind, body) == mtom.Package(b"<x/>", {"1@a": b"\x00\r\n"})


def test_of_two_writers_of_one_id_one_is_first(tmp_path: Path) -> None:
    one, other = WriteOnce(tmp_path), WriteOnce(tmp_path)
    assert one.add("../1", b"first")
    assert not other.add("../1", b"second")
    assert other.get("../1") == b"first"
    assert [re.fullmatch("[0-9a-f]{64}", path.name) is not None for path in tmp_path.iterdir()] == [True]

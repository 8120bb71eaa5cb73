"""Routes: which pool has a request.  What real programs propose is tried in tests/system/test_real_requests.py."""

import struct
from collections.abc import Iterable

import pytest

from equipoise.engines.gateway.routing import NoRoute, Routes, words_of
from equipoise.plan.model import Route
from equipoise.proto.dicom.association import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
    AssociateRequest,
    PresentationContext,
    encode_request,
    parse_request,
)
from equipoise.proto.dicom.pdu import PduError
from tests.playbook.scene import SOURCE, route

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
WORKLIST, MPPS, COMMITMENT = "1.2.840.10008.5.1.4.31", "1.2.840.10008.3.1.2.3.3", "1.2.840.10008.1.20.1"
PRIVATE = "1.3.12.2.1107.5.9.1"
UIDS = {"store": CT, "query": FIND, "retrieve": MOVE, "worklist": WORKLIST, "mpps": MPPS, "commitment": COMMITMENT}
NODES = True


def request(*uids: str, roles: Iterable[tuple[str, int, int]] = (), called: str = "VIP") -> AssociateRequest:
    """Return what CT1 proposes; a role is SOP class, SCU, SCP."""
    contexts = [PresentationContext(2 * n + 1, uid, (IMPLICIT_VR_LITTLE_ENDIAN,)) for n, uid in enumerate(uids)]
    wire = bytearray(encode_request(called, "CT1", contexts))
    items = b"".join(role_item(*role) for role in roles)
    user = wire.rindex(bytes.fromhex("51 00 0004")) - 4  # item 0x50, in front of the maximum length
    struct.pack_into(">H", wire, user + 2, len(wire) - user - 4 + len(items))
    return parse_request(bytes(wire[6:]) + items)


def role_item(uid: str, scu: int, scp: int) -> bytes:
    """Return item 0x54: PS3.7 table D.3-9."""
    value = struct.pack(">H", len(uid)) + uid.encode() + bytes([scu, scp])
    return struct.pack(">BxH", 0x54, len(value)) + value


def asking(words: str) -> AssociateRequest:
    return request(*(UIDS[word] for word in words.split()))


def pool(routes: list[Route], asked: AssociateRequest, *, nodes: bool = NODES, source: str = SOURCE) -> str | None:
    """Return the pool that has the request, None where none has."""
    answer = Routes.of("front", routes, has_nodes=nodes).pool_for(asked, source)
    return None if isinstance(answer, NoRoute) else answer


def why(routes: list[Route], asked: AssociateRequest, *, nodes: bool = NODES) -> str:
    answer = Routes.of("front", routes, has_nodes=nodes).pool_for(asked, SOURCE)
    assert isinstance(answer, NoRoute)
    return answer.reason


# What is asked for


@pytest.mark.parametrize(
    ("uids", "words"),
    [
        ((CT, MR), {"store"}),
        ((FIND,), {"query"}),
        ((FIND, MOVE), {"query", "retrieve"}),
        ((VERIFICATION,), set()),
        ((VERIFICATION, WORKLIST, MPPS), {"worklist", "mpps"}),
        ((PRIVATE, CT), {"store"}),
        ((PRIVATE,), set()),
        ((CT, COMMITMENT), {"store", "commitment"}),
        ((CT + "\0",), {"store"}),  # some devices pad UIDs to even lengths, as in data sets
    ],
)
def test_contexts_need_the_words_of_all_their_abstract_syntaxes(uids: tuple[str, ...], words: set[str]) -> None:
    assert words_of(request(*uids).proposal) == words


@pytest.mark.parametrize(
    ("uids", "role", "words"),
    [
        ((GET, CT), (CT, 0, 1), {"retrieve"}),
        ((GET, CT), (CT, 1, 1), {"retrieve"}),  # what comes back, by a requestor that offers both to be sure
        ((GET, CT), (CT, 1, 0), {"retrieve", "store"}),
        ((GET, CT), (MR, 0, 1), {"retrieve", "store"}),  # a role for something else
        ((GET, CT, MR), (CT, 0, 1), {"retrieve", "store"}),
        ((MOVE, CT), (CT, 1, 1), {"retrieve", "store"}),  # C-MOVE sends over another association
        ((CT,), (CT, 1, 1), {"store"}),
        ((CT,), (CT, 0, 1), {"retrieve"}),
        ((CT,), (CT, 0, 0), {"store"}),
        ((COMMITMENT,), (COMMITMENT, 0, 1), {"commitment"}),  # an archive that brings its N-EVENT-REPORT
    ],
)
def test_objects_that_come_back_are_retrieved_not_stored(
    uids: tuple[str, ...], role: tuple[str, int, int], words: set[str]
) -> None:
    assert words_of(request(*uids, roles=[role]).proposal) == words


def test_a_role_selection_that_overruns_is_malformed() -> None:
    item = role_item(CT, 0, 1)
    asked = request(CT, roles=[(CT, 0, 1)])
    broken = parse_request(asked.body.replace(item, item[:4] + b"\xff\xff" + item[6:]))
    with pytest.raises(PduError, match="role selection of 29 bytes, its SOP class alone has 65535"):
        pool([route("pacs", service="store")], broken)
    assert pool([route("pacs")], broken) == "pacs", "what is not looked at is the node's to judge"


# Conditions


@pytest.mark.parametrize(
    ("conditions", "holds"),
    [
        ({"called_ae": "VIP"}, True),
        ({"called_ae": ("X", "V*")}, True),
        ({"called_ae": "CT1"}, False),
        ({"calling_ae": "CT?"}, True),
        ({"calling_ae": "VIP"}, False),
        ({"source": "192.0.2.0/24"}, True),
        ({"source": ("2001:db8::/32", "198.51.100.1")}, False),
        ({"service": "store"}, True),
        ({"service": ("query", "store")}, True),
        ({"service": "query"}, False),
        ({"called_ae": "VIP", "calling_ae": "CT1", "source": SOURCE, "service": "store"}, True),
        ({"called_ae": "VIP", "calling_ae": "MR1"}, False),
        ({"called_ae": "VIP", "service": "query"}, False),
    ],
)
def test_a_route_takes_what_meets_all_its_conditions(conditions: dict[str, str], holds: bool) -> None:
    assert pool([route("pacs", **conditions)], request(CT)) == ("pacs" if holds else "front")


def test_the_first_route_that_takes_a_request_has_it() -> None:
    routes = [route("a", called_ae="X"), route("b", calling_ae="CT1"), route("c", called_ae="VIP")]
    assert pool(routes, request(CT)) == "b"
    assert pool([route("a", service="store"), route("b", service=("query", "store"))], request(CT)) == "a"


def test_without_routes_all_stays() -> None:
    assert pool([], asking("store query worklist")) == "front"


# Pools that take all of it


BY_SERVICE = [
    route("mwl", service=("worklist", "mpps")),
    route("archive", service=("store", "commitment")),
    route("archive", service="query"),
]


@pytest.mark.parametrize(
    ("words", "with_nodes", "without"),
    [
        ("worklist mpps", "mwl", "mwl"),
        ("worklist", "mwl", "mwl"),
        ("store", "archive", "archive"),
        ("store query commitment", "archive", "archive"),  # two routes, one pool
        ("retrieve", "front", None),
        ("query retrieve", None, None),
        ("store worklist", None, None),
        ("store retrieve worklist", None, None),
    ],
)
def test_a_pool_takes_what_its_routes_name_together(words: str, with_nodes: str | None, without: str | None) -> None:
    assert pool(BY_SERVICE, asking(words)) == with_nodes
    assert pool(BY_SERVICE, asking(words), nodes=False) == without


def test_the_words_of_a_route_count_only_where_its_other_conditions_hold() -> None:
    routes = [route("a", service="store"), route("a", service="query", calling_ae="MR*")]
    assert pool(routes, asking("store query")) is None
    assert pool(routes, asking("query")) == "front"


def test_the_own_pool_has_what_no_route_names_and_what_routes_to_it_name() -> None:
    routes = [route("front", service="store", calling_ae="CT1"), route("archive", service="store")]
    assert pool(routes, asking("store retrieve")) == "front"
    assert pool(routes[1:], asking("store retrieve")) is None
    assert pool([route("front", service="store"), route("mwl", service="worklist")], asking("store mpps")) == "front"


def test_a_route_without_service_takes_whatever_comes_to_it() -> None:
    routes = [route("mwl", service="worklist"), route("all", called_ae="V*"), route("archive", service="query")]
    assert pool(routes, asking("worklist")) == "mwl"
    assert pool(routes, asking("worklist store")) == "all"
    assert pool(routes, asking("query")) == "all", "what stands behind it is not reached"
    assert (
        pool(
            [route("mwl", service="worklist"), route("archive", service="query"), route("mwl")],
            asking("worklist query"),
        )
        == "mwl"
    )


def test_a_later_route_is_not_reached_through_an_earlier_one_to_the_same_pool() -> None:
    routes = [route("a", service="store"), route("b", service="query"), route("a", service="query")]
    assert pool(routes, asking("query")) == "b"
    assert pool(routes, asking("store query")) == "a"


@pytest.mark.parametrize("uid", [VERIFICATION, PRIVATE, "1.2.840.10008.5.1.1.9"])
def test_what_no_word_is_for_goes_along_and_alone_it_stays(uid: str) -> None:
    assert pool(BY_SERVICE, request(uid, WORKLIST)) == "mwl"
    assert pool(BY_SERVICE, request(uid)) == "front"
    assert pool(BY_SERVICE, request(uid), nodes=False) == "mwl", "a C-ECHO through a pure switch"
    assert pool([*BY_SERVICE, route("rest")], request(uid)) == "rest"
    assert pool([route("mwl", service="worklist", called_ae="WL")], request(uid), nodes=False) is None


# Reasons


def test_the_reason_says_where_each_part_would_go_and_what_to_do() -> None:
    said = why(BY_SERVICE, asking("store worklist retrieve"))
    assert "ask for retrieve (front), store (archive), worklist (mwl), and no pool takes all of it" in said
    assert "a route for calling AE 'CT1' and without service above them" in said
    assert "mpps (mwl), retrieve (no pool)" in why(BY_SERVICE, asking("retrieve mpps"), nodes=False)


def test_the_reason_says_what_was_looked_at_where_no_route_takes_anything() -> None:
    said = why([route("a", called_ae="X")], asking("store query"), nodes=False)
    assert "called AE 'VIP', calling AE 'CT1', source 192.0.2.1, service query, store, and front has no nodes" in said
    assert "service none that a route can name" in why([route("a", called_ae="X")], request(PRIVATE), nodes=False)


def test_a_proposal_of_the_largest_size_is_read_too() -> None:
    syntaxes = tuple(f"1.2.840.10008.1.2.4.{number}" for number in range(50))
    contexts = [PresentationContext(2 * n + 1, f"{CT}.{n}", syntaxes) for n in range(128)]
    asked = parse_request(encode_request("VIP", "CT1", contexts)[6:])
    assert len(asked.proposal) > 1 << 17
    assert words_of(asked.proposal) == {"store"}

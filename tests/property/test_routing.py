"""Whatever the routes: a pool that is chosen takes all that is asked for, and a request that is refused fits none."""

from hypothesis import given
from hypothesis import strategies as st

from equipoise.config.dicom import SERVICE_WORDS
from equipoise.engines.gateway.routing import NoRoute, Routes
from equipoise.plan.model import Route
from equipoise.proto.dicom.association import VERIFICATION
from tests.playbook.scene import SOURCE, route
from tests.unit.engines.test_routing import PRIVATE, UIDS, request

SOME_WORDS = st.lists(st.sampled_from(SERVICE_WORDS), unique=True, max_size=3).map(tuple)
ROUTES = st.lists(
    st.builds(
        lambda to, called, calling, words, source: route(
            to, called_ae=called, calling_ae=calling, service=words, source=source
        ),
        st.sampled_from(["a", "b", "front"]),
        st.sampled_from([(), ("VIP",), ("X",)]),
        st.sampled_from([(), (), ("CT*",), ("MR*",)]),
        SOME_WORDS,
        st.sampled_from([(), (), ("192.0.2.0/24",), ("198.51.100.0/24",)]),
    ),
    max_size=6,
)
ASKED = st.lists(st.sampled_from(SERVICE_WORDS), unique=True, min_size=1, max_size=4)


def holds(one: Route) -> bool:
    """Say it again, by enumeration: CT1 calls VIP from 192.0.2.1."""
    return (
        one.called_ae != ("X",) and one.calling_ae != ("MR*",) and one.source != ("198.51.100.0/24",)
    )  # the only ones drawn that do not fit


def holding(routes: list[Route]) -> list[Route]:
    """Return those that hold, up to the first that takes all."""
    found = [one for one in routes if holds(one)]
    ends = [place for place, one in enumerate(found) if not one.service]
    return found[: ends[0] + 1] if ends else found


def takes(pool: str, word: str, routes: list[Route], *, nodes: bool) -> bool:
    held = holding(routes)
    if any(one.to == pool and (word in one.service or not one.service) for one in held):
        return True
    return pool == "front" and nodes and not any(word in one.service or not one.service for one in held)


def choose(routes: list[Route], *uids: str, nodes: bool) -> str | NoRoute:
    return Routes.of("front", routes, has_nodes=nodes).pool_for(request(*uids), SOURCE)


@given(ROUTES, ASKED, st.booleans())
def test_a_chosen_pool_takes_every_word_and_otherwise_no_pool_does(
    routes: list[Route], words: list[str], nodes: bool
) -> None:
    answer = choose(routes, *(UIDS[word] for word in words), nodes=nodes)
    able = [pool for pool in ("a", "b", "front") if all(takes(pool, word, routes, nodes=nodes) for word in words)]
    assert (not able) if isinstance(answer, NoRoute) else answer in able


@given(ROUTES, st.sampled_from(SERVICE_WORDS), st.booleans())
def test_a_single_word_goes_to_the_first_route_that_names_it(routes: list[Route], word: str, nodes: bool) -> None:
    first = next((one.to for one in holding(routes) if not one.service or word in one.service), None)
    answer = choose(routes, UIDS[word], nodes=nodes)
    assert (None if isinstance(answer, NoRoute) else answer) == (first or ("front" if nodes else None))


@given(ROUTES, ASKED, st.booleans(), st.sampled_from([VERIFICATION, PRIVATE]))
def test_what_no_word_is_for_changes_nothing(routes: list[Route], words: list[str], nodes: bool, more: str) -> None:
    uids = [UIDS[word] for word in words]
    assert choose(routes, *uids, nodes=nodes) == choose(routes, *uids, more, nodes=nodes)


@given(ROUTES, st.lists(st.sampled_from(SERVICE_WORDS), unique=True), st.booleans())
def test_behind_a_route_without_conditions_nothing_is_refused(
    routes: list[Route], words: list[str], nodes: bool
) -> None:
    uids = [UIDS[word] for word in words] or [VERIFICATION]
    assert not isinstance(choose([*routes, route("rest")], *uids, nodes=nodes), NoRoute)

"""Content switching: which service's pool has an association, decided from its A-ASSOCIATE-RQ and source alone.

Routes are looked at in their order, leaving out those whose `called_ae`, `calling_ae` or `from` does not hold; the list
ends with the first that names no `service`: it takes whatever comes to it.  An association cannot be divided, and what
it may be used for shows in all its presentation contexts together: a pool has it only when the routes to that pool
name every word that the contexts need.  The service's own pool has the words that no route names.  Routes do not lead
on.
Source: DICOM PS3.7 annex D.3.3.4 (role selection); docs/explanation/routes.md.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from equipoise.config.dicom import SERVICE_WORDS
from equipoise.engines.gateway.conditions import Network, fits, is_within, networks_of
from equipoise.plan import model
from equipoise.proto.dicom.association import AssociateRequest, RoleSelection, contexts_of, role_selections_of
from equipoise.proto.dicom.sop_classes import is_get, service_of

_ALL_WORDS = frozenset(SERVICE_WORDS)
# Reading 128 contexts takes half a millisecond, and devices propose the same each time.  At most 128 of these are kept.
_MOST_BYTES_KEPT = 32 * 1024


@dataclass(frozen=True, slots=True)
class NoRoute:
    """No pool takes the request, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Route:
    """One route; `words` are all of them where it names no service."""

    called_ae: tuple[str, ...]
    calling_ae: tuple[str, ...]
    networks: tuple[Network, ...]
    words: frozenset[str]
    takes_all: bool
    to: str

    def holds(self, request: AssociateRequest, source_ip: str) -> bool:
        """Return whether everything but the service fits."""
        return (
            fits(request.called_ae, self.called_ae)
            and fits(request.calling_ae, self.calling_ae)
            and is_within(source_ip, self.networks)
        )


@dataclass(frozen=True, slots=True)
class Routes:
    """The routes of one service."""

    service: str
    has_nodes: bool
    routes: tuple[_Route, ...]

    @classmethod
    def of(cls, service: str, routes: Sequence[model.Route], *, has_nodes: bool) -> "Routes":
        """Return the routes of a service, which may have no nodes of its own."""
        return cls(service, has_nodes, tuple(_compiled(route) for route in routes))

    def pool_for(self, request: AssociateRequest, source_ip: str) -> str | NoRoute:
        """Return the service whose pool has this request.  Raises: PduError where its role selections are malformed."""
        held = self._holding(request, source_ip)
        if held and held[0].takes_all:
            return held[0].to
        if not held and self.has_nodes:
            return self.service
        words = words_of(request.proposal)
        return self._choose(held, words) or NoRoute(self._why_none(held, words, request, source_ip))

    def _holding(self, request: AssociateRequest, source_ip: str) -> list[_Route]:
        """Return the routes whose other conditions hold, up to the first that takes all."""
        held = []
        for route in self.routes:
            if route.holds(request, source_ip):
                held.append(route)
                if route.takes_all:
                    break
        return held

    def _choose(self, held: list[_Route], words: frozenset[str]) -> str | None:
        takes: dict[str, frozenset[str]] = defaultdict(frozenset)
        if self.has_nodes:
            takes[self.service] = _ALL_WORDS.difference(*(route.words for route in held))
        for route in held:
            takes[route.to] |= route.words
        for route in held:
            if route.takes_all or (not words.isdisjoint(route.words) and words <= takes[route.to]):
                return route.to
        if self.has_nodes and words <= takes[self.service]:
            return self.service
        return held[0].to if held and not words else None  # a C-ECHO through a pure switch

    def _why_none(self, held: list[_Route], words: frozenset[str], request: AssociateRequest, source_ip: str) -> str:
        places = {word: self._place(held, word) for word in sorted(words)}
        if not any(places.values()):
            service = ", ".join(places) or "none that a route can name"
            return (
                f"no route takes called AE {request.called_ae!r}, calling AE {request.calling_ae!r}, source "
                f"{source_ip}, service {service}, and {self.service} has no nodes of its own; add a route, or nodes"
            )
        said = ", ".join(f"{word} ({place or 'no pool'})" for word, place in places.items())
        return (
            f"the contexts ask for {said}, and no pool takes all of it; let the routes of one pool name all these, or "
            f"put a route for calling AE {request.calling_ae!r} and without service above them"
        )

    def _place(self, held: list[_Route], word: str) -> str | None:
        """Return the pool that a request for this word alone would get."""
        own = self.service if self.has_nodes else None
        return next((route.to for route in held if word in route.words), own)


def words_of(proposal: bytes) -> frozenset[str]:
    """Return what is asked for by these items, see `AssociateRequest.proposal`.  Raises: PduError.

    Verification, and abstract syntaxes that no word is for, private ones above all, need nothing.
    """
    return _kept_words(proposal) if len(proposal) <= _MOST_BYTES_KEPT else _read_words(proposal)


@lru_cache(maxsize=128)
def _kept_words(proposal: bytes) -> frozenset[str]:
    return _read_words(proposal)


def _read_words(proposal: bytes) -> frozenset[str]:
    syntaxes = {context.abstract_syntax for context in contexts_of(proposal)}
    roles = {role.sop_class: role for role in role_selections_of(proposal)}
    with_get = any(is_get(uid) for uid in syntaxes)
    words = {_word(uid, roles.get(uid), with_get=with_get) for uid in syntaxes}
    return frozenset(word for word in words if word is not None)


def _word(uid: str, role: RoleSelection | None, *, with_get: bool) -> str | None:
    """Return the word of one abstract syntax.

    Objects that a C-GET asks for come back as C-STORE requests on the same association, so their contexts are proposed
    with the requestor as SCP, by some beside SCU.
    """
    word = service_of(uid)
    if word == "store" and role is not None and role.scp and (with_get or not role.scu):
        return "retrieve"
    return word


def _compiled(route: model.Route) -> _Route:
    return _Route(
        called_ae=route.called_ae,
        calling_ae=route.calling_ae,
        networks=networks_of(route.source),
        words=frozenset(route.service) or _ALL_WORDS,
        takes_all=not route.service,
        to=route.to,
    )

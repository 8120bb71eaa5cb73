"""The files of TLS that a site names: whether they can be used, what they held, and when their certificates end.

Leaves out the certificates of peers, which show themselves in a handshake.
"""

import asyncio
import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from equipoise.base.certificates import read_file
from equipoise.base.clock import rfc3339
from equipoise.base.errors import EquipoiseError, Problem
from equipoise.base.tls import Certificate, CertificateFileError, client_context, read_certificates, server_context
from equipoise.config import models
from equipoise.config.loading import Document
from equipoise.config.tree import Path
from equipoise.plan.compile import files_of
from equipoise.plan.model import Plan, Service
from equipoise.state.events import EXPIRING_DAYS, CertificateExpired, CertificateExpiring, Event

_DAY_S = 86400.0


def fingerprints(paths: Iterable[str]) -> dict[str, str]:
    """Return what stands for the content of each file; nothing where it cannot be read."""
    return {path: _fingerprint(path) for path in paths}


def problems(document: Document) -> list[Problem]:
    """Return what is wrong with the files that services name, each at its place in the document."""
    return [each.problem for each in spoiled(document)]


@dataclass(frozen=True, slots=True)
class Spoiled:
    """One setting whose file cannot be used, and why.

    Attributes:
        service: Whose it is.
        problem: At its place in the document.
        paths: All files that are used together with it, itself among them.
    """

    service: str
    problem: Problem
    paths: tuple[str, ...]


def spoiled(document: Document) -> list[Spoiled]:
    """Return what is wrong with the files that services name."""
    return [
        Spoiled(name, document.problem(str(error), "services", name, *path), files_of(getattr(service, str(path[0]))))
        for name, service in document.site.services.items()
        for path, error in _unusable(service)
    ]


def ended(document: Document, changed: Collection[str], now_s: float) -> list[Spoiled]:
    """Return which files that have changed hold a certificate of ours that has ended: the old one may be good still."""
    found = []
    for name, service in document.site.services.items():
        for path, cert, paths in _own_certificates(service):
            if cert not in changed:
                continue
            with suppress(CertificateFileError):  # that is `spoiled`
                ends_s = read_certificates(cert)[0].not_after_s
                if ends_s <= now_s:
                    message = f"the certificate in {cert} ended on {rfc3339(ends_s)}; have another one issued"
                    found.append(Spoiled(name, document.problem(message, "services", name, *path, "cert"), paths))
    return found


def _own_certificates(service: models.Service) -> Iterator[tuple[Path, str, tuple[str, ...]]]:
    """Yield the keys that lead to each certificate of ours, its file, and all files that are used together with it."""
    for key, tls in (("tls", service.tls), ("node_tls", service.node_tls)):
        if tls is not None and tls.cert is not None:
            yield (key,), tls.cert, files_of(tls)
    if service.tls is not None:
        for number, each in enumerate(service.tls.more_certificates):
            yield ("tls", "more_certificates", number), each.cert, files_of(service.tls)


@dataclass(frozen=True, slots=True)
class CertificateState:
    """How it stands with one file of certificates.

    Attributes:
        key: `tls.cert`, `tls.client_ca`, `node_tls.ca` or `node_tls.cert`.
        names: Of the certificate that ends first: its host names and addresses, or its subject.
        not_after_s: When that one ends, in seconds since 1970; None where the file cannot be read.
        days_left: Whole days until then; negative once it has ended.
        problem: Why the file cannot be read.
    """

    service: str
    key: str
    path: str
    names: tuple[str, ...] = ()
    not_after_s: float | None = None
    days_left: int | None = None
    problem: str | None = None

    def status(self) -> dict[str, Any]:
        """Return what the status shows."""
        shown = {
            "path": self.path,
            "names": list(self.names),
            "not_after": None if self.not_after_s is None else rfc3339(self.not_after_s),
            "days_left": self.days_left,
        }
        return shown if self.problem is None else {**shown, "problem": self.problem}


def watch(plan: Plan, now_s: float) -> list[CertificateState]:
    """Return how it stands with every file of certificates that the plan names, as the files are now."""
    return [
        _state(service.name, key, path, now_s) for service in plan.services for key, path in _certificate_files(service)
    ]


class Expiries:
    """Which certificates are to be spoken of now: from 30 days before their end on, and then once a day."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str, str, float], tuple[bool, float]] = {}

    def due(self, states: Sequence[CertificateState], now_s: float) -> list[CertificateExpiring | CertificateExpired]:
        """Return the events to tell now; forgets certificates that are not among `states` any more."""
        told, events = {}, []
        for state in states:
            if state.not_after_s is None or state.days_left is None or state.days_left >= EXPIRING_DAYS:
                continue
            identity = (state.service, state.key, state.path, state.not_after_s)
            has_ended = state.not_after_s <= now_s
            before = self._told.get(identity)
            if before is not None and before[0] == has_ended and 0 <= now_s - before[1] < _DAY_S:
                told[identity] = before
                continue
            told[identity] = (has_ended, now_s)
            events.append(_event(state, state.not_after_s, state.days_left, has_ended=has_ended))
        self._told = told
        return events


class CertificateWatch:
    """How it stands with the certificates of a plan, as it was found last."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._expiries = Expiries()
        self.states: list[CertificateState] = []

    async def look(self, plan: Plan, now_s: float) -> None:
        """See how long they are good for, and speak of those that end soon."""
        self.states = await asyncio.to_thread(watch, plan, now_s)
        for event in self._expiries.due(self.states, now_s):
            self._emit(event)


def _fingerprint(path: str) -> str:
    try:
        return hashlib.sha256(read_file(path)).hexdigest()
    except OSError:
        return ""


def _unusable(service: models.Service) -> Iterator[tuple[Path, EquipoiseError]]:
    """Yield the keys that lead to each setting whose file cannot be used, and why."""
    for path, build in _contexts(service):
        try:
            build()
        except CertificateFileError as error:
            setting = "client_ca" if (path, error.setting) == (("tls",), "ca") else error.setting
            yield (*path, setting), error


def _contexts(service: models.Service) -> Iterator[tuple[Path, Callable[[], object]]]:
    """Yield what builds a context, one for each certificate of ours and one for authorities, so that all are seen."""
    if (tls := service.tls) is not None:
        own = partial(server_context, client_ca=None, min_version=tls.min_version)
        yield ("tls",), partial(own, cert=tls.cert, key=tls.key)
        for number, each in enumerate(tls.more_certificates):
            yield ("tls", "more_certificates", number), partial(own, cert=each.cert, key=each.key)
        yield ("tls",), partial(_authorities, tls.client_ca)
    if (to_nodes := service.node_tls) is not None:
        nobody = partial(client_context, ca=None, verify="none", min_version=to_nodes.min_version)
        yield ("node_tls",), partial(nobody, cert=to_nodes.cert, key=to_nodes.key)
        yield ("node_tls",), partial(_authorities, to_nodes.ca)


def _authorities(path: str | None) -> None:
    client_context(ca=path, verify="none", cert=None, key=None, min_version="1.2")


def _certificate_files(service: Service) -> Iterator[tuple[str, str]]:
    named: list[tuple[str, str | None]] = []
    if service.tls is not None:
        named += [("tls.cert", service.tls.cert), ("tls.client_ca", service.tls.client_ca)]
        more = enumerate(service.tls.more_certificates)
        named += [(f"tls.more_certificates.{number}.cert", each.cert) for number, each in more]
    if service.node_tls is not None:
        named += [("node_tls.ca", service.node_tls.ca), ("node_tls.cert", service.node_tls.cert)]
    return ((key, path) for key, path in named if path is not None)


def _state(service: str, key: str, path: str, now_s: float) -> CertificateState:
    try:
        found = read_certificates(path)
    except EquipoiseError as error:
        return CertificateState(service, key, path, problem=str(error))
    first = _first_to_end(found, now_s, is_chain=key.endswith(".cert"))
    return CertificateState(
        service=service,
        key=key,
        path=path,
        names=first.names or (first.subject,),
        not_after_s=first.not_after_s,
        days_left=math.floor((first.not_after_s - now_s) / _DAY_S),
    )


def _first_to_end(found: Sequence[Certificate], now_s: float, *, is_chain: bool) -> Certificate:
    """Return the certificate to watch: a chain ends with its first link.

    Of authorities one that has ended stays in the file after its successor is there, and then is of no interest.
    """
    still_valid = [each for each in found if each.not_after_s > now_s]
    if not is_chain and still_valid:
        found = still_valid
    return min(found, key=lambda each: each.not_after_s)


def _event(
    state: CertificateState, not_after_s: float, days_left: int, *, has_ended: bool
) -> CertificateExpiring | CertificateExpired:
    kind = CertificateExpired if has_ended else CertificateExpiring
    return kind(
        service=state.service,
        file=state.key,
        path=state.path,
        names=state.names,
        not_after=rfc3339(not_after_s),
        days_left=days_left,
    )

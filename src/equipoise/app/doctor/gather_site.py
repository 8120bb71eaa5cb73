"""Look at what a site asks of this machine: sockets, addresses, names.  Opens each socket for a moment, keeps none."""

import os
import socket
from collections.abc import Iterator
from functools import partial

from equipoise.app.doctor.deadline import Answer, answers_within
from equipoise.app.doctor.facts import Haproxy, Listener, Lookup, Running, Source, Surroundings
from equipoise.base.clock import Clock
from equipoise.base.errors import EngineError
from equipoise.config.fields import numeric, split_port
from equipoise.engines.haproxy.program import NoProgramError, find_program
from equipoise.engines.sockets import check_listener, is_local
from equipoise.plan.model import Endpoint, Plan

LOOKUPS_S = 2.0  # a resolver that does not answer takes half a minute for each name


def gather_site(plan: Plan, running: Running | None, clock: Clock, *, orphaned: bool) -> Surroundings:
    """Return what this site finds here; `orphaned` engines hold its sockets without a supervisor."""
    return Surroundings(
        listeners=tuple(_listener(endpoint, running, orphaned=orphaned) for endpoint in _endpoints(plan)),
        sources=tuple(Source(address, where, is_local(address)) for where, address in _sources(plan)),
        lookups=look_up(host_names(plan), clock),
        haproxy=_haproxy() if any(service.engine == "haproxy" for service in plan.services) else None,
    )


def _haproxy() -> Haproxy:
    try:
        program = find_program(os.environ)
    except NoProgramError as error:
        return Haproxy(missing=error.seen, advice=error.advice)
    return Haproxy(program.path, program.version)


def _endpoints(plan: Plan) -> list[Endpoint]:
    """Return what is listened on: the kernel itself takes what is for services of layer 4."""
    carried = (service for service in plan.services if service.engine != "layer4")
    return sorted({endpoint for service in carried for endpoint in service.listen})


def _listener(endpoint: Endpoint, running: Running | None, *, orphaned: bool) -> Listener:
    local = is_local(endpoint.host)
    if running is not None and str(endpoint) in running.listen:
        return Listener(endpoint, held=True, local=local, refused=None)
    try:
        check_listener(endpoint)
    except EngineError as error:
        return Listener(endpoint, held=orphaned, local=local, refused=None if orphaned else str(error))
    return Listener(endpoint, held=False, local=local, refused=None)


def _sources(plan: Plan) -> Iterator[tuple[str, str]]:
    for service in plan.services:
        if service.source_address is not None:
            yield f"services.{service.name}.source_address", service.source_address
        if service.health.source_address is not None:
            yield f"services.{service.name}.health.source_address", service.health.source_address


def host_names(plan: Plan) -> list[str]:
    """Return the host names of all nodes."""
    hosts = {split_port(node.address)[0] for service in plan.services for node in service.nodes}
    return sorted(host for host in hosts if numeric(host) is None)


def look_up(names: list[str], clock: Clock, deadline_s: float = LOOKUPS_S) -> tuple[Lookup, ...]:
    """Return what the system's resolver says of these names, as far as it says it in time."""
    answers = answers_within(deadline_s, {name: partial(_addresses, name) for name in names}, clock)
    return tuple(_lookup(name, answers.get(name), deadline_s) for name in names)


def _lookup(name: str, answer: Answer[tuple[tuple[str, ...], str]] | None, deadline_s: float) -> Lookup:
    if answer is None:
        return Lookup(name, (), None, f"no answer within {deadline_s:g} s")
    addresses, reason = answer.value
    return Lookup(name, addresses, answer.took_s, reason)


def _addresses(name: str) -> tuple[tuple[str, ...], str]:
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return (), error.strerror or str(error)
    except UnicodeError:
        return (), "not a valid name"
    return tuple(dict.fromkeys(str(answer[4][0]) for answer in answers)), ""

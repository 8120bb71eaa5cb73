"""What one service's TLS is agreed by, made of its files: once for clients, once for nodes.

Files are read when a task is taken, so that connections made from then on have a renewed certificate and those that are
open keep theirs.  The supervisor has tried the files before; where one is spoiled since, what was there before stays as
long as the settings do.  Under new settings it would be too weak: TLS that cannot be had as it is asked for is none.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace

from equipoise.base.errors import EquipoiseError
from equipoise.base.tls import client_context, server_context
from equipoise.engines.gateway.messages import ServiceTask
from equipoise.plan.model import NodeTls, Tls


@dataclass(frozen=True, slots=True)
class Security:
    """The contexts of one service; None where it is plain, or where no file could be used: `problem` says why."""

    to_clients: ssl.SSLContext | None = None
    to_nodes: ssl.SSLContext | None = None
    problem: str | None = None


def secured(task: ServiceTask, before: Security, told: ServiceTask | None) -> Security:
    """Return a service's contexts, and in words what could not be made anew.

    Args:
        task: What the service is to be.
        before: What it has.
        told: What it was, or None; where its TLS stays the same, so do the contexts, unless there was a problem: then
            both are tried again.
    """
    to_clients, to_nodes, problems = before.to_clients, before.to_nodes, []
    if told is None or told.tls != task.tls or before.problem:
        kept = to_clients if told is not None and _only_renewed(told.tls, task.tls) else None
        to_clients, problem = _tried(_to_clients, task, kept, "its clients of TLS are turned away")
        problems.append(problem)
    if told is None or told.node_tls != task.node_tls or before.problem:
        kept = to_nodes if told is not None and _only_renewed(told.node_tls, task.node_tls) else None
        to_nodes, problem = _tried(_to_nodes, task, kept, "its nodes are not called")
        problems.append(problem)
    return Security(to_clients, to_nodes, "; ".join(filter(None, problems)) or None)


def _tried(
    make: Callable[[ServiceTask], ssl.SSLContext | None], task: ServiceTask, kept: ssl.SSLContext | None, without: str
) -> tuple[ssl.SSLContext | None, str | None]:
    """Return a context, or the one that is kept and why it could not be made; `without` says what follows from none."""
    try:
        return make(task), None
    except EquipoiseError as error:
        return kept, str(error) if kept else f"{error}; until then {without}"


def _only_renewed(told: Tls | NodeTls | None, now: Tls | NodeTls | None) -> bool:
    """Return whether the settings are the same, so that files alone have changed."""
    return told is not None and now is not None and replace(told, fingerprint="") == replace(now, fingerprint="")


def _to_clients(task: ServiceTask) -> ssl.SSLContext | None:
    tls = task.tls
    if tls is None:
        return None
    return server_context(cert=tls.cert, key=tls.key, client_ca=tls.client_ca, min_version=tls.min_version)


def _to_nodes(task: ServiceTask) -> ssl.SSLContext | None:
    tls = task.node_tls
    if tls is None:
        return None
    return client_context(ca=tls.ca, verify=tls.verify, cert=tls.cert, key=tls.key, min_version=tls.min_version)

"""How things stand, in the form that `status --json` prints: one function of what the supervisor knows.

Source: DESIGN, "Commands".
"""

import math
from collections.abc import Collection, Sequence
from typing import Any

from equipoise.app.certificates import CertificateState
from equipoise.app.nodes import Known, NodeBook
from equipoise.base.clock import rfc3339
from equipoise.engines.base import LATENCY_BOUNDS_MS, Messages, NodeCount, Observation
from equipoise.plan.model import Node, Plan, Service
from equipoise.plan.states import NodeState, NodeStates, node_key


def status_document(
    plan: Plan,
    nodes: NodeBook,
    observed: Observation,
    absent: Collection[str],
    certificates: Sequence[CertificateState] = (),
    *,
    standby: Collection[str] = frozenset(),
) -> dict[str, Any]:
    """Return the status of everything.

    Args:
        plan: What is in force.
        nodes: Verdicts, last checks and overrides.
        observed: The engines' counters.
        absent: Addresses that services listen on and that are not on this machine.
        certificates: How it stands with the files of TLS.
        standby: Absent addresses that the peer of a pair has, as it should be.
    """
    states = nodes.states()
    missing = frozenset(absent) - frozenset(standby)
    services = {service.name: _service(service, nodes, states, observed, missing) for service in plan.services}
    for service in plan.services:
        if there := sorted({endpoint.host for endpoint in service.listen if endpoint.host in standby}):
            services[service.name]["at_peer"] = there
        if service.routes:
            services[service.name] |= _routed(service, services)
        if files := {state.key: state.status() for state in certificates if state.service == service.name}:
            services[service.name]["tls"] = files
    return {"site": plan.site, "plan": plan.digest, "services": services}


def _routed(service: Service, services: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what routes add: where they lead, and for a service without nodes the state that follows from there."""
    targets = list(dict.fromkeys(route.to for route in service.routes))
    shown: dict[str, Any] = {"routes": targets}
    if service.nodes or services[service.name]["state"] == "waiting":
        return shown
    states = {name: services[name]["state"] for name in targets}
    troubled = [f"{name} is {state}" for name, state in states.items() if state != "up"]
    if not troubled:
        return shown | {"state": "up", "reason": ""}
    word = "down" if all(state == "down" for state in states.values()) else "degraded"
    return shown | {"state": word, "reason": f"its routes lead to: {', '.join(troubled)}"}


def _service(
    service: Service, nodes: NodeBook, states: NodeStates, observed: Observation, absent: Collection[str]
) -> dict[str, Any]:
    shown = {
        node.name: _node(
            node,
            states[node_key(service.name, node.name)],
            observed.nodes.get(node_key(service.name, node.name), NodeCount()),
            nodes.known(node_key(service.name, node.name)),
        )
        for node in service.nodes
    }
    usable = [name for name, node in shown.items() if node["state"] == "up" and node["weight"] > 0]
    down = [name for name, node in shown.items() if node["state"] == "down"]
    missing = sorted({endpoint.host for endpoint in service.listen if endpoint.host in absent})
    state, reason = _state(usable, down, missing)
    if (why := observed.unserved.get(service.name)) is not None:
        state, reason = "down", why
    elif (problem := observed.problems.get(service.name)) is not None:
        state, reason = ("degraded" if state == "up" else state), "; ".join(filter(None, (problem, reason)))
    return {
        "protocol": service.protocol,
        "mode": service.mode,
        "listen": [str(endpoint) for endpoint in service.listen],
        "state": state,
        **({"reason": reason} if reason else {}),
        "connections": observed.connections.get(service.name, 0),
        **_read(service, observed),
        "nodes": shown,
    }


def _read(service: Service, observed: Observation) -> dict[str, Any]:
    """Return what became of a service's messages, where somebody reads them: the kernel does not."""
    if (service.protocol, service.mode) != ("hl7", "l7_snat"):
        return {}
    messages = observed.messages.get(service.name, Messages())
    return {
        "messages": {
            "by_type": {kind: dict(sorted(answers.items())) for kind, answers in sorted(messages.by_type.items())},
            "in_flight": messages.in_flight,
            "held": messages.held,
            "resent": messages.resent,
            "receivers_closed": dict(sorted(messages.receivers_closed.items())),
            "latency_ms": _latency(messages),
        }
    }


def _latency(messages: Messages) -> dict[str, float | None]:
    count = sum(messages.latency_ms)
    return {
        "count": count,
        "mean": round(messages.latency_sum_ms / count, 3) if count else None,
        "p50": _within_ms(messages.latency_ms, 0.5),
        "p99": _within_ms(messages.latency_ms, 0.99),
    }


def _within_ms(counts: Sequence[int], share: float) -> float | None:
    """Return the bound within which this share was answered; None for nothing, and beyond the last bound."""
    wanted, seen = math.ceil(sum(counts) * share), 0
    for bound_ms, count in zip(LATENCY_BOUNDS_MS, counts, strict=False):  # the last class has no bound
        seen += count
        if seen and seen >= wanted:
            return bound_ms
    return None


def _state(usable: list[str], down: list[str], missing: list[str]) -> tuple[str, str]:
    if missing:
        return "waiting", f"{', '.join(missing)} is not an address of this machine (yet)"
    if not usable:
        return "down", "no node takes new work"
    if down:
        return "degraded", f"down: {', '.join(down)}"
    return "up", ""


def _node(node: Node, state: NodeState, count: NodeCount, known: Known | None) -> dict[str, Any]:
    is_refused = state.state == "up" and count.refused is not None  # both checks must agree
    return {
        "address": node.address,
        "state": "down" if is_refused else state.state,
        "weight": state.weight,
        "connections": count.connections,
        "bytes_in": count.bytes_in,
        "bytes_out": count.bytes_out,
        "rested": count.rested,
        "refused": count.refused,
        "check": _check(known),
    }


def _check(known: Known | None) -> dict[str, Any] | None:
    if known is None or known.outcome is None:
        return None
    return {
        "name": known.service.check,
        "ok": known.outcome.ok,
        "reason": known.outcome.reason,
        "at": rfc3339(known.outcome.at_wall_s),
        "took_ms": round(known.outcome.took_ms, 3),
    }

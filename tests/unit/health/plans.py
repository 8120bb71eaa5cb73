"""Services and nodes of a plan, with what matters to a check."""

from typing import Any

from equipoise.config.base import CheckParams
from equipoise.plan.model import (
    Dicom,
    Endpoint,
    Node,
    NodeTls,
    PassiveHealth,
    Persistence,
    ProxyProtocol,
    Service,
)


def service(check: str, params: CheckParams, **changed: Any) -> Service:
    values: dict[str, Any] = {
        "name": "ct",
        "protocol": "dicom",
        "mode": "l7_snat",
        "engine": "gateway",
        "listen": (Endpoint("10.0.0.100", 104),),
        "balance": "first_up",
        "persistence": Persistence("none", 1800, 32, 64),
        "health": params,
        "check": check,
        "nodes": (),
        "allow_from": (),
        "max_connections": None,
        "max_per_source": None,
        "queue_wait_s": 5,
        "source_address": None,
        "slow_start_s": 30,
        "passive_health": PassiveHealth(),
        "routes": (),
        "tls": None,
        "node_tls": None,
        "proxy_protocol": ProxyProtocol(),
        "dicom": Dicom((), (), None, 2, 20, 30, 43200, 120, 131072),
    }
    return Service(**{**values, **changed})


def node(address: str = "10.0.0.11:104", host: str | None = "10.0.0.11", port: int | None = 104) -> Node:
    return Node("a", address, host, port, 100, None, backup=False)


def node_tls(**changed: Any) -> NodeTls:
    values: dict[str, Any] = {
        "ca": None,
        "verify": "none",
        "server_name": None,
        "cert": None,
        "key": None,
        "min_version": "1.2",
        "fingerprint": "",
    }
    return NodeTls(**{**values, **changed})

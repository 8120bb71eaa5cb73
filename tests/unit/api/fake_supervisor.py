"""A supervisor without engines: it keeps a document, node overrides and events as the real one does.

Its documents are lines of `SERVICE/NODE ADDRESS`; one that says `broken` is a bad configuration, `unhappy` one that an
engine refuses, and a line less is what the guard holds back.
"""

import asyncio
import fnmatch
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any

from equipoise.base.errors import ConfigError, EngineError, EquipoiseError, Problem
from equipoise.plan.diff import Change, What
from tests.unit.api.fake_pair import FakePair

FIRST = "ct/a 10.0.0.11:104\nct/b 10.0.0.12:104\nmr/a 10.0.0.11:104\n"
AT = "2031-03-04T05:06:07.123Z"


@dataclass(frozen=True, slots=True)
class Preview:
    digest: str
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]
    revision: int | None = None
    peer_said: str | None = None


class FakeSupervisor:
    def __init__(self, document: str = FIRST) -> None:
        self.document = document
        self.holds: dict[str, str] = {}
        self.weights: dict[str, int] = {}
        self.down: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        self.gateway_pid = 1000
        self.bug: Exception | None = None
        self.followers: list[asyncio.Queue[dict[str, Any] | None]] = []
        self.pair = FakePair()
        self.applied: tuple[int, str] | None = None

    def identity(self) -> dict[str, Any]:
        return {"version": "0.1.0", "pid": 4711, "site": "general-hospital"}

    async def status(self) -> dict[str, Any]:
        if self.bug:
            raise self.bug
        services: dict[str, Any] = {}
        for key, address in _nodes(self.document).items():
            name, node = key.split("/")
            service = services.setdefault(name, _empty_service())
            service["nodes"][node] = self._node(key, address)
        for service in services.values():
            _judge(service)
        return {"site": "general-hospital", "plan": _digest(self.document), "services": services}

    def _node(self, key: str, address: str) -> dict[str, Any]:
        reason = self.down.get(key)
        check = {"name": "tcp", "ok": reason is None, "reason": reason or "accepted", "at": AT, "took_ms": 1.5}
        return {
            "address": address,
            "state": self.holds.get(key) or ("down" if reason else "up"),
            "weight": self.weights.get(key, 100),
            "connections": 1,
            "bytes_in": 1536,
            "bytes_out": 0,
            "check": check,
        }

    async def preview(self, document: str) -> Preview:
        if "broken" in document:
            raise ConfigError([Problem("in-force.yaml", 2, 5, "services.ct", "'broken' is no service; remove it")])
        old, new = _nodes(self.document), _nodes(document)
        changes = [Change(f"services.{key}", What.ADD, None, new[key]) for key in new.keys() - old.keys()]
        changes += [Change(f"services.{key}", What.REMOVE, old[key], None) for key in old.keys() - new.keys()]
        both = old.keys() & new.keys()
        changes += [Change(f"services.{key}", What.CHANGE, old[key], new[key]) for key in both if old[key] != new[key]]
        warnings = ("services.ct: one node alone",) if "lonely" in document else ()
        return Preview(_digest(document), tuple(sorted(changes, key=lambda change: change.path)), warnings)

    async def apply(self, document: str, *, force: bool) -> Preview:
        preview = await self.preview(document)
        if "unhappy" in document:
            raise EngineError(f"gateway refuses plan {preview.digest}: no memory")
        if not force and any(change.what is What.REMOVE for change in preview.changes):
            raise EquipoiseError("takes away too much at once; look at `plan`, then apply with --force")
        self.document = document
        self.emit("plan.applied", plan=preview.digest)
        return (
            preview if self.applied is None else replace(preview, revision=self.applied[0], peer_said=self.applied[1])
        )

    async def override(self, pattern: str, action: str, weight: int | None) -> list[str]:
        names = [key for key in _nodes(self.document) if fnmatch.fnmatchcase(key, pattern)]
        if not names:
            raise EquipoiseError(f"no node matches {pattern!r}")
        for name in names:
            if action == "weight":
                self.weights.pop(name, None)
                self.weights |= {} if weight is None else {name: weight}
            else:
                self.holds.pop(name, None)
                self.holds |= {} if action == "enable" else {name: {"disable": "disabled"}.get(action, action)}
            self.emit("node.override", node=name, override=action)
        return names

    def emit(self, kind: str, **fields: Any) -> None:
        event = {"at": AT, "kind": kind, **fields}
        self.events.append(event)
        for follower in self.followers:
            follower.put_nowait(event)

    def recent_events(self, limit: int) -> list[dict[str, Any]]:
        return self.events[-limit:]

    def follow(self) -> AsyncGenerator[dict[str, Any], None]:
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.followers.append(queue)
        return self._drain(queue)

    async def _drain(self, queue: asyncio.Queue[dict[str, Any] | None]) -> AsyncGenerator[dict[str, Any], None]:
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self.followers.remove(queue)

    def end(self) -> None:
        for follower in self.followers:
            follower.put_nowait(None)

    async def replace_gateways(self) -> list[int]:
        self.gateway_pid += 1
        return [self.gateway_pid]


def _nodes(document: str) -> dict[str, str]:
    return {line.split()[0]: line.split()[1] for line in document.splitlines() if "/" in line}


def _digest(document: str) -> str:
    return f"{sum(document.encode()):012x}"


def _empty_service() -> dict[str, Any]:
    return {"protocol": "dicom", "mode": "l7_snat", "listen": ["10.0.0.100:104"], "connections": 2, "nodes": {}}


def _judge(service: dict[str, Any]) -> None:
    working = sum(node["state"] == "up" for node in service["nodes"].values())
    service["state"] = "up" if working == len(service["nodes"]) else "degraded" if working else "down"
    if service["state"] != "up":
        service["reason"] = f"{working} of {len(service['nodes'])} nodes take work"

"""The stage, for HL7: services on one balancer, what their senders and receivers ended with, and what must not leak."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.system.balancer import Balancer, eventually
from tests.system.hl7_raw import RawSender
from tests.system.stage import Served, Stage


def serve(stage: Stage, receivers: Mapping[str, Any], hl7: Mapping[str, Any] | None = None, **settings: Any) -> Served:
    """Put an HL7 service on the stage.

    Args:
        receivers: By name: as `Stage.serve` takes nodes.
        hl7: Its keys `hl7`.
        settings: Further keys of the service.
    """
    return stage.serve(receivers, **{**settings_of(hl7 or {}), **settings})


def settings_of(hl7: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a service on the stage that make it one for HL7."""
    balance = None if hl7.get("key") == "patient" else "round_robin"  # patients go by their hash
    return {"protocol": "hl7", "hl7": dict(hl7), "balance": balance}


def events_of(balancer: Balancer, service: str | None, *kinds: str) -> list[dict[str, Any]]:
    """Return the events of some kinds, oldest first, of one service or all; reading the journal is quick."""
    lines = (balancer.home / "state/events.jsonl").read_text().splitlines(keepends=True)
    wanted = [f'"kind":"{kind}"' for kind in kinds]
    events = [json.loads(line) for line in lines if line.endswith("\n") and any(kind in line for kind in wanted)]
    return [event for event in events if service in (None, event.get("service"))]


def sender_ended(served: Served, sender: RawSender, within_s: float = 15.0) -> dict[str, Any]:
    """Return how this sender's connection ended: its one event."""

    def look() -> list[dict[str, Any]]:
        events = events_of(served.balancer, served.name, "sender.ended")
        return [event for event in events if event["client"] == sender.address]

    found = eventually(look, within_s, f"a sender.ended event of {sender.address}")
    assert len(found) == 1, found
    return found[0]


def receivers_failed(served: Served, count: int) -> list[dict[str, Any]]:
    """Wait until so many connections to receivers have failed, and no more, and return their events."""

    def look() -> list[dict[str, Any]]:
        found = events_of(served.balancer, served.name, "receiver.failed")
        return found if len(found) >= count else []

    if count:
        eventually(look, 15, f"{count} receiver.failed events of {served.name}")
    found = events_of(served.balancer, served.name, "receiver.failed")
    assert len(found) == count, found
    return found


def memory_bytes(pid: int, what: str = "VmHWM") -> int:
    """Return how much memory a process has at most had (VmHWM), or has (VmRSS)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{what}:"))) * 1024


def interleaved(whole: list[bytes], parts: list[list[bytes]]) -> bool:
    """Say whether the parts are the whole, dealt out, each in order."""
    positions = {content: at for at, content in enumerate(whole)}
    orders = [[positions[content] for content in part] for part in parts]
    return sorted(itertools.chain(*orders)) == list(range(len(whole))) and all(each == sorted(each) for each in orders)

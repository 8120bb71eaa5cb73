"""Rules within a service that speaks HL7: keys without an effect, keys that contradict `hl7.key`, and frames.

Leaves out what HL7 shares with the other protocols (`suited.py`, `crosscheck.py`).
Source: "Transport Specification: MLLP", releases 1 and 2, for the frames; the key's meanings are ours (`hl7.py`).
"""

from collections.abc import Iterator

from equipoise.config.base import CheckParams
from equipoise.config.hl7 import Hl7
from equipoise.config.models import Service
from equipoise.config.parts import PARTS_KEY, parts_of
from equipoise.config.suited import Finding

_MLLP = ("0b", "1c0d")
_FRAME_KEYS = ("frame_start", "frame_end")
# Why a client's node is not remembered, by the key of the messages; a `connection` may have its own.
_KEPT_BY = {
    "patient": "has no effect with key: patient, whose messages go by the hash of their patient; take it out",
    "sender": "has no effect with key: sender, whose messages stay together by their sender; take it out",
    "message": "contradicts key: message, by which every message may go anywhere; write `key: connection`, or none",
}


def unsuited_hl7(service: Service) -> Iterator[Finding]:
    """Yield every key of a service that speaks HL7 which is wrong beside the others; nothing of other services."""
    if service.protocol != "hl7":
        return
    yield from _elsewhere(service)
    yield from _of_connections(service)
    yield from _by_key(service)
    yield from _frames(service.hl7)
    yield from _framed_otherwise(service)


def _elsewhere(service: Service) -> Iterator[Finding]:
    if "timeouts" in service.model_fields_set:
        yield Finding(("timeouts",), "those of HL7 stand under hl7; write them there")
    if "http" in service.model_fields_set:
        yield Finding(("http",), "has no effect: hl7 is not HTTP; take it out")
    if "slow_response" in service.passive_health.model_fields_set:
        said = "has no effect: an acknowledgement that is late is a failure by hl7.ack_timeout; write it there"
        yield Finding(("passive_health", "slow_response"), said)


def _of_connections(service: Service) -> Iterator[Finding]:
    if service.on_down == "cut":
        said = (
            "'cut' is for the other protocols; a message under way at a node that goes down still gets its "
            "acknowledgement, or its sender's connection is closed; take it out"
        )
        yield Finding(("on_down",), said)
    if service.tls and service.tls.more_certificates:
        said = "HL7 senders name no host, so they are all shown cert; take it out, or give each its own service"
        yield Finding(("tls", "more_certificates"), said)
    if service.proxy_protocol.send != "none":
        said = (
            f"{service.proxy_protocol.send!r} would name one sender, and connections to receivers are shared by all of "
            "them; take it out"
        )
        yield Finding(("proxy_protocol", "send"), said)


def _by_key(service: Service) -> Iterator[Finding]:
    key, by = service.hl7.key, service.known_by
    if key == "patient" and service.balance is not None:
        yield Finding(("balance",), _KEPT_BY[key])
    if key in ("message", "sender") and service.balance == "source_hash":
        said = f"'source_hash' goes by the sender's address, not by its {key}; write round_robin, or `key: connection`"
        yield Finding(("balance",), said)
    if key in _KEPT_BY and by == "source_ip":  # what else there is cannot be read in HL7 at all
        yield Finding(("persistence", "by"), f"{by!r} {_KEPT_BY[key]}")


def _frames(hl7: Hl7) -> Iterator[Finding]:
    start, end = (bytes.fromhex(text) for text in (hl7.frame_start, hl7.frame_end))
    if start in end or end in start:
        said = f"{_spaced(hl7.frame_end)!r} and frame_start, {_spaced(hl7.frame_start)!r}, cannot be told apart"
        yield Finding(("hl7", "frame_end"), f"{said}; write bytes that do not contain each other, such as '1c 0d'")
    if not end.strip(b"\r\n"):
        said = f"{_spaced(hl7.frame_end)!r} ends every segment, so a message would end behind its first one"
        yield Finding(("hl7", "frame_end"), f"{said}; write for example '1c 0d'")
    if hl7.mllp_release == 2 and (hl7.frame_start, hl7.frame_end) != _MLLP:
        said = "release 2 has frames of its own, 0b and 1c 0d; take frame_start and frame_end out, or write release 1"
        yield Finding(("hl7", "mllp_release"), said)


def _framed_otherwise(service: Service) -> Iterator[Finding]:
    """Yield frames of a check that are not those of the service, whose receivers would not know them."""
    for path, params in _checks(service):
        for key in _FRAME_KEYS:
            said, wanted = getattr(params, key, None), getattr(service.hl7, key)
            if said not in (None, wanted):
                message = (
                    f"the check says {_spaced(str(said))!r}, and hl7.{key} of this service {_spaced(wanted)!r}; write "
                    f"`{key}: {_spaced(wanted)}` here too"
                )
                yield Finding((*path, key), message)


def _checks(service: Service) -> Iterator[tuple[tuple[str | int, ...], CheckParams]]:
    _, params = service.check
    yield ("health",), params
    for number, part in enumerate(parts_of(params)):
        yield ("health", PARTS_KEY, number), part.params


def _spaced(text: str) -> str:
    return bytes.fromhex(text).hex(" ")

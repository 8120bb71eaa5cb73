"""A simulated archive: it answers C-ECHO, really stores, finds, gives back and sends on, and has a worklist.

A process of its own, so that it can be killed as a machine dies:

    python -m equipoise.sim.archive --port 0 --ae PACS --store DIR --destination VIEWER=127.0.0.1:11113

It prints one JSON line with its port once it listens, and ends on SIGTERM.  Every port answers everything, as those of
a PACS server do that has one each for images, queries and worklist.  Leaves out storage commitment and the index of a
real archive.
Source: DICOM PS3.4, annex B (storage), C.4 (C-FIND, C-MOVE, C-GET), K (worklist); PS3.7, annex C (status codes).
"""

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context, evt
from pynetdicom.dsutils import encode_file_meta

from equipoise.base.errors import PeerError
from equipoise.sim.peers import MAX_PDU_BYTES, Peer, application_entity, parse_peer, speak_quietly
from equipoise.sim.query import find
from equipoise.sim.store import Store
from equipoise.sim.worklist import WORKLIST, scheduled

_VERIFICATION = "1.2.840.10008.1.1"
# Retired and still sent: ultrasound (twice), nuclear medicine, X-ray angiography bi-plane.
_RETIRED_STORAGE = tuple(f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("6", "3", "5", "12.3"))
# PS3.4 tables C.6.1-1 and C.6.2-1: patient root and study root; find, move, get.
_QUERY_RETRIEVE = tuple(f"1.2.840.10008.5.1.4.1.2.{root}.{service}" for root in (1, 2) for service in (1, 2, 3))

# pynetdicom takes the first of these that the other side proposes.  Explicit VR first: in implicit VR a private element
# loses its VR.
_TRANSFER_SYNTAXES = sorted(ALL_TRANSFER_SYNTAXES, key=lambda uid: uid != ExplicitVRLittleEndian)

_SUCCESS, _PENDING, _CANCELLED = 0x0000, 0xFF00, 0xFE00
_OUT_OF_RESOURCES, _DOES_NOT_MATCH = 0xA700, 0xA900


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """What one archive is.

    Attributes:
        ae_title: Called title that it answers to; any other is rejected.
        name: Written into each stored file as (0002,0018), so that files of a shared store tell who took them.
        store: Directory of its files; several archives may share it.
        port: 0 takes a free one.
        more_ports: Others that it listens at, too.
        destinations: Where C-MOVE may send to, by AE title.
    """

    ae_title: str
    name: str
    store: Path
    host: str = "127.0.0.1"
    port: int = 0
    more_ports: tuple[int, ...] = ()
    destinations: Mapping[str, Peer] = field(default_factory=dict)


class Archive:
    """One archive; `start` and `stop` it."""

    def __init__(self, settings: ArchiveSettings) -> None:
        self._settings = settings
        self._store = Store(settings.store)
        self._servers: list[Any] = []
        self._entity = application_entity(settings.ae_title)
        self._entity.require_called_aet = True
        self._entity.add_supported_context(_VERIFICATION, _TRANSFER_SYNTAXES)
        for uid in (*_QUERY_RETRIEVE, WORKLIST):
            self._entity.add_supported_context(uid, _TRANSFER_SYNTAXES)
        storage = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
        for uid in (*storage, *_RETIRED_STORAGE):  # both roles: C-GET sends objects back on the same association
            self._entity.add_supported_context(uid, _TRANSFER_SYNTAXES, scu_role=True, scp_role=True)

    def start(self) -> int:
        """Listen, in threads of this process, and return the port.  Raises: OSError."""
        handlers = [
            (evt.EVT_C_ECHO, lambda _event: _SUCCESS),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_C_FIND, self._on_find),
            (evt.EVT_C_GET, self._on_get),
            (evt.EVT_C_MOVE, self._on_move),
        ]
        for port in (self._settings.port, *self._settings.more_ports):
            address = (self._settings.host, port)
            self._servers.append(self._entity.start_server(address, block=False, evt_handlers=handlers))
        return int(self._servers[0].server_address[1])

    def stop(self) -> None:
        """Stop listening and abort what is open."""
        for server in self._servers:
            server.shutdown()
        for association in self._entity.active_associations:
            if association.is_established:  # pynetdicom's own shutdown also aborts what was rejected, and trips over it
                association.abort()

    def _on_store(self, event: Any) -> int:
        try:
            self._store.save(self._part_10(event), str(event.request.AffectedSOPInstanceUID))
        except PeerError:
            return _DOES_NOT_MATCH
        except OSError:
            return _OUT_OF_RESOURCES
        return _SUCCESS  # only now: the file has its name

    def _part_10(self, event: Any) -> bytes:
        meta = event.file_meta
        meta.SourceApplicationEntityTitle = event.assoc.requestor.ae_title.strip()
        meta.ReceivingApplicationEntityTitle = self._settings.name
        return b"".join((bytes(128), b"DICM", encode_file_meta(meta), event.encoded_dataset(include_meta=False)))

    def _on_find(self, event: Any) -> Iterator[tuple[int, Any]]:
        identifier = event.identifier
        if event.request.AffectedSOPClassUID == WORKLIST:
            for item in scheduled(identifier):
                yield _PENDING, item
            return
        headers = (header for _, header in self._store.headers(identifier))
        try:
            matches = find(headers, identifier, self._settings.ae_title)
        except ValueError:
            yield _DOES_NOT_MATCH, None  # PS3.4 table C.4-1: identifier does not match SOP class
            return
        for match in matches:
            if event.is_cancelled:
                yield _CANCELLED, None
                return
            yield _PENDING, match

    def _on_get(self, event: Any) -> Iterator[Any]:
        chosen = self._store.select(event.identifier)
        yield len(chosen)
        yield from _send_all(event, chosen)

    def _on_move(self, event: Any) -> Iterator[Any]:
        peer = self._settings.destinations.get(event.move_destination.strip())
        if peer is None:
            yield None, None  # pynetdicom answers A801, move destination unknown
            return
        chosen = self._store.select(event.identifier)
        contexts = _contexts(chosen)
        yield peer.host, peer.port, {"contexts": contexts, "max_pdu": MAX_PDU_BYTES}
        yield len(chosen)
        yield from _send_all(event, chosen)


def _send_all(event: Any, chosen: list[tuple[Path, Any]]) -> Iterator[tuple[int, Any]]:
    for path, _ in chosen:
        if event.is_cancelled:
            yield _CANCELLED, Dataset()
            return
        yield _PENDING, dcmread(path)  # one at a time: a study may be larger than memory


def _contexts(chosen: list[tuple[Path, Any]]) -> list[Any]:
    """Return the presentation contexts that sending these objects as they are stored needs."""
    pairs = {(str(header.SOPClassUID), str(header.file_meta.TransferSyntaxUID)) for _, header in chosen}
    return [build_context(sop_class, [syntax]) for sop_class, syntax in sorted(pairs)[:128]]


def _settings(arguments: argparse.Namespace) -> ArchiveSettings:
    destinations = {peer.ae_title: peer for peer in arguments.destination}
    return ArchiveSettings(
        ae_title=arguments.ae,
        name=arguments.name or arguments.ae,
        store=arguments.store,
        host=arguments.host,
        port=arguments.port,
        more_ports=tuple(arguments.also),
        destinations=destinations,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m equipoise.sim.archive", description="A simulated archive.")
    parser.add_argument("--ae", default="PACS", help="called AE title that it answers to")
    parser.add_argument("--name", default="", help="written into each file as the receiving AE title")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--also", type=int, action="append", default=[], metavar="PORT", help="listen there, too")
    parser.add_argument("--store", type=Path, required=True, help="directory of its files; may be shared")
    parser.add_argument(
        "--destination", type=parse_peer, action="append", default=[], metavar="AE=HOST:PORT", help="C-MOVE target"
    )
    parser.add_argument("--end-with-input", action="store_true", help="end when standard input ends: with the parent")
    return parser


def _watch_input(ended: threading.Event) -> None:
    sys.stdin.buffer.read()  # returns when the process that holds the other end is gone, however it went
    ended.set()


def main() -> None:
    """Serve until SIGTERM, SIGINT or, where asked, the end of standard input."""
    arguments = _parser().parse_args()
    speak_quietly()
    archive = Archive(_settings(arguments))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    if arguments.end_with_input:
        threading.Thread(target=_watch_input, args=(ended,), daemon=True).start()
    port = archive.start()
    sys.stdout.write(json.dumps({"ready": True, "ae": arguments.ae, "host": arguments.host, "port": port}) + "\n")
    sys.stdout.flush()
    ended.wait()
    archive.stop()


if __name__ == "__main__":
    main()

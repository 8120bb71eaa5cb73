"""Simulated modalities and viewers against simulated archives: what they remember is what happened."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import evt

from equipoise.sim.audit import audit
from equipoise.sim.ledger import Ledger
from equipoise.sim.modality import Modality, Pace
from equipoise.sim.peers import AssociationError, Peer, application_entity, open_association, parse_peer
from equipoise.sim.ports import free_port
from equipoise.sim.reader import Reader
from equipoise.sim.store import Store
from equipoise.sim.studies import Kind, Shape, Study, make_study

StartArchive = Callable[..., Peer]
FAST = Pace(between_objects_s=0, between_studies_s=0, before_retry_s=0.01, attempts=3)


def modality(peer: Peer, ledger: Ledger, stop: threading.Event) -> Modality:
    return Modality("CT1", Kind.CT, peer, rng=Random(1), ledger=ledger, stop=stop, pace=FAST)


def reader(peer: Peer, ledger: Ledger, stop: threading.Event) -> Reader:
    return Reader("VIEWER1", peer, rng=Random(2), ledger=ledger, stop=stop, pause_s=0)


@pytest.fixture
def study(small: Shape) -> Study:
    return make_study(Random(3), Kind.CT, 1, small)


@contextmanager
def answering(*answers: Any) -> Iterator[tuple[Peer, list[str]]]:
    """An archive that stores nothing: it gives these answers to C-STORE, one after the other, and then success.

    `"abort"` aborts the association instead.
    """
    left, received = list(answers), list[str]()

    def on_store(event: Any) -> int:
        answer = left.pop(0) if left else 0x0000
        if answer == "abort":
            event.assoc.abort()
            return 0xC000
        received.append(str(event.request.AffectedSOPInstanceUID))
        return int(answer)

    entity = application_entity("PACS")
    entity.add_supported_context("1.2.840.10008.5.1.4.1.1.2")
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)])
    try:
        yield Peer("PACS", "127.0.0.1", server.server_address[1]), received
    finally:
        entity.shutdown()


def test_a_study_is_acknowledged_found_and_read_back(
    start_archive: StartArchive, ledger: Ledger, never: threading.Event, study: Study, tmp_path: Path
) -> None:
    archive = start_archive()
    modality(archive, ledger, never).send_study(study)
    chosen = ledger.choose_finished(Random(1))
    assert chosen is not None
    reader(archive, ledger, never).read(*chosen)
    tally = ledger.tally()
    assert (tally.sent, tally.acknowledged, tally.associations, tally.retries) == (6, 6, 3, 0)
    assert (tally.queries, tally.studies_retrieved, tally.objects_compared, tally.differences) == (1, 1, 6, ())
    assert len(audit(Store(tmp_path / "store"), ledger.expected()).unharmed) == 6


def test_what_was_acknowledged_is_not_sent_again(ledger: Ledger, never: threading.Event, study: Study) -> None:
    series = study.series[0]
    with answering(0x0000, "abort") as (peer, received):
        assert modality(peer, ledger, never).send_series(series) == []
    assert received == [instance.sop_instance_uid for instance in series]
    tally = ledger.tally()
    assert (tally.sent, tally.acknowledged, tally.associations, tally.retries) == (4, 3, 2, 1)
    assert tally.failures == {"aborted or closed before a C-STORE was answered": 1}


def test_a_status_that_is_no_success_is_no_acknowledgement(
    ledger: Ledger, never: threading.Event, study: Study
) -> None:
    with answering(0xA700) as (peer, _):
        assert modality(peer, ledger, never).send_series(study.series[0]) == []
    assert ledger.tally().failures == {"C-STORE answered with status A700": 1}
    assert ledger.tally().acknowledged == 3


def test_a_sender_gives_up_in_the_end_and_says_so(ledger: Ledger, never: threading.Event, study: Study) -> None:
    nobody = Peer("PACS", "127.0.0.1", free_port())
    assert modality(nobody, ledger, never).send_series(study.series[0]) == list(study.series[0])
    tally = ledger.tally()
    assert (tally.sent, tally.acknowledged, tally.given_up) == (0, 0, 3)
    assert tally.failures == {"connection refused": 3}


def test_a_study_that_is_not_whole_is_not_offered_to_readers(
    ledger: Ledger, never: threading.Event, study: Study
) -> None:
    modality(Peer("PACS", "127.0.0.1", free_port()), ledger, never).send_study(study)
    assert ledger.choose_finished(Random(1)) is None


def test_a_reader_notices_what_is_missing_and_what_is_altered(
    start_archive: StartArchive, ledger: Ledger, never: threading.Event, study: Study, tmp_path: Path
) -> None:
    archive = start_archive()
    modality(archive, ledger, never).send_study(study)
    lost, altered = Store(tmp_path / "store").paths()[:2]
    lost.unlink()
    dataset = dcmread(altered)
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(altered, enforce_file_format=True)
    chosen = ledger.choose_finished(Random(1))
    assert chosen is not None
    reader(archive, ledger, never).read(*chosen)
    assert set(ledger.tally().differences) == {
        f"C-FIND does not list object {lost.stem}",
        f"C-GET did not give object {lost.stem}",
        f"C-GET gave object {altered.stem} altered",
    }


def test_a_rejection_is_told_with_its_three_numbers(start_archive: StartArchive) -> None:
    archive = start_archive()
    entity = application_entity("ME")
    entity.add_requested_context("1.2.840.10008.1.1")
    with pytest.raises(AssociationError, match=r"rejected \(1,1,7\)"):
        open_association(Peer("WRONG", archive.host, archive.port), "ME", entity.requested_contexts)


@pytest.mark.parametrize("text", ["", "VIEWER", "VIEWER=host", "=host:1", "VIEWER=:104", "V=h:0", "V=h:65536", "V=h:x"])
def test_a_peer_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not AE=HOST:PORT; write for example"):
        parse_peer(text)


def test_a_peer_may_have_an_ipv6_address() -> None:
    assert parse_peer("VIEWER=[::1]:11113") == Peer("VIEWER", "::1", 11113)

"""The simulated archive against DCMTK's programs: a real peer of another make for each service."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from pydicom import dcmread

from equipoise.base.processes import kill, start_ready
from equipoise.sim.peers import Peer
from equipoise.sim.ports import free_port
from equipoise.sim.studies import Kind, Shape, Study, fingerprint, make_study

Find = Callable[[str], str]
StartArchive = Callable[..., Peer]


@pytest.fixture
def study(small: Shape) -> Study:
    return make_study(Random(5), Kind.CT, 1, small)


@pytest.fixture
def files(tmp_path: Path, study: Study) -> list[Path]:
    folder = tmp_path / "to-send"
    folder.mkdir()
    paths = []
    for series in study.series:
        for instance in series:
            paths.append(folder / f"{instance.sop_instance_uid}.dcm")
            instance.dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def run(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def fingerprints(study: Study) -> set[str]:
    return {instance.fingerprint for series in study.series for instance in series}


def stored(folder: Path) -> set[str]:
    return {fingerprint(dcmread(path)) for path in folder.rglob("*") if path.is_file()}


def test_echoscu_is_answered_and_a_wrong_title_rejected(start_archive: StartArchive, dcmtk: Find) -> None:
    archive = start_archive()
    run(dcmtk("echoscu"), "-aec", "PACS", archive.host, archive.port)
    wrong = subprocess.run(
        [dcmtk("echoscu"), "-aec", "WRONG", archive.host, str(archive.port)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert wrong.returncode != 0
    assert "Called AE Title Not Recognized" in wrong.stderr


def test_storescu_stores_every_element_and_pixel(
    start_archive: StartArchive, dcmtk: Find, files: list[Path], study: Study, tmp_path: Path
) -> None:
    archive = start_archive(name="pacs-a")
    run(dcmtk("storescu"), "-aet", "CT1", "-aec", "PACS", archive.host, archive.port, *files)
    assert stored(tmp_path / "store") == fingerprints(study)
    meta = dcmread(next((tmp_path / "store").rglob("*.dcm"))).file_meta
    assert (meta.SourceApplicationEntityTitle, meta.ReceivingApplicationEntityTitle) == ("CT1", "pacs-a")


def test_findscu_finds_in_one_archive_what_another_one_of_the_cluster_took(
    start_archive: StartArchive, dcmtk: Find, files: list[Path], study: Study
) -> None:
    taker, asked = start_archive(name="pacs-a"), start_archive(name="pacs-b")
    run(dcmtk("storescu"), "-aec", "PACS", taker.host, taker.port, *files)
    query = ("-k", "StudyInstanceUID", "-k", "PatientName=SIM*", "-k", "NumberOfStudyRelatedInstances")
    answer = run(
        dcmtk("findscu"), "-S", "-aec", "PACS", "-k", "QueryRetrieveLevel=STUDY", *query, asked.host, asked.port
    )
    assert study.study_instance_uid in answer
    assert f"[{len(files)} ]" in answer


def test_getscu_gets_the_study_back(
    start_archive: StartArchive, dcmtk: Find, files: list[Path], study: Study, tmp_path: Path
) -> None:
    archive, got = start_archive(), tmp_path / "got"
    got.mkdir()
    run(dcmtk("storescu"), "-aec", "PACS", archive.host, archive.port, *files)
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study.study_instance_uid}")
    run(dcmtk("getscu"), "-S", "-aec", "PACS", "-od", got, *keys, archive.host, archive.port)
    assert stored(got) == fingerprints(study)


def test_findscu_is_told_the_worklist_of_its_station(start_archive: StartArchive, dcmtk: Find) -> None:
    archive = start_archive()
    keys = ("-k", "AccessionNumber", "-k", "(0040,0100)[0].ScheduledStationAETitle=MR1")
    answer = run(dcmtk("findscu"), "-W", "-aec", "PACS", *keys, archive.host, archive.port)
    assert [f"ACC-MR1-{number}" in answer for number in (1, 2, 3, 4)] == [True, True, True, False]
    assert "ACC-CT1" not in answer


def test_every_port_of_an_archive_answers(tmp_path: Path, dcmtk: Find) -> None:
    ports = [str(free_port()) for _ in range(3)]
    command = [sys.executable, "-m", "equipoise.sim.archive", "--store", str(tmp_path), "--end-with-input"]
    command += ["--port", ports[0], "--also", ports[1], "--also", ports[2]]
    process, _ = start_ready(command, tmp_path / "log", timeout_s=20)
    try:
        for port in ports:
            run(dcmtk("echoscu"), "-aec", "PACS", "127.0.0.1", port)
    finally:
        kill(process.pid)
        process.wait()


@pytest.fixture
def receiver(tmp_path: Path, dcmtk: Find) -> Iterator[Peer]:
    """DCMTK's storescp; the archive dials it."""
    port = free_port()
    (tmp_path / "moved").mkdir()
    command = [dcmtk("storescp"), "-v", "-od", str(tmp_path / "moved"), str(port)]
    with (tmp_path / "storescp.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    wait = threading.Event()
    for _ in range(100):
        if subprocess.run([dcmtk("echoscu"), "127.0.0.1", str(port)], capture_output=True, check=False).returncode == 0:
            break
        wait.wait(0.05)
    yield Peer("VIEWER", "127.0.0.1", port)
    process.kill()
    process.wait()


def test_movescu_has_the_study_sent_to_a_destination_that_the_archive_dials(
    start_archive: StartArchive, dcmtk: Find, files: list[Path], study: Study, receiver: Peer, tmp_path: Path
) -> None:
    archive = start_archive(VIEWER=receiver)
    run(dcmtk("storescu"), "-aec", "PACS", archive.host, archive.port, *files)
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study.study_instance_uid}")
    run(dcmtk("movescu"), "-S", "-aec", "PACS", "-aem", "VIEWER", *keys, archive.host, archive.port)
    assert stored(tmp_path / "moved") == fingerprints(study)


def test_movescu_to_an_unknown_destination_is_refused(start_archive: StartArchive, dcmtk: Find) -> None:
    archive = start_archive()
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2")
    done = subprocess.run(
        [dcmtk("movescu"), "-S", "-aec", "PACS", "-aem", "NOBODY", *keys, archive.host, str(archive.port)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "MoveDestinationUnknown" in done.stdout + done.stderr


def test_the_archive_program_ends_with_its_input(tmp_path: Path) -> None:
    """An archive that was told so ends when the process that started it is gone, however that went."""
    command = [sys.executable, "-m", "equipoise.sim.archive", "--store", str(tmp_path / "s"), "--end-with-input"]
    process, line = start_ready(command, tmp_path / "log", timeout_s=20)
    assert b'"ready": true' in line
    assert process.stdin is not None
    process.stdin.close()
    try:
        assert process.wait(timeout=10) == 0
    finally:
        kill(process.pid)

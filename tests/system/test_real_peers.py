"""Real programs and real files through the balancer: what arrives is what was sent, tag by tag and pixel by pixel."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import build_context, build_role, evt

from equipoise.sim.archive import Archive, ArchiveSettings
from equipoise.sim.peers import Peer as Destination
from equipoise.sim.ports import free_port
from tests.system import pynet
from tests.system.dcmtk import dcmqrscp, run, storescp
from tests.system.files import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    STORESCU_OPTION,
    Content,
    RealFile,
    assert_same,
    content_of,
    contents,
    named,
    real_files,
    stored,
)
from tests.system.stage import Served, Stage

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about values in real files

# storescp as a receiver that changes nothing: every transfer syntax and SOP class, bytes kept, a file for each object.
KEEP_ALL = ("+xa", "-pm", "--bit-preserving", "+uf")
# Sequences of unknown representation, compressed pixels called OW.  dcmsend and pynetdicom can.
STORESCU_CANNOT_READ = {"explicit_VR-UN.dcm", "rtdose_rle.dcm", "rtdose_rle_1frame.dcm"}
ENHANCED = {"1.2.840.10008.5.1.4.1.1.2.1": "Enhanced CT", "1.2.840.10008.5.1.4.1.1.4.1": "Enhanced MR"}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


@dataclass(frozen=True, slots=True)
class Receiver:
    """A storescp behind a service."""

    served: Served
    port: int  # the storescp's own
    folder: Path

    def arrived(self) -> Counter[Content]:
        return stored(self.folder)


@pytest.fixture
def receiver(stage: Stage, tmp_path: Path) -> Iterator[Receiver]:
    with storescp(free_port(), tmp_path / "arrived", *KEEP_ALL) as node:
        yield Receiver(stage.serve({"a": node.port}), node.port, tmp_path / "arrived")


def sent(files: Sequence[RealFile]) -> Counter[Content]:
    return contents(file.path for file in files)


def by_syntax(files: Sequence[RealFile]) -> dict[str, list[RealFile]]:
    return {uid: [file for file in files if file.transfer_syntax == uid] for uid in STORESCU_OPTION}


def test_the_real_files_are_of_every_kind_that_is_asked_for(record_property: Callable[[str, object], None]) -> None:
    files = real_files()
    syntaxes = Counter(file.transfer_syntax for file in files)
    record_property("files", len(files))
    record_property("transfer_syntaxes", dict(syntaxes))
    assert len(files) >= 200
    assert len(syntaxes) >= 8
    assert set(syntaxes) <= set(STORESCU_OPTION), "a syntax that no test below would send"
    assert {"CT", "MR", "CR", "US"} <= {file.modality for file in files}
    assert set(ENHANCED) <= {file.sop_class for file in files}


def test_storescu_sends_every_file_in_its_own_transfer_syntax(receiver: Receiver) -> None:
    readable = [file for file in real_files() if file.path.name not in STORESCU_CANNOT_READ]
    for syntax, files in by_syntax(readable).items():
        paths = [str(file.path) for file in files]
        done = run("storescu", "-R", STORESCU_OPTION[syntax], "127.0.0.1", str(receiver.served.port), *paths)
        assert done.returncode == 0, done.stderr
    assert_same(receiver.arrived(), sent(readable))


def test_dcmsend_sends_all_in_one_association(stage: Stage, receiver: Receiver, tmp_path: Path) -> None:
    """It turns implicit VR and big endian into explicit little endian: those are compared with a direct run."""
    files = real_files()
    with storescp(free_port(), tmp_path / "direct", *KEEP_ALL) as direct:
        for port in (direct.port, receiver.served.port):
            arguments = ("-dn", "-nuc", "127.0.0.1", str(port), *(str(file.path) for file in files))
            done = run("dcmsend", *arguments)
            assert done.returncode == 0, done.stderr
    assert_same(receiver.arrived(), stored(tmp_path / "direct"))
    unchanged = sent([file for file in files if file.transfer_syntax not in (IMPLICIT, BIG_ENDIAN)])
    assert sum(unchanged.values()) > 150
    assert not unchanged - receiver.arrived()
    assert [event["ended"] for event in receiver.served.ended(1)] == ["released"]


def test_pynetdicom_sends_all_in_one_association(receiver: Receiver) -> None:
    files = real_files()
    pairs = sorted({(file.sop_class, file.transfer_syntax) for file in files})
    contexts = [build_context(sop_class, [syntax]) for sop_class, syntax in pairs]
    with pynet.association(receiver.served.port, contexts=contexts) as opened:
        statuses = Counter(opened.send_c_store(file.path).get("Status") for file in files)
    assert statuses == {0x0000: len(files)}
    assert_same(receiver.arrived(), sent(files))


def test_the_file_meta_names_the_sender(receiver: Receiver) -> None:
    """What storescp writes into the file meta of an object is what it was told in the association."""
    (file,) = named("CT_small.dcm")
    done = run("storescu", "-aet", "CT_WARD_3", "-aec", "PACS", "127.0.0.1", str(receiver.served.port), str(file.path))
    assert done.returncode == 0, done.stderr
    meta = dcmread(next(receiver.folder.iterdir())).file_meta
    assert (meta.MediaStorageSOPInstanceUID, meta.SourceApplicationEntityTitle) == (file.sop_instance_uid, "CT_WARD_3")


# Query and retrieve: two archives, two clients; what they get through the balancer is what they get without it

ARCHIVED = named("CT_small.dcm", "MR_small.dcm", "OBXXXX1A.dcm", "RG3_UNCR.dcm", "693_UNCR.dcm", "eCT_Supplemental.dcm")
STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2"
STUDY_KEYS = ("StudyInstanceUID", "PatientName", "PatientID", "StudyDate", "StudyTime", "AccessionNumber", "StudyID")
FIND, MOVE, GET = f"{STUDY_ROOT}.1", f"{STUDY_ROOT}.2", f"{STUDY_ROOT}.3"
PENDING = 0xFF00


@dataclass(frozen=True, slots=True)
class Retrieving:
    """An archive that holds `ARCHIVED`, and the two ways to it."""

    direct: int
    balanced: Served
    moved: dict[str, Path]  # where each C-MOVE destination keeps what it got


def dcmtk_archive(folder: Path, destinations: dict[str, int]) -> Any:
    return dcmqrscp(free_port(), folder, "PACS", destinations)


class SimulatedArchive:
    """pynetdicom as the server."""

    def __init__(self, folder: Path, destinations: dict[str, int]) -> None:
        peers = {name: Destination(name, "127.0.0.1", port) for name, port in destinations.items()}
        self._archive = Archive(ArchiveSettings("PACS", "PACS", folder / "store", destinations=peers))
        self.port = 0

    def __enter__(self) -> "SimulatedArchive":
        self.port = self._archive.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.stop()


@pytest.fixture(params=[dcmtk_archive, SimulatedArchive], ids=["dcmqrscp", "pynetdicom-archive"])
def retrieving(request: pytest.FixtureRequest, stage: Stage, tmp_path: Path) -> Iterator[Retrieving]:
    folder = tmp_path / "archive"
    folder.mkdir()
    moved = {name: tmp_path / name for name in ("DIRECT", "BALANCED")}
    with (
        storescp(free_port(), moved["DIRECT"], *KEEP_ALL) as one,
        storescp(free_port(), moved["BALANCED"], *KEEP_ALL) as other,
        request.param(folder, {"DIRECT": one.port, "BALANCED": other.port}) as archive,
    ):
        served = stage.serve({"a": archive.port})
        paths = [str(file.path) for file in ARCHIVED]
        done = run("storescu", "-R", "-aec", "PACS", "127.0.0.1", str(served.port), *paths)
        assert done.returncode == 0, done.stderr
        yield Retrieving(archive.port, served, moved)


def studies() -> list[str]:
    return [study_of(file) for file in ARCHIVED]


def study_of(file: RealFile) -> str:
    found = next(iter(contents([file.path])))
    return next(element.value for element in found.elements if element.place == "(0020,000D)")


class Dcmtk:
    """findscu, movescu, getscu."""

    def echo(self, port: int) -> None:
        assert run("echoscu", "-aec", "PACS", "127.0.0.1", str(port)).returncode == 0

    def find(self, port: int, folder: Path) -> Counter[Content]:
        folder.mkdir()
        self._ask("findscu", port, "-X", "-od", str(folder), *(f"-k={key}" for key in STUDY_KEYS))
        return stored(folder)

    def move(self, port: int, destination: str) -> None:
        for study in studies():
            self._ask("movescu", port, "-aem", destination, f"-k=StudyInstanceUID={study}")

    def get(self, port: int, folder: Path) -> Counter[Content]:
        folder.mkdir()
        for study in studies():
            self._ask("getscu", port, "+B", "-od", str(folder), f"-k=StudyInstanceUID={study}")
        return stored(folder)

    def _ask(self, program: str, port: int, *arguments: str) -> None:
        keys = [part for argument in arguments for part in argument.split("=", 1)]
        where = ("127.0.0.1", str(port))
        done = run(program, "-S", "-aec", "PACS", "-k", "QueryRetrieveLevel=STUDY", *keys, *where)
        assert done.returncode == 0, done.stdout + done.stderr


class Pynetdicom:
    """The same with pynetdicom."""

    def echo(self, port: int) -> None:
        pynet.visit(port)

    def find(self, port: int, folder: Path) -> Counter[Content]:
        with pynet.association(port, contexts=[build_context(FIND)]) as opened:
            answers = list(opened.send_c_find(_identifier(**dict.fromkeys(STUDY_KEYS, "")), FIND))
        assert [int(status.Status) for status, _ in answers] == [PENDING] * (len(answers) - 1) + [0x0000]
        return Counter(content_of(identifier, "") for _, identifier in answers if identifier is not None)

    def move(self, port: int, destination: str) -> None:
        with pynet.association(port, contexts=[build_context(MOVE)]) as opened:
            for study in studies():
                *_, (last, _) = opened.send_c_move(_identifier(StudyInstanceUID=study), destination, MOVE)
                assert (last.Status, last.NumberOfCompletedSuboperations) == (0x0000, 1)

    def get(self, port: int, folder: Path) -> Counter[Content]:
        got: Counter[Content] = Counter()

        def keep(event: Any) -> int:
            got[content_of(event.dataset, str(event.context.transfer_syntax))] += 1
            return 0x0000

        classes = sorted({file.sop_class for file in ARCHIVED})
        with pynet.association(
            port,
            contexts=[build_context(GET), *(build_context(uid, [EXPLICIT]) for uid in classes)],
            items=[build_role(uid, scp_role=True) for uid in classes],
            handlers=[(evt.EVT_C_STORE, keep)],
        ) as opened:
            for study in studies():
                *_, (last, _) = opened.send_c_get(_identifier(StudyInstanceUID=study), GET)
                assert (last.Status, last.NumberOfCompletedSuboperations) == (0x0000, 1)
        return got


def _identifier(**keys: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


@pytest.fixture(params=[Dcmtk(), Pynetdicom()], ids=["dcmtk", "pynetdicom"])
def client(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_echo_find_move_and_get_give_what_they_give_directly(
    retrieving: Retrieving, client: Any, tmp_path: Path
) -> None:
    balanced = retrieving.balanced.port
    client.echo(balanced)

    found = client.find(balanced, tmp_path / "found")
    assert sum(found.values()) == len(ARCHIVED)
    assert_same(found, client.find(retrieving.direct, tmp_path / "found-directly"))

    client.move(retrieving.direct, "DIRECT")
    client.move(balanced, "BALANCED")
    assert_same(stored(retrieving.moved["BALANCED"]), sent(ARCHIVED))
    assert_same(stored(retrieving.moved["BALANCED"]), stored(retrieving.moved["DIRECT"]))

    got = client.get(balanced, tmp_path / "got")
    assert_same(got, sent(ARCHIVED))
    assert_same(got, client.get(retrieving.direct, tmp_path / "got-directly"))


def test_what_an_archive_refuses_is_refused_in_its_own_words(retrieving: Retrieving) -> None:
    """A destination that the archive does not know: A801, not an abort and not a success."""
    with pynet.association(retrieving.balanced.port, contexts=[build_context(MOVE)]) as opened:
        *_, (status, _) = opened.send_c_move(_identifier(StudyInstanceUID=studies()[0]), "NOBODY", MOVE)
    assert status.Status == 0xA801
    moved = [row for event in retrieving.balanced.ended(2) for row in event["messages"] if row["command"] == "C-MOVE"]
    assert [(row["status"], row["count"]) for row in moved] == [("A801", 1)]


def test_a_query_can_be_cancelled(retrieving: Retrieving) -> None:
    """C-CANCEL crosses the open request; what comes back is the archive's: cancelled, or done before it heard."""
    with pynet.association(retrieving.balanced.port, contexts=[build_context(FIND)]) as opened:
        statuses = []
        for status, _ in opened.send_c_find(_identifier(StudyInstanceUID=""), FIND, msg_id=7):
            statuses.append(int(status.Status))
            if len(statuses) == 1:
                opened.send_c_cancel(7, query_model=FIND)
        assert statuses[0] == PENDING
        assert statuses[-1] in (0xFE00, 0x0000)

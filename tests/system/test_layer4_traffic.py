"""Layer 4: in every mode, what clients store and what they retrieve arrives whole, and travels as the mode says.

Clients stand behind a router and on the nodes' own segment; the peers are nginx, DCMTK and Orthanc.
"""

import hashlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from tests.lab.capture import Capture
from tests.lab.lab import SOURCES, VIPS
from tests.lab.machines import ARCHIVE_PORT, BIG_BYTES, FAR, ORTHANC_PORT, ORTHANC_WEB_PORT, STORE_PORT, Client
from tests.system.balancer import eventually
from tests.system.files import content, stored
from tests.system.layer4_stage import DIRECT, MASQUERADED, TRANSLATED, WAYS, Served, Stage, Version, Way, in_laboratory

IMAGE_ROWS = 1024  # an image of 2 MB: many packets, each of many segments
DICOM: dict[str, Any] = {
    "protocol": "dicom",
    "balance": "first_up",
}  # first_up: what was stored is asked of the node that has it


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with in_laboratory(tmp_path_factory.mktemp("lab")) as stage:
        yield stage


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of an image that does not compress."""
    source = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(source, str)
    dataset = dcmread(source)
    dataset.Rows = dataset.Columns = IMAGE_ROWS
    dataset.PixelData = random.Random(6).randbytes(2 * IMAGE_ROWS * IMAGE_ROWS)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    path = tmp_path_factory.mktemp("images") / "image.dcm"
    dataset.save_as(path)
    return path


def client_of(stage: Stage, name: str) -> Client:
    return stage.lab.far if name == "far" else stage.lab.near


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_pages_arrive_whole_and_nodes_see_whom_they_should(stage: Stage, way: Way, version: Version) -> None:
    served = stage.serve(way, version=version)
    for client in (stage.lab.far, stage.lab.near):
        seen = set()
        for _ in range(4):
            with served.call(client) as call:
                node, address = call.who()
                assert address in stage.seen_by_nodes(way, client, version)
                seen.add(node)
        assert seen == set(way.nodes), "each node takes its turn"
        with served.call(client) as call:
            assert digest(call.get("/big")) == digest(stage.page("big"))
            assert digest(call.get("/small")) == digest(stage.page("small"))


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_curl_downloads_through_the_vip(stage: Stage, way: Way) -> None:
    served = stage.serve(way, protocol="http")
    url = f"http://{served.address}:{served.port}/big"
    for client in (stage.lab.far, stage.lab.near):
        target = stage.folder / "downloaded"
        client.host.must("curl", "-sSf", "--max-time", "30", "-o", str(target), url)
        assert digest(target.read_bytes()) == digest(stage.page("big"))


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("name", ["far", "near"])
def test_dcmtk_stores_gets_and_moves_through_the_vip(
    stage: Stage, way: Way, name: str, image: Path, tmp_path: Path
) -> None:
    for node in way.nodes:
        stage.node(node).serve_archive()
    served = stage.serve(way, port=ARCHIVE_PORT, **DICOM)
    client = client_of(stage, name)
    assert dicom(client, "echoscu", served) == 0
    assert dicom(client, "storescu", served, "--", str(image)) == 0
    assert_retrieved(client, served, image, tmp_path / "got")
    if name == "far":  # the archives know no other destination
        assert_moved(client, served, image, tmp_path / "moved")


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_orthanc_stores_gets_and_moves_through_the_vip_and_sees_the_client(
    stage: Stage, way: Way, image: Path, tmp_path: Path
) -> None:
    first = stage.node(way.nodes[0])
    first.serve_orthanc()
    served = stage.serve(way, way.nodes[:1], port=ORTHANC_PORT, **DICOM)
    far = stage.lab.far
    for instance in json.loads(first.orthanc("/instances")):
        first.host.must("curl", "-sSf", "-X", "DELETE", f"http://127.0.0.1:{ORTHANC_WEB_PORT}/instances/{instance}")
    assert dicom(far, "storescu", served, "--", str(image)) == 0
    (instance,) = json.loads(first.orthanc("/instances"))
    assert first.orthanc(f"/instances/{instance}/metadata/RemoteIP") in stage.seen_by_nodes(way, far, 4)
    assert_retrieved(far, served, image, tmp_path / "got")
    assert_moved(far, served, image, tmp_path / "moved")


@pytest.mark.parametrize("way", [DIRECT, TRANSLATED], ids=str)
def test_dicom_travels_over_ipv6(stage: Stage, way: Way) -> None:
    # DCMTK and Orthanc, as Debian has them, have IPv4 only.
    node, port = stage.node(way.nodes[0]), 10400
    archive = node.host.start(
        *(sys.executable, "-m", "equipoise.sim.archive", "--ae", "PACS", "--host", "::", "--port", str(port)),
        *("--store", str(node.folder / "store6")),
    )
    try:
        served = stage.serve(way, way.nodes[:1], version=6, port=port, **DICOM)
        probe = ("probe", "dicom_echo", f"[{served.address}]:{port}", "--called-ae", "PACS")
        for client in (stage.lab.far, stage.lab.near):
            done = client.host.run(sys.executable, "-m", "equipoise", *probe)
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        archive.kill()
        archive.wait()


@pytest.mark.parametrize("name", ["far", "near"])
def test_direct_answers_never_touch_the_balancer(stage: Stage, name: str) -> None:
    served, client = stage.serve(DIRECT), client_of(stage, name)
    capture = Capture(stage.lab.balancer, stage.folder / "dr.pcap", f"tcp port {served.port}")
    with capture, served.call(client) as call:
        assert digest(call.get("/big")) == digest(stage.page("big"))
    assert capture.bytes_of(f"src host {served.address}") == 0
    assert capture.bytes_of(f"src port {served.port} and dst host {client.address()}") == 0
    asked = capture.bytes_of(f"src host {client.address()} and dst host {served.address}")
    assert 0 < asked < 0.02 * BIG_BYTES, "requests and acknowledgements pass"


def test_translated_answers_do_pass_the_balancer(stage: Stage) -> None:
    # What the capture of the test above would see if it were otherwise.
    served = stage.serve(TRANSLATED)
    capture = Capture(stage.lab.balancer, stage.folder / "nat.pcap", f"tcp port {served.port}")
    with capture, served.call() as call:
        call.get("/big")
    assert capture.bytes_of(f"src host {served.address}") > BIG_BYTES


@pytest.mark.parametrize("way", [TRANSLATED, MASQUERADED], ids=str)
def test_ports_are_translated(stage: Stage, way: Way, image: Path) -> None:
    served = stage.serve(way, port=80, node_port=8000, protocol="http")
    with served.call() as call:
        node = call.node()
        assert digest(call.get("/small")) == digest(stage.page("small"))
    here = stage.node(node)
    last = eventually(lambda: [each for each in here.served() if each.path == "/small"], what="the log")[-1]
    assert (last.address, last.port) == (here.host.address, "8000")
    here.serve_store()
    for path in here.stored():
        path.unlink()
    stores = stage.serve(way, [node], port=1104, node_port=STORE_PORT, **DICOM)
    assert dicom(stage.lab.far, "storescu", stores, "--", str(image)) == 0
    assert [content(path) for path in here.stored()] == [content(image)]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_service_has_several_ports_and_addresses(stage: Stage, way: Way) -> None:
    stage.lab.balancer.must("ip", "address", "replace", f"{VIPS[1]}/32", "dev", "eth0")
    nodes = {name: {"address": stage.node(name).address()} for name in way.nodes}
    served = stage.serve(way, nodes, listen=list(VIPS[:2]), ports=[8090, 8091], health={"check": "tcp", "port": 8090})
    for vip in VIPS[:2]:
        for port in (8090, 8091):
            assert set(served.far.nodes(vip, port, 4)) == set(way.nodes)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_many_clients_are_carried_at_once(stage: Stage, way: Way) -> None:
    served = stage.serve(way)
    calls = [served.call(source=source) for source in SOURCES[:30]]
    try:
        assert {call.node() for call in calls} == set(way.nodes)
        half = len(calls) // 2
        served.wait_connections(**dict.fromkeys(way.nodes, half))
        assert all(digest(call.get("/small")) == digest(stage.page("small")) for call in calls)
    finally:
        for call in calls:
            call.close()
    served.wait_connections(60, **dict.fromkeys(way.nodes, 0))


def dicom(client: Client, program: str, served: Served, *rest: str) -> int:
    done = client.dicom(program, served.address, served.port, *rest)
    assert done.returncode == 0, done.stderr[-1000:]
    return done.returncode


def study_of(image: Path) -> list[str]:
    uid = dcmread(image, stop_before_pixels=True).StudyInstanceUID
    return ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}"]


def assert_retrieved(client: Client, served: Served, image: Path, folder: Path) -> None:
    folder.mkdir()
    dicom(client, "getscu", served, "+B", "-od", str(folder), *study_of(image))
    assert content(image) in stored(folder)  # getscu ends with 0 also when nothing came


def assert_moved(client: Client, served: Served, image: Path, folder: Path) -> None:
    folder.mkdir()
    receiver = client.receive_studies(folder)
    try:
        dicom(client, "movescu", served, "-aem", FAR, *study_of(image))
        eventually(lambda: content(image) in stored(folder), what="the moved study")
    finally:
        receiver.kill()
        receiver.wait()

"""TLS on both sides of the balancer, with real programs: who is let in, who is not and why, and that nothing is lost.

DCMTK is OpenSSL's peer with DICOM's own TLS profiles; raw sockets with Python's `ssl` do what no program would.
"""

import json
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import build_context, build_role, evt

from equipoise.proto.dicom.pdu import PduType
from equipoise.sim.ports import free_port
from tests.system import dcmtk, pynet
from tests.system.balancer import eventually
from tests.system.certificates import Authority, Issued
from tests.system.dcmtk import Peer, run, storescp
from tests.system.files import assert_same, content_of, contents, named, stored
from tests.system.rawpeer import ECHO_RQ, RawClient
from tests.system.stage import Served, Stage, checked_elsewhere

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning",  # pydicom's, about values in real files
    "ignore:ssl.TLSVersion:DeprecationWarning",
    "ignore:ssl.OP_NO:DeprecationWarning",
)
KEEP_ALL = ("+xa", "-pm", "--bit-preserving", "+uf")
FILES = named("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "SC_rgb_rle.dcm", "693_UNCR.dcm")
SHORT_S = 1.0
V10, V11, V12, V13 = (
    ssl.TLSVersion.TLSv1,
    ssl.TLSVersion.TLSv1_1,
    ssl.TLSVersion.TLSv1_2,
    ssl.TLSVersion.TLSv1_3,
)


@dataclass
class Site:
    """A stage, an authority that everybody trusts, one that nobody knows, and certificates of the usual parties.

    Servers have RSA keys: DCMTK 3.6.7 knows no cipher of TLS 1.2 for other ones.
    """

    stage: Stage
    ours: Authority
    strange: Authority
    balancer: Issued
    device: Issued
    node: Issued

    def tls(self, **more: Any) -> dict[str, Any]:
        """Return the settings for senders."""
        return {"cert": str(self.balancer.cert), "key": str(self.balancer.key), **more}

    def asking(self) -> dict[str, Any]:
        """Return the settings for senders that must show a certificate."""
        return self.tls(client_ca=str(self.ours.ca_file))

    def node_tls(self, **more: Any) -> dict[str, Any]:
        """Return the settings for nodes."""
        return {"ca": str(self.ours.ca_file), **more}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("tls")
    ours, strange = Authority(directory / "ours", "Hospital CA"), Authority(directory / "strange", "Strange CA")
    with Stage() as stage:
        yield Site(
            stage,
            ours,
            strange,
            ours.issue("balancer", names=("pacs.example", "localhost"), rsa_bits=2048),
            ours.issue("CT Ward 3", names=("ct3.example",), addresses=(), client=True),
            ours.issue("node", names=("node.example", "localhost"), rsa_bits=2048),
        )


@pytest.fixture
def node() -> Iterator[pynet.Node]:
    with pynet.Node() as node:
        yield node


@pytest.fixture(params=["1.2", "1.3"])
def version(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Hold DCMTK's programs to one version of TLS, by the settings of OpenSSL: they have no option for it."""
    settings = tmp_path / "openssl.cnf"
    settings.write_text(
        f"openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n"
        f"[tls]\nMinProtocol = TLSv{request.param}\nMaxProtocol = TLSv{request.param}\n"
    )
    monkeypatch.setitem(dcmtk._ENVIRONMENT, "OPENSSL_CONF", str(settings))
    return str(request.param)


def dcmtk_tls(own: Issued, authority: Authority, *more: str) -> list[str]:
    return ["+tls", str(own.key), str(own.cert), "+cf", str(authority.ca_file), *more]


def context(
    *, own: Issued | None = None, version: ssl.TLSVersion | None = None, ciphers: str = "ALL:@SECLEVEL=0"
) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.set_ciphers(ciphers)
    if own is not None:
        made.load_cert_chain(own.both)
    if version is not None:
        made.minimum_version, made.maximum_version = version, version
    return made


class TlsClient(RawClient):
    """A client that speaks TLS."""

    def __init__(self, port: int, used: ssl.SSLContext, called: str = "PACS") -> None:
        super().__init__(port, called)
        self.secured = used.wrap_socket(self.sock, server_hostname="localhost")
        self.sock = self.secured

    def associate(self) -> "TlsClient":
        """Set an association up, properly."""
        super().associate()
        return self

    def echo(self) -> None:
        """Ask, and hear the answer."""
        self.send(ECHO_RQ)
        found = self.pdu()
        assert found is not None
        assert found.type is PduType.DATA_TF

    def shown(self) -> bytes:
        """Return the certificate that the balancer showed."""
        return self.secured.getpeercert(binary_form=True) or b""


def visit(port: int, used: ssl.SSLContext) -> None:
    client = TlsClient(port, used).associate()
    client.echo()
    client.release()


def send(served: Served, *options: str, files: Sequence[Any] = FILES) -> None:
    """Store files with storescu, each in its own transfer syntax."""
    done = run("dcmsend" if not options else "storescu", *options, "127.0.0.1", str(served.port), *_paths(files))
    assert done.returncode == 0, done.stderr


def _paths(files: Sequence[Any]) -> list[str]:
    return [str(file.path) for file in files]


# DCMTK


EXPLICIT_FILES = named("CT_small.dcm", "MR_small.dcm", "693_UNCR.dcm")


def test_dcmtk_sends_over_tls(site: Site, tmp_path: Path, version: str) -> None:
    with storescp(free_port(), tmp_path / "arrived", *KEEP_ALL) as receiver:
        served = site.stage.serve({"a": receiver.port}, tls=site.asking())
        send(served, *dcmtk_tls(site.device, site.ours), "-xe", files=EXPLICIT_FILES)
        (event,) = served.ended(1)
    assert_same(stored(tmp_path / "arrived"), contents(file.path for file in EXPLICIT_FILES))
    assert (event["ended"], event["tls"]) == ("released", f"TLSv{version}")
    assert event["certificate"] == "CT Ward 3, ct3.example"


def test_dcmtk_receives_over_tls(site: Site, tmp_path: Path, version: str) -> None:
    """It asks for a certificate, as DICOM's profiles have it."""
    with storescp(free_port(), tmp_path / "arrived", *KEEP_ALL, *dcmtk_tls(site.node, site.ours)) as receiver:
        client = site.ours.issue("balancer as client", client=True)
        served = site.stage.serve({"a": receiver.port}, node_tls=site.node_tls(cert=str(client.both)))
        send(served, "-xe", files=EXPLICIT_FILES)
        (event,) = served.ended(1)
    assert_same(stored(tmp_path / "arrived"), contents(file.path for file in EXPLICIT_FILES))
    assert (event["ended"], event["node"], event["tls"]) == ("released", "a", None)


def test_dcmtk_on_both_sides(site: Site, tmp_path: Path, version: str) -> None:
    with storescp(free_port(), tmp_path / "arrived", *KEEP_ALL, *dcmtk_tls(site.node, site.ours, "-ic")) as receiver:
        served = site.stage.serve(
            {"a": {"address": f"localhost:{receiver.port}"}}, tls=site.tls(), node_tls=site.node_tls()
        )
        send(served, *dcmtk_tls(site.device, site.ours), "-xe", files=EXPLICIT_FILES)
    assert_same(stored(tmp_path / "arrived"), contents(file.path for file in EXPLICIT_FILES))


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_dcmtks_profiles_agree_with_ours(site: Site, node: pynet.Node, profile: str) -> None:
    served = site.stage.serve({"a": node.port}, tls=site.asking())
    done = run("echoscu", *dcmtk_tls(site.device, site.ours, profile), "127.0.0.1", str(served.port))
    assert done.returncode == 0, done.stderr


# Who is not let in

Attempt = Callable[[Site, int], None]


def refused(**wanted: Any) -> Attempt:
    """Return an attempt with these settings of a context, which must come to nothing."""

    def attempt(site: Site, port: int) -> None:
        made = {name: value(site) if callable(value) else value for name, value in wanted.items()}
        try:
            TlsClient(port, context(**made)).associate()
        except (OSError, AssertionError):
            return
        raise AssertionError("let in")

    return attempt


def plain_dicom(_site: Site, port: int) -> None:
    client = RawClient(port, "PACS")
    client.send(client.request())
    client.sock.settimeout(5)
    try:
        answer = client.sock.recv(1000)
    except ConnectionResetError:
        answer = b""
    assert answer[:1] in (b"", b"\x15"), f"an alert of TLS (RFC 8446 section 5.1), or nothing, not {answer!r}"
    client.close()


def http(_site: Site, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
        caller.sendall(b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n")
        caller.recv(1000)


def tomorrow() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


ATTEMPTS: dict[str, tuple[Attempt, str]] = {
    "expired": (refused(own=lambda s: s.ours.issue("old", days=-1, client=True)), "has expired"),
    "not yet": (
        refused(own=lambda s: s.ours.issue("new", not_before=tomorrow(), client=True)),
        "is not valid yet",
    ),
    "unknown authority": (refused(own=lambda s: s.strange.issue("x", client=True)), "is not in tls.client_ca"),
    "none": (refused(), "showed no certificate"),
    "none in 1.2": (refused(version=V12), "showed no certificate"),
    "for servers": (refused(own=lambda s: s.node), "may not be used by a client"),
    "TLS 1.0": (refused(version=V10), "no version of TLS that is allowed"),
    "TLS 1.1": (refused(version=V11), "no version of TLS that is allowed"),
    "CBC ciphers": (refused(version=V12, ciphers="ECDHE-ECDSA-AES128-SHA"), "no cipher in common"),
    "plain DICOM": (plain_dicom, "does not speak TLS"),
    "HTTP": (http, "plain HTTP request"),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_who_is_not_let_in_is_told_in_one_event_and_nobody_else_notices(
    site: Site, node: pynet.Node, name: str
) -> None:
    attempt, reason = ATTEMPTS[name]
    served = site.stage.serve({"a": node.port}, tls=site.asking())
    good = TlsClient(served.port, context(own=site.device)).associate()
    attempt(site, served.port)
    (event,) = served.ended(1)
    assert event["ended"] == "tls_failed"
    assert reason in event["reason"]
    assert event["node"] is None
    assert event["client"].startswith("127.")
    good.echo()
    good.release()
    visit(served.port, context(own=site.device))
    assert [each["ended"] for each in served.ended(3)] == ["tls_failed", "released", "released"]


def test_only_named_devices_are_let_in(site: Site, node: pynet.Node, version: str) -> None:
    """Both have a certificate of the hospital's authority, as a web server of the hospital has, too."""
    asking = {**site.asking(), "client_names": ["mr?.example", "CT*.EXAMPLE"]}
    served = site.stage.serve({"a": node.port}, tls=asking)
    other = site.ours.issue("Printer", names=("printer.example",), addresses=(), client=True, rsa_bits=2048)
    refused_one = run("echoscu", *dcmtk_tls(other, site.ours), "127.0.0.1", str(served.port))
    assert refused_one.returncode != 0
    (event,) = served.ended(1)
    assert (event["ended"], event["node"]) == ("tls_failed", None)
    assert "Printer, printer.example" in event["reason"]
    assert "tls.client_names" in event["reason"]
    let_in = run("echoscu", *dcmtk_tls(site.device, site.ours), "127.0.0.1", str(served.port))
    assert let_in.returncode == 0, let_in.stderr
    assert [each["ended"] for each in served.ended(2)] == ["tls_failed", "released"]


@pytest.mark.parametrize("version", ["1.2"], indirect=True)
def test_a_client_that_is_refused_hears_why(site: Site, node: pynet.Node, version: str) -> None:
    """DCMTK writes it into its log, so that the modality's administrator knows; not under TLS 1.3, though."""
    served = site.stage.serve({"a": node.port}, tls=site.asking())
    old = site.ours.issue("old device", days=-1, client=True)
    done = run("echoscu", "-v", *dcmtk_tls(old, site.ours), "127.0.0.1", str(served.port))
    assert done.returncode != 0
    assert "expired" in done.stdout + done.stderr


def test_dcmtk_refuses_a_balancer_of_another_authority_and_we_hear_it(site: Site, node: pynet.Node) -> None:
    served = site.stage.serve({"a": node.port}, tls=site.tls())
    done = run("echoscu", *dcmtk_tls(site.device, site.strange), "127.0.0.1", str(served.port))
    assert done.returncode != 0
    (event,) = served.ended(1)
    assert event["ended"] == "tls_failed"
    assert "the client refuses the certificate of this balancer (tls.cert)" in event["reason"]


def test_tls_on_a_plain_port(site: Site, node: pynet.Node) -> None:
    served = site.stage.serve({"a": node.port})
    with pytest.raises(ssl.SSLError):
        TlsClient(served.port, context())
    (event,) = served.ended(1)
    assert event["node"] is None
    assert "TLS" in event["reason"]
    pynet.visit(served.port)


def test_old_devices_stay_plain_on_another_port(site: Site, node: pynet.Node) -> None:
    old, secure = free_port(), free_port()
    listen = [f"127.0.0.1:{port}" for port in (old, secure)]
    served = site.stage.serve({"a": node.port}, listen=listen, tls=site.tls(ports=[secure]))
    visit(secure, context())
    pynet.visit(old)
    assert [event["tls"] for event in served.ended(2)] == ["TLSv1.3", None]


@pytest.mark.parametrize("drip", [0, 1], ids=["silent", "a byte at a time"])
def test_a_handshake_that_never_ends_is_ended(site: Site, node: pynet.Node, drip: int) -> None:
    served = site.stage.serve({"a": node.port}, tls=site.tls(), dicom={"artim": f"{SHORT_S:g}s"})
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)
    began_s = time.monotonic()
    with socket.create_connection(("127.0.0.1", served.port), timeout=0.1) as caller:
        caller.sendall(hello[:5])
        while time.monotonic() < began_s + 20 * SHORT_S:
            try:
                if drip:
                    caller.sendall(hello[5:6])
                if not caller.recv(100):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    assert time.monotonic() - began_s < 10 * SHORT_S
    (event,) = served.ended(1)
    assert event["ended"] in ("timed_out", "tls_failed")
    assert "TLS" in event["reason"]
    visit(served.port, context())


def test_a_client_may_leave_in_the_middle_of_the_handshake(site: Site, node: pynet.Node) -> None:
    served = site.stage.serve({"a": node.port}, tls=site.tls())
    for sent in (b"", b"\x16\x03\x01\x02\x00"):
        with socket.create_connection(("127.0.0.1", served.port)) as caller:
            caller.sendall(sent)
    found = served.ended(2)
    assert [event["node"] for event in found] == [None, None]
    assert {event["ended"] for event in found} == {"tls_failed"}
    visit(served.port, context())


def test_a_client_hello_that_is_there_first_is_not_lost(site: Site, node: pynet.Node) -> None:
    """Twenty at once: most have spoken before the balancer has looked."""
    served = site.stage.serve({"a": node.port}, tls=site.tls())
    for _ in range(3):
        begun = [HalfOpen(served.port) for _ in range(20)]
        for client in begun:
            client.finish()


class HalfOpen:
    """A client that sends its ClientHello at once, and looks for the answer later."""

    def __init__(self, port: int) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context().wrap_bio(self._incoming, self._outgoing)
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.do_handshake()
        self._end = socket.create_connection(("127.0.0.1", port), timeout=5)
        self._end.sendall(self._outgoing.read())

    def finish(self) -> None:
        """Finish the handshake."""
        with self._end:
            while True:
                data = self._end.recv(65536)
                assert data, "closed in the handshake"
                self._incoming.write(data)
                try:
                    return self._tls.do_handshake()
                except ssl.SSLWantReadError:
                    continue


# Nodes that are not who they should be


def tls_node(directory: Path, own: Issued, authority: Authority, *more: str) -> Peer:
    return storescp(free_port(), directory, *KEEP_ALL, *dcmtk_tls(own, authority, *more))


def test_a_node_that_is_not_who_it_should_be_gets_nothing(site: Site, tmp_path: Path) -> None:
    wrong = {
        "expired": (site.ours.issue("node-old", days=-1), "has expired"),
        "name": (site.ours.issue("node-else", names=("a.example",), addresses=()), "is not for the name or address"),
        "stranger": (site.strange.issue("node"), "is not in node_tls.ca"),
        "client": (site.device, "may not be used by a server"),
    }
    for name, (own, reason) in wrong.items():
        with (
            tls_node(tmp_path / name, own, site.ours, "-ic") as bad,
            tls_node(tmp_path / "up", site.node, site.ours, "-ic") as up,
        ):
            served = site.stage.serve({"bad": bad.port}, node_tls=site.node_tls(), health=checked_elsewhere(up.port))
            done = run("storescu", "127.0.0.1", str(served.port), str(FILES[0].path))
            assert done.returncode != 0
            (event,) = served.ended(1)
            assert event["node"] is None
            assert list((tmp_path / name).iterdir()) == []
            assert reason in event["reason"], name


def test_the_next_node_is_tried(site: Site, tmp_path: Path) -> None:
    with (
        tls_node(tmp_path / "bad", site.strange.issue("node"), site.ours, "-ic") as bad,
        tls_node(tmp_path / "good", site.node, site.ours, "-ic") as good,
        storescp(free_port(), tmp_path / "plain", *KEEP_ALL) as plain,
    ):
        nodes = {"bad": bad.port, "plain": plain.port, "good": good.port}
        served = site.stage.serve(
            nodes, node_tls=site.node_tls(), dicom={"connect_timeout": "5s"}, health=checked_elsewhere(good.port)
        )
        send(served, "-xe", files=EXPLICIT_FILES)
        (event,) = served.ended(1)
    assert (event["node"], event["tried"]) == ("good", ["bad", "plain", "good"])
    assert_same(stored(tmp_path / "good"), contents(file.path for file in EXPLICIT_FILES))


def test_what_is_not_asked_for_is_not_verified(site: Site, tmp_path: Path) -> None:
    elsewhere = site.ours.issue("elsewhere", names=("a.example",), addresses=())
    with (
        tls_node(tmp_path / "else", elsewhere, site.ours, "-ic") as other_name,
        tls_node(tmp_path / "strange", site.strange.issue("node"), site.ours, "-ic") as stranger,
    ):
        for port, node_tls in [
            (other_name.port, site.node_tls(verify="authority")),
            (other_name.port, site.node_tls(server_name="a.example")),
            (stranger.port, {"verify": "none"}),
        ]:
            pynet.visit(site.stage.serve({"a": port}, node_tls=node_tls).port)


def test_a_node_that_refuses_our_certificate(site: Site, tmp_path: Path) -> None:
    """Under TLS 1.3 the node says so after the handshake; it is explained all the same."""
    with tls_node(tmp_path / "node", site.node, site.ours) as strict:
        ours = {
            "none": (None, "asks for a certificate and was shown none"),
            "strange": (site.strange.issue("us", client=True), "refuses the certificate of this balancer"),
        }
        for name, (own, reason) in ours.items():
            more = {} if own is None else {"cert": str(own.both)}
            served = site.stage.serve({"a": strict.port}, node_tls=site.node_tls(**more))
            assert not pynet.associate(served.port).is_established
            (event,) = served.ended(1)
            assert reason in event["reason"], (name, event)


def test_a_node_that_says_nothing_in_the_handshake(site: Site, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings: dict[str, Any] = {"connect_timeout": "500ms", "setup_timeout": "3s"}
        with tls_node(tmp_path / "up", site.node, site.ours, "-ic") as up:
            served = site.stage.serve(
                {"a": listener.getsockname()[1]},
                node_tls=site.node_tls(),
                dicom=settings,
                health=checked_elsewhere(up.port),
            )
        began_s = time.monotonic()
        assert not pynet.associate(served.port).is_established
        assert time.monotonic() - began_s < 12
        (event,) = served.ended(1)
    assert event["node"] is None


# Large objects


def big_object(megabytes: int) -> Dataset:
    """Return an image whose pixels repeat nowhere."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.PatientID, image.PatientName, image.Modality = "BIG", "Big^Object", "OT"
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
    image.Rows, image.Columns = megabytes * 512, 1024
    words = (number.to_bytes(4, "little") for number in range(megabytes << 18))
    image.PixelData = b"".join(words)
    return image


def archive_context(own: Issued) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(own.both)
    return made


def test_large_objects_are_the_same_in_both_directions(site: Site) -> None:
    """Stored through TLS on both sides, and got back with C-GET: each byte is encrypted four times."""
    kept: dict[str, Dataset] = {}

    def keep(event: evt.Event) -> int:
        event.dataset.file_meta = event.file_meta
        kept[event.dataset.SOPInstanceUID] = event.dataset
        return 0x0000

    def give(event: evt.Event) -> Iterator[Any]:
        yield len(kept)
        for each in kept.values():
            yield 0xFF00, each

    def begin(got: dict[str, Dataset]) -> Any:
        def take(event: evt.Event) -> int:
            got[event.dataset.SOPInstanceUID] = event.dataset
            return 0x0000

        return take

    get = "1.2.840.10008.5.1.4.1.2.2.3"
    entity = pynet.entity("ARCHIVE")
    entity.add_supported_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian, scu_role=True, scp_role=True)
    entity.add_supported_context(get)
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        ssl_context=archive_context(site.node),
        evt_handlers=[(evt.EVT_C_STORE, keep), (evt.EVT_C_GET, give)],
    )
    try:
        served = site.stage.serve({"a": int(server.server_address[1])}, tls=site.asking(), node_tls=site.node_tls())
        image, got = big_object(32), dict[str, Dataset]()
        with_tls = {"tls_args": (context(own=site.device), "localhost")}
        client = pynet.entity("CT3")
        contexts = [build_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian), build_context(get)]
        opened = client.associate(
            "127.0.0.1",
            served.port,
            contexts=contexts,
            ext_neg=[build_role(SecondaryCaptureImageStorage, scp_role=True, scu_role=True)],
            evt_handlers=[(evt.EVT_C_STORE, begin(got))],
            **with_tls,
        )
        assert opened.is_established
        assert opened.send_c_store(image).Status == 0x0000
        query = Dataset()
        query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", image.StudyInstanceUID
        statuses = [status.Status for status, _ in opened.send_c_get(query, get)]
        opened.release()
        (event,) = served.ended(1)
    finally:
        server.shutdown()
    assert statuses[-1] == 0x0000
    for there in (kept, got):
        (arrived,) = there.values()
        assert content_of(arrived, "x") == content_of(image, "x")
    assert event["ended"] == "released"
    assert event["bytes_in"] > 32 << 20
    assert event["bytes_out"] > 32 << 20


def test_real_files_arrive_as_they_were(site: Site, tmp_path: Path) -> None:
    with tls_node(tmp_path / "arrived", site.node, site.ours, "-ic") as receiver:
        served = site.stage.serve({"a": receiver.port}, tls=site.tls(), node_tls=site.node_tls())
        pairs = sorted({(file.sop_class, file.transfer_syntax) for file in FILES})
        opened = pynet.entity("CT3").associate(
            "127.0.0.1",
            served.port,
            contexts=[build_context(sop_class, [syntax]) for sop_class, syntax in pairs],
            tls_args=(context(), "localhost"),
        )
        assert opened.is_established
        assert {opened.send_c_store(file.path).Status for file in FILES} == {0x0000}
        opened.release()
    assert_same(stored(tmp_path / "arrived"), contents(file.path for file in FILES))


# Certificates come and go


def test_a_renewed_certificate_is_taken_and_nothing_is_lost(site: Site, node: pynet.Node) -> None:
    own = site.ours.issue("renewed", days=5)
    served = site.stage.serve({"a": node.port}, tls={"cert": str(own.both)})
    before = TlsClient(served.port, context()).associate()
    before.echo()
    site.ours.issue("renewed", days=300)
    process = site.stage.balancer.process
    assert process is not None
    process.send_signal(signal.SIGHUP)

    def renewed() -> TlsClient | None:
        client = TlsClient(served.port, context()).associate()
        if client.shown() != before.shown():
            return client
        client.release()
        return None

    after = eventually(renewed, what="the renewed certificate")
    for client in (before, after):
        client.echo()
        client.release()
    assert {event["ended"] for event in site.stage.balancer.events("association.ended")[-2:]} == {"released"}


def test_a_certificate_that_cannot_be_used_is_refused_and_the_old_one_goes_on(site: Site, node: pynet.Node) -> None:
    own = site.ours.issue("half renewed")
    other = site.ours.issue("other")
    served = site.stage.serve({"a": node.port}, tls={"cert": str(own.cert), "key": str(own.key)})
    before = TlsClient(served.port, context()).associate()
    own.key.write_bytes(other.key.read_bytes())
    document = site.stage.balancer.site.read_text()
    answer = site.stage.balancer.post("apply", document=document, force=True)
    assert answer.status_code != 200
    assert "does not belong to the certificate" in answer.text
    assert f"services.{served.name}.tls.key" in answer.text
    before.echo()
    before.release()
    visit(served.port, context())


def test_a_file_that_is_missing_is_named_with_its_place(site: Site, tmp_path: Path) -> None:
    document = tmp_path / "site.yaml"
    tls = {"cert": str(tmp_path / "missing.pem")}
    service = {"protocol": "dicom", "listen": "127.0.0.1", "tls": tls, "nodes": {"a": {"address": "127.0.0.2:104"}}}
    document.write_text(json.dumps({"site": "x", "services": {"pacs": service}}, indent=1))
    for command in ("check", "plan"):
        done = site.stage.balancer.cli(command, str(document))
        assert done.returncode == 1, command
        assert "services.pacs.tls.cert" in done.stdout + done.stderr
        assert "there is no such file" in done.stdout + done.stderr


def test_the_status_says_when_certificates_end(site: Site, node: pynet.Node) -> None:
    soon = site.ours.issue("ends soon", days=12.5)
    served = site.stage.serve({"a": node.port}, tls={"cert": str(soon.both)})
    shown = eventually(lambda: served.status().get("tls"), what="tls in the status")
    assert shown["tls.cert"]["days_left"] == 12
    assert shown["tls.cert"]["names"] == ["localhost", "127.0.0.1"]

    def told() -> list[Any]:
        return [each for each in site.stage.balancer.events("certificate.") if each["service"] == served.name]

    (event,) = eventually(told, what="the event")
    assert (event["kind"], event["file"], event["days_left"]) == ("certificate.expiring", "tls.cert", 12)


# What is written down


def test_names_in_events_are_one_printable_line(site: Site, node: pynet.Node) -> None:
    nasty = site.ours.issue("x\x1b[2J\n{}", names=tuple(f"{n}.example" for n in range(100)), client=True)
    served = site.stage.serve({"a": node.port}, tls=site.asking())
    visit(served.port, context(own=nasty))
    (event,) = served.ended(1)
    assert event["certificate"].startswith("x?[2J?{}, 0.example, 1.example")
    assert len(event["certificate"]) <= 200


def test_no_key_is_written_down_anywhere(site: Site, node: pynet.Node) -> None:
    """Runs last: all that the tests above have left is searched."""
    served = site.stage.serve({"a": node.port}, tls=site.asking(), node_tls=site.node_tls(cert=str(site.device.both)))
    refused()(site, served.port)
    served.ended(1)
    secrets = [
        line.encode()
        for key in (site.balancer.key, site.device.key, site.node.key)
        for line in key.read_text().splitlines()
        if len(line) > 20 and not line.startswith("-----")
    ]
    assert len(secrets) >= 3
    home = site.stage.balancer.home
    files = [path for folder in (home / "state", home / "run") for path in folder.rglob("*") if path.is_file()]
    written = [path.read_bytes() for path in [*files, home / "run.log"]]
    written += [json.dumps(site.stage.balancer.get(page)).encode() for page in ("status", "events?limit=5000")]
    assert len(written) > 3
    for content in written:
        assert b"PRIVATE KEY" not in content
        assert not any(secret in content for secret in secrets)

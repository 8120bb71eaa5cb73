"""The PROXY protocol with HAProxy, its inventor, in front of the balancer and behind it; and with clients who lie."""

import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import build_context

from equipoise.proto.dicom.pdu import PduType
from equipoise.proto.proxy_protocol import Address, Header, HeaderReader, encode
from equipoise.sim.ports import free_port
from tests.system import pynet
from tests.system.balancer import eventually
from tests.system.certificates import Authority, Issued
from tests.system.rawpeer import ECHO_RQ, RawClient
from tests.system.stage import Served, Stage, checked_elsewhere

VERSIONS = ("v1", "v2")
SENDS = {"v1": "send-proxy", "v2": "send-proxy-v2"}
CLAIMED, CALLED = ("192.0.2.77", 40000), ("192.0.2.1", 104)  # documentation addresses: RFC 5737
SHORT_S = 1.0


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    return Authority(tmp_path_factory.mktemp("authority")).issue("balancer")


@pytest.fixture
def node() -> Iterator[pynet.Node]:
    with pynet.Node() as node:
        yield node


@contextmanager
def haproxy(directory: Path, bind: str, server: str, log: str = "") -> Iterator[None]:
    """Run HAProxy with one listener and one server; both lines as in its configuration."""
    file = directory / "haproxy.cfg"
    logging = f"  log {log} format raw local0\n" if log else ""
    file.write_text(
        f"global\n  maxconn 100\n{logging}"
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
        f"  {'log global' if log else 'no log'}\n  log-format 'client=%ci:%cp'\n"
        f"listen it\n  bind {bind}\n  server it {server}\n"
    )
    with (directory / "haproxy.log").open("wb") as output:
        process = subprocess.Popen(["haproxy", "-db", "-f", str(file)], stdout=output, stderr=output)
    port = int(bind.split(maxsplit=1)[0].rpartition(":")[2])
    try:
        eventually(lambda: _listens(port), what=f"HAProxy: {file.read_text()}")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _listens(port: int) -> bool:
    table = Path("/proc/net/tcp").read_text().splitlines()[1:]  # a connection would be one more client
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in table)


class Recorder:
    """A listener that reads one PROXY header exactly, and what comes behind it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.wire = bytearray()
        self.header: Header | None = None
        self.behind = b""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        end, _ = self._listener.accept()
        with end:
            end.settimeout(5)
            reader = HeaderReader()
            while self.header is None:
                data = end.recv(reader.wanted())
                assert data
                self.wire += data
                self.header = reader.feed(data)
            with suppress(ConnectionResetError):  # a check of HAProxy ends like that
                self.behind = end.recv(100)

    def wait(self) -> "Recorder":
        """Wait until header and one read behind it have come."""
        self._thread.join(10)
        self._listener.close()
        assert self.header is not None
        return self


def through(port: int, said: bytes, *, source: str = "127.0.0.1") -> Address:
    """Send something, and return where from; the connection stays until it is collected."""
    with socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(source, 0)) as caller:
        caller.sendall(said)
        time.sleep(0.3)
        name = caller.getsockname()
        return name[0], name[1]


# The codec against HAProxy's


@pytest.mark.parametrize("version", VERSIONS)
def test_haproxy_writes_the_same_header_as_we_do(tmp_path: Path, version: str) -> None:
    recorder, port = Recorder(), free_port()
    with haproxy(tmp_path, f"127.0.0.1:{port}", f"127.0.0.1:{recorder.port} {SENDS[version]}"):
        source = through(port, b"\x01hello", source="127.0.0.9")
        recorder.wait()
    assert recorder.header == Header(version, source, ("127.0.0.1", port))
    assert bytes(recorder.wire) == encode(version, source, ("127.0.0.1", port))
    assert recorder.behind == b"\x01hello"


@pytest.mark.parametrize("version", VERSIONS)
def test_haproxy_writes_ipv6_as_we_do(tmp_path: Path, version: str) -> None:
    recorder, port = Recorder(), free_port()
    with (
        haproxy(tmp_path, f"127.0.0.1:{port} accept-proxy", f"127.0.0.1:{recorder.port} {SENDS[version]}"),
        socket.create_connection(("127.0.0.1", port)) as caller,
    ):
        source, destination = ("2001:db8::7", 40000), ("2001:db8::1", 104)
        caller.sendall(encode("v2", source, destination) + b"behind")
        recorder.wait()
    assert recorder.header == Header(version, source, destination)
    assert bytes(recorder.wire) == encode(version, source, destination)


def test_what_haproxy_adds_to_a_header_is_skipped(tmp_path: Path, certificate: Issued) -> None:
    """A checksum, TLS details of its client and a unique number."""
    recorder, port = Recorder(), free_port()
    options = "send-proxy-v2-ssl-cn proxy-v2-options crc32c,ssl,cert-cn,ssl-cipher,unique-id"
    with haproxy(tmp_path, f"127.0.0.1:{port} ssl crt {certificate.both}", f"127.0.0.1:{recorder.port} {options}"):
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", port)) as raw, client.wrap_socket(raw) as caller:
            source = caller.getsockname()
            caller.sendall(b"hello")
            recorder.wait()
    assert recorder.header == Header("v2", source, ("127.0.0.1", port))
    assert len(recorder.wire) > 60
    assert recorder.behind == b"hello"


def test_haproxys_health_checks_come_from_itself(tmp_path: Path) -> None:
    recorder, port = Recorder(), free_port()
    with haproxy(
        tmp_path, f"127.0.0.1:{port}", f"127.0.0.1:{recorder.port} send-proxy-v2 check-send-proxy check inter 1s"
    ):
        recorder.wait()
    assert recorder.header == Header("v2", None, None)
    assert bytes(recorder.wire) == encode("v2", None, None)


@pytest.mark.parametrize("version", VERSIONS)
def test_haproxy_reads_our_headers(tmp_path: Path, version: str) -> None:
    for source, destination, shown in (
        (CLAIMED, CALLED, "client=192.0.2.77:40000"),
        (("2001:db8::7", 40000), ("2001:db8::1", 104), "client=2001:db8::7:40000"),
        (("192.0.2.77", 40000), ("2001:db8::1", 104), "client=::ffff:192.0.2.77:40000"),
        (None, None, "client=127.0.0.1:"),
    ):
        port = free_port()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as log, socket.create_server(("127.0.0.1", 0)) as end:
            log.bind(("127.0.0.1", 0))
            log.settimeout(5)
            logged_to = f"127.0.0.1:{log.getsockname()[1]}"
            with haproxy(tmp_path, f"127.0.0.1:{port} accept-proxy", f"127.0.0.1:{end.getsockname()[1]}", logged_to):
                with socket.create_connection(("127.0.0.1", port)) as caller:
                    caller.sendall(encode(version, source, destination) + b"hello")
                    taken, _ = end.accept()
                    taken.close()
                assert shown in _said(log, "client=")


def _said(log: socket.socket, word: str) -> str:
    while True:
        line = log.recv(4096).decode()
        if word in line:
            return line


# In front of the balancer


def accepting(stage: Stage, node: pynet.Node, **more: Any) -> Served:
    return stage.serve(
        {"a": node.port}, proxy_protocol={"accept": True}, allow_from=more.pop("allow_from", ["127.0.0.1/32"]), **more
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_haproxy_in_front(stage: Stage, node: pynet.Node, tmp_path: Path, version: str) -> None:
    served, port = accepting(stage, node), free_port()
    with haproxy(tmp_path, f"127.0.0.1:{port}", f"127.0.0.1:{served.port} {SENDS[version]}"):
        pynet.visit(port, source="127.0.0.44")
        (event,) = served.ended(1)
    assert event["ended"] == "released"
    assert event["client"].startswith("127.0.0.44:")
    assert event["node"] == "a"


def test_haproxys_checks_in_front_do_no_harm(stage: Stage, node: pynet.Node, tmp_path: Path) -> None:
    served, port = accepting(stage, node), free_port()
    server = f"127.0.0.1:{served.port} send-proxy-v2 check-send-proxy check inter 200ms"
    with haproxy(tmp_path, f"127.0.0.1:{port}", server):
        time.sleep(1)
        pynet.visit(port, source="127.0.0.44")

    def ended() -> list[Any]:
        return [event for event in stage.balancer.events("association.ended") if event["service"] == served.name]

    eventually(lambda: "released" in [event["ended"] for event in ended()], what="the visit")
    assert [event["client"].partition(":")[0] for event in ended() if event["ended"] == "released"] == ["127.0.0.44"]
    assert {event["ended"] for event in ended()} <= {"released", "no_request"}


class Headed(RawClient):
    """A client of 127.0.0.1 that says what it likes first."""

    def __init__(self, port: int, said: Sequence[bytes], *, pause_s: float = 0.0) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.called, self.calling = "PACS", "HEADED"
        for piece in said:
            self.send(piece)
            time.sleep(pause_s)

    def echo(self) -> None:
        """Ask, hear the answer, and leave."""
        self.send(ECHO_RQ)
        found = self.pdu()
        assert found is not None
        assert found.type is PduType.DATA_TF
        self.release()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_header_in_pieces_is_a_header(stage: Stage, node: pynet.Node, version: str) -> None:
    served = accepting(stage, node)
    header = encode(version, CLAIMED, CALLED)
    pieces = [header[at : at + 1] for at in range(len(header))]
    client = Headed(served.port, pieces, pause_s=0.005)
    client.associate()
    client.echo()
    (event,) = served.ended(1)
    assert event["client"] == "192.0.2.77:40000"


@pytest.mark.parametrize("version", VERSIONS)
def test_all_in_one_segment(stage: Stage, node: pynet.Node, version: str) -> None:
    served = accepting(stage, node)
    client = Headed(served.port, [])
    client.send(encode(version, CLAIMED, CALLED) + client.request())
    found = client.pdu()
    assert found is not None
    assert found.type is PduType.ASSOCIATE_AC
    client.echo()
    assert served.ended(1)[0]["client"] == "192.0.2.77:40000"


@pytest.mark.parametrize("version", VERSIONS)
def test_tls_comes_behind_the_header(stage: Stage, node: pynet.Node, certificate: Issued, version: str) -> None:
    """Twenty times: header and ClientHello arrive in one segment, and nothing of it is lost."""
    served = accepting(stage, node, tls={"cert": str(certificate.both)})
    used = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    used.check_hostname, used.verify_mode = False, ssl.CERT_NONE
    for _ in range(20):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secured = used.wrap_bio(incoming, outgoing)
        with pytest.raises(ssl.SSLWantReadError):
            secured.do_handshake()
        with socket.create_connection(("127.0.0.1", served.port), timeout=5) as caller:
            caller.sendall(encode(version, CLAIMED, CALLED) + outgoing.read())
            incoming.write(caller.recv(65536))
            _finish(secured, incoming, caller)
            assert secured.version() == "TLSv1.3"
    found = served.ended(20)
    assert {event["client"] for event in found} == {"192.0.2.77:40000"}
    assert {event["tls"] for event in found} <= {"TLSv1.3", None}


def _finish(secured: ssl.SSLObject, incoming: ssl.MemoryBIO, caller: socket.socket) -> None:
    while True:
        try:
            return secured.do_handshake()
        except ssl.SSLWantReadError:
            incoming.write(caller.recv(65536))


def test_haproxy_in_front_with_tls_passed_through(
    stage: Stage, node: pynet.Node, certificate: Issued, tmp_path: Path
) -> None:
    served, port = accepting(stage, node, tls={"cert": str(certificate.both)}), free_port()
    used = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    used.check_hostname, used.verify_mode = False, ssl.CERT_NONE
    with haproxy(tmp_path, f"127.0.0.1:{port}", f"127.0.0.1:{served.port} send-proxy-v2"):
        opened = pynet.entity().associate("127.0.0.1", port, tls_args=(used, "x"), **_verification())
        assert opened.is_established
        assert pynet.echo(opened) == 0
        opened.release()
        (event,) = served.ended(1)
    assert (event["ended"], event["tls"]) == ("released", "TLSv1.3")


def _verification() -> dict[str, Any]:
    return {"contexts": [build_context(pynet.VERIFICATION)], "bind_address": ("127.0.0.44", 0)}


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (None, "but a DICOM A-ASSOCIATE-RQ"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "but a TLS ClientHello"),
        (b"GET / HTTP/1.1\r\n\r\n", "but an HTTP request"),
        (b"PROXY TCP4 192.0.2.77 192.0.2.1 40000 70000\r\n", "is not of the form"),
        (b"PROXY UNKNOWN" + b" " * 200, "without an end within 107 bytes"),
        (encode("v2", None, None)[:14] + b"\xff\xff" + bytes(60), "at most 4096 accepted"),
    ],
    ids=["dicom", "tls", "http", "wrong", "endless", "huge"],
)
def test_who_comes_without_a_header_is_not_let_in(
    stage: Stage, node: pynet.Node, said: bytes | None, what: str
) -> None:
    served = accepting(stage, node)
    client = Headed(served.port, [])
    client.send(client.request() if said is None else said)
    assert client.pdu() is None
    (event,) = served.ended(1)
    assert event["ended"] == "proxy_failed"
    assert what in event["reason"]
    assert event["client"].startswith("127.0.0.1:")
    assert node.seen == []


def test_only_those_in_allow_from_are_believed(stage: Stage, node: pynet.Node) -> None:
    """A client that is not the outer balancer cannot say that it is somebody else: its own address counts."""
    served = accepting(stage, node, allow_from=["127.0.0.200/32"])
    client = Headed(served.port, [encode("v1", ("127.0.0.200", 1), CALLED)])
    client.send(client.request())
    found = client.pdu()
    assert found is None or found.type is PduType.ASSOCIATE_RJ
    eventually(lambda: stage.balancer.events("association.ended")[-1]["service"] == served.name)
    assert stage.balancer.events("association.ended")[-1]["ended"] != "released"
    assert node.seen == []


def test_a_client_of_an_allowed_balancer_may_be_anybody(stage: Stage, node: pynet.Node) -> None:
    served = accepting(stage, node)
    client = Headed(served.port, [encode("v2", CLAIMED, CALLED)])
    client.associate()
    client.echo()
    assert served.ended(1)[0]["ended"] == "released"


@pytest.mark.parametrize("sent", [b"", b"PROXY TCP4 192.0.2", encode("v2", CLAIMED, CALLED)[:20]])
def test_a_header_that_never_ends_is_ended(stage: Stage, node: pynet.Node, sent: bytes) -> None:
    served = accepting(stage, node, dicom={"artim": f"{SHORT_S:g}s"})
    began_s = time.monotonic()
    client = Headed(served.port, [sent] if sent else [])
    assert client.rest(20 * SHORT_S) == b""
    assert SHORT_S / 2 < time.monotonic() - began_s < 10 * SHORT_S
    (event,) = served.ended(1)
    assert event["ended"] == "timed_out"
    assert "PROXY header" in event["reason"]


def test_a_client_that_leaves_in_its_header(stage: Stage, node: pynet.Node) -> None:
    served = accepting(stage, node)
    Headed(served.port, [b"PROXY TCP4 192.0"]).close()
    assert served.ended(1)[0]["ended"] == "no_request"


def test_a_header_where_none_is_expected(stage: Stage, node: pynet.Node) -> None:
    """Never detected by itself: who sends one unasked is a client that speaks no DICOM."""
    served = stage.serve({"a": node.port})
    client = Headed(served.port, [encode("v1", CLAIMED, CALLED)])
    client.send(client.request())
    assert client.farewell() is not None
    (event,) = served.ended(1)
    assert event["ended"] != "released"
    assert event["client"].startswith("127.0.0.1:")


# Behind the balancer


@pytest.mark.parametrize("version", VERSIONS)
def test_haproxy_behind(stage: Stage, node: pynet.Node, tmp_path: Path, version: str) -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as log:
        log.bind(("127.0.0.1", 0))
        log.settimeout(5)
        logged_to = f"127.0.0.1:{log.getsockname()[1]}"
        with haproxy(tmp_path, f"127.0.0.1:{port} accept-proxy", f"127.0.0.1:{node.port}", logged_to):
            served = stage.serve({"a": port}, proxy_protocol=version)
            pynet.visit(served.port, source="127.0.0.44")
            (event,) = served.ended(1)
            assert event["ended"] == "released"
            while "client=127.0.0.44:" not in (line := _said(log, "client=")):
                assert "client=127.0.0.1:" in line  # of a check
    assert len(node.seen) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_checks_of_nodes_that_expect_a_header_send_one(
    stage: Stage, node: pynet.Node, tmp_path: Path, version: str
) -> None:
    port = free_port()
    check = {"check": "dicom_echo", "interval": "1h", "rise": 1, "fall": 1}
    with haproxy(tmp_path, f"127.0.0.1:{port} accept-proxy", f"127.0.0.1:{node.port}"):
        served = stage.serve({"a": port}, proxy_protocol=version, health=check)
        served.wait_state("a", "up")


@pytest.mark.parametrize("version", VERSIONS)
def test_who_came_through_an_outer_balancer_is_told_to_the_node(stage: Stage, node: pynet.Node, version: str) -> None:
    """Accepted on one side and sent on the other: the node sees the first client, and the address that it called."""
    recorder = Recorder()
    served = stage.serve(
        {"a": recorder.port},
        proxy_protocol={"accept": True, "send": version},
        allow_from=["127.0.0.1/32"],
        health=checked_elsewhere(node.port),  # the recorder takes one connection
    )
    client = Headed(served.port, [encode("v2", CLAIMED, CALLED)])
    client.send(client.request())
    recorder.wait()
    client.close()
    assert recorder.header == Header(version, CLAIMED, CALLED)
    assert recorder.behind[:1] == b"\x01"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_header_comes_before_tls_to_a_node(
    stage: Stage, node: pynet.Node, certificate: Issued, tmp_path: Path, version: str
) -> None:
    port = free_port()
    bind = f"127.0.0.1:{port} accept-proxy ssl crt {certificate.both}"
    with haproxy(tmp_path, bind, f"127.0.0.1:{node.port}"):
        served = stage.serve({"a": port}, proxy_protocol=version, node_tls={"verify": "none"})
        pynet.visit(served.port)
        (event,) = served.ended(1)
    assert event["ended"] == "released"


def test_a_node_that_expects_no_header_refuses_it(stage: Stage, node: pynet.Node) -> None:
    """What it looks like when the two are not configured alike: the reason is in the event."""
    served = stage.serve({"a": node.port}, proxy_protocol="v1")
    assert not pynet.associate(served.port).is_established
    (event,) = served.ended(1)
    assert event["node"] is None or event["ended"] != "released"

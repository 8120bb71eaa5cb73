"""TLS of web services on both sides: certificates by name, of clients and of nodes, renewed while all goes on.

curl stands for OpenSSL's world; what no program does is done with Python's `ssl`.
"""

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest

from equipoise.sim.ports import free_port
from tests.system.balancer import eventually
from tests.system.certificates import Authority, Issued
from tests.system.stage import Served
from tests.system.web import WebNode
from tests.system.web_client import Crowd, RawWeb, client, curl
from tests.system.web_stage import QUICK, WebStage


@dataclass
class Site:
    """A stage, an authority that everybody trusts, and one that nobody knows."""

    stage: WebStage
    ours: Authority
    strange: Authority

    def serve(self, node: Any, tls: dict[str, Any] | None = None, **settings: Any) -> Served:
        """Put a portal on the stage that ends TLS."""
        issued = self.ours.issue("portal", names=("localhost", "portal.example"))
        keys = {"cert": str(issued.cert), "key": str(issued.key), **(tls or {})}
        return self.stage.serve({"a": node}, protocol="https", tls=keys, **settings)

    def curl(self, url: str, *more: str | Path, check: bool = True) -> tuple[str, str, int]:
        """Return what curl says of one request: status, version of HTTP, and its exit code."""
        done = curl("--cacert", self.ours.ca_file, "-o", "/dev/null", "-w", OUT, *more, url, check=check)
        status, version = done.stdout.decode().split()
        return status, version, done.returncode


OUT = "%{http_code} %{http_version}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("tls")
    with WebStage() as stage:
        yield Site(stage, Authority(directory / "ours", "Hospital CA"), Authority(directory / "strange", "Strange CA"))


@pytest.fixture
def node() -> Iterator[WebNode]:
    with WebNode() as node:
        yield node


# Clients


@pytest.mark.parametrize(("option", "version"), [("--http2", "2"), ("--http1.1", "1.1")])
def test_clients_may_speak_either_http(site: Site, node: WebNode, option: str, version: str) -> None:
    served = site.serve(node.port)
    assert site.curl(f"https://localhost:{served.port}/", option)[:2] == ("200", version)
    (arrived,) = node.arrived
    assert (arrived.one("x-forwarded-proto"), arrived.one("host")) == ("https", f"localhost:{served.port}")
    assert "proto=https" in arrived.one("forwarded")


def test_many_requests_of_http_2_share_a_connection(site: Site, node: WebNode) -> None:
    served = site.serve(node.port)
    urls = [f"https://localhost:{served.port}/frames/{number}" for number in range(40)]
    done = curl(
        "--cacert", site.ours.ca_file, "--http2", "--parallel", "-w", "%{num_connects} %{http_code}\n",
        *(each for url in urls for each in ("-o", "/dev/null", url)),
    )  # fmt: skip
    lines = done.stdout.decode().split("\n")[:-1]
    assert [line.split()[1] for line in lines] == ["200"] * 40
    assert sum(int(line.split()[0]) for line in lines) <= 2
    assert sorted(node.targets()) == sorted(f"/frames/{number}" for number in range(40))


@pytest.mark.parametrize("option", ["--http2", "--http1.1"])
def test_the_cookie_is_for_tls_alone_and_kept_by_curl(site: Site, node: WebNode, tmp_path: Path, option: str) -> None:
    served = site.serve(node.port)
    jar, url = tmp_path / "jar", f"https://localhost:{served.port}/"
    head = curl("--cacert", site.ours.ca_file, option, "-c", jar, "-D", "-", "-o", "/dev/null", url).stdout.decode()
    (line,) = (each for each in head.splitlines() if each.lower().startswith("set-cookie"))
    cookie = SimpleCookie(line.partition(":")[2])["EQUIPOISE"]
    assert (cookie["secure"], cookie["httponly"], cookie["samesite"].lower()) == (True, True, "lax")
    again = curl("--cacert", site.ours.ca_file, option, "-b", jar, "-D", "-", "-o", "/dev/null", url).stdout.decode()
    assert "set-cookie" not in again.lower()


def test_plain_ports_send_browsers_to_tls(site: Site, node: WebNode) -> None:
    plain, secure = free_port(), free_port()
    site.serve(
        node.port,
        {"ports": [secure]},
        listen=[f"127.0.0.1:{plain}", f"127.0.0.1:{secure}"],
        http={"redirect_to_https": True, "hsts": "365d"},
    )
    with client(plain) as web:
        answer = web.get("/login?next=/a", headers={"Host": f"portal.example:{plain}"})
        posted = web.post("/login", content=b"name=x", headers={"Host": "portal.example"})
    assert answer.status_code in (301, 302, 307, 308)
    assert answer.headers["location"] == f"https://portal.example:{secure}/login?next=/a"
    assert posted.status_code in (307, 308)  # with another one browsers would come with GET
    assert posted.headers["location"] == f"https://portal.example:{secure}/login"
    assert "strict-transport-security" not in answer.headers  # RFC 6797 section 7.2
    assert node.arrived == []
    to = f"portal.example:{secure}:127.0.0.1"
    start = f"portal.example:{plain}:127.0.0.1"
    url = f"http://portal.example:{plain}/"
    assert site.curl(url, "-L", "--resolve", to, "--resolve", start)[0] == "200"
    with client(secure, ca=site.ours.ca_file, host="localhost") as web:
        assert "max-age=31536000" in web.get("/").headers["strict-transport-security"]


def test_a_port_may_stay_plain(site: Site, node: WebNode) -> None:
    plain, secure = free_port(), free_port()
    both = [f"127.0.0.1:{plain}", f"127.0.0.1:{secure}"]
    site.serve(node.port, {"ports": [secure]}, listen=both)
    with client(plain) as web:
        first = web.get("/")
    assert (first.status_code, "secure" in first.headers["set-cookie"].lower()) == (200, False)
    assert site.curl(f"https://localhost:{secure}/")[0] == "200"
    assert [arrived.one("x-forwarded-proto") for arrived in node.arrived] == ["http", "https"]


def test_each_name_has_its_certificate(site: Site, node: WebNode) -> None:
    archive = site.ours.issue("archive", names=("archive.example", "*.vna.example"), addresses=())
    served = site.serve(node.port, {"more_certificates": [{"cert": str(archive.both)}]})
    for name in ("portal.example", "archive.example", "east.vna.example"):
        url = f"https://{name}:{served.port}/"
        assert site.curl(url, "--resolve", f"{name}:{served.port}:127.0.0.1")[0] == "200", name
        assert node.arrived[-1].one("x-forwarded-host") == f"{name}:{served.port}"
    for unknown in ("other.example", None):
        assert subject(served.port, site.ours, unknown) == "portal"


def test_clients_show_a_certificate_where_one_is_asked_for(site: Site, node: WebNode) -> None:
    served = site.serve(node.port, {"client_ca": str(site.ours.ca_file)})
    url = f"https://localhost:{served.port}/"
    good = site.ours.issue("viewer", client=True, addresses=())
    assert site.curl(url, "--cert", good.cert, "--key", good.key)[0] == "200"
    strange, ended = site.strange.issue("viewer", client=True), site.ours.issue("old", client=True, days=-1)
    for bad in (None, strange.both, ended.both):
        status, _, code = site.curl(url, *(("--cert", bad) if bad else ()), check=False)
        assert (status, code != 0) == ("000", True), bad
    assert len(node.arrived) == 1


def test_old_versions_of_tls_are_refused(site: Site, node: WebNode) -> None:
    served = site.serve(node.port, {"min_version": "1.3"})
    url = f"https://localhost:{served.port}/"
    assert site.curl(url, "--tlsv1.2", "--tls-max", "1.2", check=False)[2] != 0
    assert site.curl(url, "--tlsv1.3")[0] == "200"
    served = site.serve(node.port)
    url = f"https://localhost:{served.port}/"
    assert site.curl(url, "--tlsv1.2", "--tls-max", "1.2")[0] == "200"
    assert site.curl(url, "--tlsv1.0", "--tls-max", "1.1", "--ciphers", "ALL:@SECLEVEL=0", check=False)[2] != 0


def test_a_renewed_certificate_is_shown_and_nobody_is_cut_off(site: Site, node: WebNode) -> None:
    served = site.serve(node.port)
    before = serial(served.port, site.ours)
    master = site.stage.master()
    document = site.stage.balancer.site.read_text()
    tls = ssl.create_default_context(cafile=site.ours.ca_file)
    with RawWeb(served.port, tls=tls) as open_before, Crowd(served.port, tls=tls) as crowd:
        eventually(lambda: crowd.answered > 20, what="a crowd")
        site.ours.issue("portal", names=("localhost", "portal.example"))
        assert site.stage.balancer.post("apply", document=document).status_code == 200
        eventually(lambda: serial(served.port, site.ours) != before, what="the new certificate")
        seen = crowd.answered
        eventually(lambda: crowd.answered > seen + 20, what="a crowd that goes on")
        open_before.send(b"GET /before HTTP/1.1\r\nHost: x\r\n\r\n")
        assert open_before.answer().status == 200
    assert crowd.failures == []
    assert site.stage.master() == master


# Nodes


def test_https_without_tls_is_passed_through(site: Site) -> None:
    issued = site.ours.issue("node-a", names=("portal.example",))
    spoken = Names()
    with WebNode("a", tls=spoken.context(issued)) as node:
        served = site.stage.serve({"a": node.port}, protocol="https")
        to = f"portal.example:{served.port}:127.0.0.1"
        assert site.curl(f"https://portal.example:{served.port}/", "--resolve", to)[0] == "200"
        (arrived,) = node.arrived
        assert (arrived.all("x-forwarded-for"), arrived.all("forwarded")) == ([], [])
        assert spoken.found == ["portal.example"]
        assert subject(served.port, site.ours, "portal.example") == "node-a"


def test_nodes_are_called_with_tls_and_known_by_name(site: Site) -> None:
    spoken, ours = Names(), site.ours.issue("balancer", client=True)
    asking = spoken.context(site.ours.issue("node-a", names=("node.example",)))
    asking.load_verify_locations(site.ours.ca_file)
    asking.verify_mode = ssl.CERT_REQUIRED
    with WebNode("a", tls=asking) as node:
        keys = {"ca": str(site.ours.ca_file), "server_name": "node.example", "cert": str(ours.cert)}
        served = site.serve(node.port, node_tls={**keys, "key": str(ours.key)})
        assert site.curl(f"https://localhost:{served.port}/")[0] == "200"
        assert set(spoken.found) == {"node.example"}


@pytest.mark.parametrize("checked", ["by both", "by HAProxy alone"])
@pytest.mark.parametrize("wrong", ["name", "authority"])
def test_a_node_with_a_wrong_certificate_gets_nothing(site: Site, wrong: str, checked: str) -> None:
    authority = site.ours if wrong == "name" else site.strange
    issued = authority.issue("impostor", names=("other.example" if wrong == "name" else "node.example",))
    tls = Names().context(issued)
    with WebNode("a", tls=tls) as node, WebNode("elsewhere") as elsewhere:
        health = QUICK if checked == "by both" else {**QUICK, "port": elsewhere.port}
        keys = {"ca": str(site.ours.ca_file), "server_name": "node.example"}
        served = site.stage.serve({"a": node.port}, node_tls=keys, health=health)
        with client(served.port) as web:
            assert web.get("/").status_code in (502, 503)
        assert node.arrived == []
        if checked == "by both":
            shown = served.status()["nodes"]["a"]
            assert (shown["state"], "certificate" in shown["check"]["reason"]) == ("down", True)
        else:
            refused = eventually(lambda: served.status()["nodes"]["a"]["refused"], what="the node to be refused")
            assert served.status()["nodes"]["a"]["check"]["ok"]
            assert "TLS" in refused or "SSL" in refused or "certificate" in refused


@pytest.mark.parametrize(("verify", "ca"), [("authority", True), ("none", False)])
def test_less_may_be_asked_of_nodes(site: Site, verify: str, ca: bool) -> None:
    tls = Names().context(site.ours.issue("node-x", names=("other.example",)))
    with WebNode("a", tls=tls) as node:
        keys = {"verify": verify, **({"ca": str(site.ours.ca_file)} if ca else {})}
        served = site.stage.serve({"a": node.port}, node_tls=keys, health=QUICK)
        with client(served.port) as web:
            assert web.get("/").status_code == 200


@dataclass
class Names:
    """The names that clients asked a server for (SNI)."""

    found: list[str | None] = field(default_factory=list)

    def context(self, issued: Issued) -> ssl.SSLContext:
        """Return a server's context that notes them."""
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        made.load_cert_chain(issued.both)
        made.sni_callback = lambda sock, name, _: self.found.append(name)
        return made


def peer(port: int, authority: Authority, name: str | None) -> dict[str, Any]:
    context = ssl.create_default_context(cafile=authority.ca_file)
    context.check_hostname = False
    with (
        socket.create_connection(("127.0.0.1", port), 5) as sock,
        context.wrap_socket(sock, server_hostname=name) as secured,
    ):
        return dict(secured.getpeercert() or {})


def subject(port: int, authority: Authority, name: str | None) -> str:
    ((pair,),) = peer(port, authority, name)["subject"]
    return str(pair[1])


def serial(port: int, authority: Authority) -> str:
    return str(peer(port, authority, "localhost")["serialNumber"])

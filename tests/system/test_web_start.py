"""A file of TLS is spoiled when the balancer starts: what HAProxy has it keeps, what it lacks is left out, no other is.

After a power cut one half-copied certificate must not keep the other services of a hospital down (ADR 0007).
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from equipoise.sim.ports import free_port
from tests.system.balancer import eventually
from tests.system.certificates import Authority
from tests.system.web import WebNode
from tests.system.web_client import client
from tests.system.web_stage import QUICK, WebStage


class Site:
    """A portal that needs a certificate, and a viewer and a DICOM service that need none."""

    def __init__(self, node: WebNode, authority: Authority) -> None:
        self.authority, self.own = authority, authority.issue("portal", names=("localhost",))
        own = self.own
        self.stage = WebStage()
        self.portal, self.viewer = free_port(), free_port()
        tls = {"cert": str(own.cert), "key": str(own.key)}
        self.stage.balancer.site.write_text(
            self.stage.document(
                {
                    "portal": self.service(node, self.portal, protocol="https", tls=tls),
                    "viewer": self.service(node, self.viewer),
                    "ct": {
                        "protocol": "dicom",
                        "listen": f"127.0.0.1:{free_port()}",
                        "health": QUICK,
                        "nodes": {"a": {"address": f"127.0.0.1:{node.port}"}},
                    },
                }
            )
        )

    def service(self, node: WebNode, port: int, **more: object) -> dict[str, object]:
        return self.stage.service({"a": node.port}, listen=f"127.0.0.1:{port}", health=QUICK, **more)

    def states(self) -> dict[str, str]:
        shown = self.stage.balancer.status()["services"]
        return {name: service["state"] for name, service in shown.items()}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    authority = Authority(tmp_path)
    with WebNode() as node:
        yield Site(node, authority)


def test_a_service_without_its_file_is_left_out_until_it_has_it(site: Site) -> None:
    good = site.own.key.read_bytes()
    site.own.key.write_text("half of it")
    with site.stage:
        up = {"portal": "down", "viewer": "up", "ct": "up"}
        eventually(lambda: site.states() == up, 30, f"{up}")
        portal = site.stage.balancer.status("portal")
        assert portal["reason"].startswith("it is not served: its files of TLS cannot be used")
        with client(site.viewer) as web:
            assert web.get("/").status_code == 200
        site.own.key.write_bytes(good)
        eventually(lambda: site.states()["portal"] == "up", within_s=45, what="the portal")
        with client(site.portal, ca=site.authority.ca_file, host="localhost") as web:
            assert web.get("/").status_code == 200


def test_what_haproxy_has_goes_on_when_the_supervisor_comes_back(site: Site) -> None:
    with site.stage:
        eventually(lambda: set(site.states().values()) == {"up"}, 30, "all up")
        master = site.stage.master()
        site.stage.balancer.kill_supervisor()
        site.own.key.write_text("half of it")
        site.stage.balancer.start()
        eventually(lambda: site.states()["portal"] == "up", 30, "the portal")
        assert site.stage.master() == master
        with client(site.portal, ca=site.authority.ca_file, host="localhost") as web:
            assert web.get("/").status_code == 200

"""A browser at a portal: Chromium, by TLS that it trusts, logs in once and stays at its node.

Each node knows its own sessions alone, as portals do whose servers share no memory.  Leaves out what people see.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import pytest

from tests.system.balancer import eventually
from tests.system.certificates import Authority
from tests.system.web import Arrived, Reply, WebNode
from tests.system.web_stage import WebStage

NAME = "portal.example"
REQUESTS = 40
PAGE = """<!doctype html><title>Portal</title><script>
const text = async (path) => (await fetch(path)).text();
const echo = (word) => new Promise((resolve) => {
  const socket = new WebSocket(`wss://${location.host}/live`);
  socket.onopen = () => socket.send(word);
  socket.onmessage = (message) => { resolve(message.data); socket.close(); };
  socket.onerror = () => resolve("no echo");
});
(async () => {
  const first = await text("/login");
  const later = [];
  for (let n = 0; n < REQUESTS / 2; n++) later.push(await text(`/image?${n}`));
  later.push(...await Promise.all([...Array(REQUESTS / 2).keys()].map((n) => text(`/image?x${n}`))));
  const [navigation] = performance.getEntriesByType("navigation");
  const body = JSON.stringify({
    first, later, echo: await echo("hello"), cookie: document.cookie, spoken: navigation.nextHopProtocol,
  });
  await fetch("/result", {method: "POST", body});
})();
</script>""".replace("REQUESTS", str(REQUESTS))

pytestmark = pytest.mark.skipif(
    not which("chromium") or not which("certutil"), reason="chromium or certutil is missing"
)


class Portal(WebNode):
    """A portal's server, with sessions of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(name, self.page)
        self.results: list[bytes] = []
        self._session = f"session-of-{name}"

    def page(self, arrived: Arrived) -> Reply:
        """Answer a browser."""
        path = arrived.target.partition("?")[0]
        if path == "/":
            return Reply(200, PAGE.encode(), (("Content-Type", "text/html"),))
        if path == "/login":
            return Reply(200, self.name.encode(), (("Set-Cookie", f"SESSION={self._session}; Path=/; HttpOnly"),))
        if f"SESSION={self._session}" not in "; ".join(arrived.all("cookie")):
            return Reply(401, b"log in first")
        if path == "/result":
            self.results.append(arrived.body)
        return Reply(200, self.name.encode())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@contextmanager
def browser(url: str, home: Path, authority: Authority) -> Iterator[None]:
    """Have Chromium open a page, with a profile of its own that trusts the authority."""
    database = home / ".pki/nssdb"
    database.mkdir(parents=True)
    for command in (["-N", "--empty-password"], ["-A", "-n", "ours", "-t", "C,,", "-i", str(authority.ca_file)]):
        subprocess.run(["certutil", "-d", f"sql:{database}", *command], check=True, capture_output=True)
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server"]
    resolve = f"--host-resolver-rules=MAP {NAME} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    process = subprocess.Popen(
        ["chromium", *options, *quiet, resolve, f"--user-data-dir={home / 'profile'}", url],
        env={**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_browser_logs_in_once_and_stays(tmp_path: Path, authority: Authority) -> None:
    issued = authority.issue("portal", names=(NAME,), addresses=())
    with Portal("a") as a, Portal("b") as b, WebStage() as stage:
        served = stage.serve(
            {"a": a.port, "b": b.port},
            protocol="https",
            balance="round_robin",
            persistence={"fallback": "none"},  # the cookie alone keeps it
            tls={"cert": str(issued.both)},
        )
        with browser(f"https://{NAME}:{served.port}/", tmp_path, authority):
            result = json.loads(eventually(lambda: (a.results + b.results)[:1], 40, "the browser's result")[0])
    assert result["later"] == [result["first"]] * REQUESTS
    assert result["echo"] == "hello"
    assert result["spoken"] == "h2"
    assert result["cookie"] == ""  # neither the session's nor ours can be read by scripts
    (other,) = (node for node in (a, b) if node.name != result["first"])
    assert other.arrived == []

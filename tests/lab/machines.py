"""The machines at both ends: nodes with the servers that run on them, and clients with what they ask.

Servers are real: nginx, DCMTK's storescp and dcmqrscp, Orthanc.  They listen on every address of their host, as servers
do.  Leaves out the network: `lab.py`.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.system.netns import ENVIRONMENT, Host

WEB_PORTS = (8000, 8099)  # nginx listens on all of them, so that each service has a port of its own
STORE_PORT, ARCHIVE_PORT, ORTHANC_PORT = 104, 105, 11112
ORTHANC_WEB_PORT = 8142
CALLED, FAR, FAR_PORT = "PACS", "FAR", 11114  # FAR is where archives move studies to
BIG_BYTES, SLOW_BYTES_PER_S = 16 * 1024 * 1024, 400_000
PAGES = (("small", 20_000), ("middle", 2_000_000), ("big", BIG_BYTES))  # name and bytes
_STARTS_WITHIN_S = 30
_ASKS_EVERY_S = 5  # a silent connection whether it still stands
_NO_LOOKUP = ("--disable-host-lookup",)  # of the caller's name: there is no name server in the laboratory to wait for
_BALANCERS = ("10.77.1.2", "10.77.1.3", "10.77.2.2", "10.77.2.3")  # lab.py
_LISTENS = "0A"  # the column `st` of /proc/net/tcp: TCP_LISTEN, <net/tcp_states.h>


class Node:
    """A node: its host, and servers that can be killed and started again.

    Attributes:
        name: Also the word with which its web server names itself.
        address6: Its IPv6 address; `host.address` is the other one.
        folder: Its files: `www`, `web.log`, `store`, `archive`, `orthanc`.
    """

    def __init__(self, name: str, host: Host, address6: str, folder: Path) -> None:
        self.name, self.host, self.address6, self.folder = name, host, address6, folder
        self._commands: dict[int, list[str]] = {}  # by port
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def address(self, version: int = 4) -> str:
        """Return its address of IPv4 or IPv6."""
        return self.host.address if version == 4 else self.address6

    def serve_web(self, pages: Path) -> None:
        """Start nginx: `/who` names node and client, `/slow/...` is a page at 400 kB/s."""
        text = _NGINX.format(name=self.name, folder=self.folder, pages=pages, rate=SLOW_BYTES_PER_S, ports=_ports())
        configuration = self.folder / "nginx.conf"
        configuration.write_text(text)
        self._serve(WEB_PORTS[0], "/usr/sbin/nginx", "-c", str(configuration))

    def serve_store(self) -> None:
        """Start storescp, which keeps what comes in `store`."""
        store = self.folder / "store"
        store.mkdir(exist_ok=True)
        self._serve(STORE_PORT, "/usr/bin/storescp", "--fork", *_NO_LOOKUP, "+B", "-od", str(store), str(STORE_PORT))

    def serve_archive(self) -> None:
        """Start dcmqrscp, DCMTK's archive."""
        database = self.folder / "archive"
        database.mkdir(exist_ok=True)
        configuration = self.folder / "dcmqrscp.cfg"
        configuration.write_text(_DCMQRSCP.format(database=database, far=_far_address()))
        self._serve(ARCHIVE_PORT, "/usr/bin/dcmqrscp", *_NO_LOOKUP, "-c", str(configuration), str(ARCHIVE_PORT))

    def serve_orthanc(self) -> None:
        """Start Orthanc, DICOM and REST."""
        store = self.folder / "orthanc"
        store.mkdir(exist_ok=True)
        configuration = self.folder / "orthanc.json"
        configuration.write_text(json.dumps(_orthanc(self.name, store)))
        self._serve(ORTHANC_PORT, "/usr/sbin/Orthanc", str(configuration))
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while not listens(self._running[ORTHANC_PORT].pid, ORTHANC_WEB_PORT):
            assert time.monotonic() < deadline, (self.folder / "servers.log").read_text()
            time.sleep(0.02)

    def orthanc(self, path: str, body: str | None = None) -> str:
        """Ask Orthanc's REST API, as someone who sits at the node."""
        told = [] if body is None else ["--data", body]
        return self.host.must("curl", "-sSf", *told, f"http://127.0.0.1:{ORTHANC_WEB_PORT}{path}")

    def stored(self) -> list[Path]:
        """Return what storescp has kept."""
        return sorted((self.folder / "store").iterdir())

    def served(self) -> list["Served"]:
        """Return what nginx has answered, oldest first."""
        log = self.folder / "web.log"
        return [Served(*line.split()) for line in log.read_text().splitlines()] if log.exists() else []

    def kill(self) -> None:
        """End all its servers as a crash would."""
        for process in self._running.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._running.clear()

    def start(self) -> None:
        """Start again what was killed."""
        for port, command in self._commands.items():
            if port not in self._running:
                self._running[port] = self._popen(command)
        deadline = time.monotonic() + _STARTS_WITHIN_S
        for port, process in self._running.items():
            while not listens(process.pid, port):
                said = (self.folder / "servers.log").read_text()
                assert process.poll() is None, f"{process.args!r} ended: {said}"
                assert time.monotonic() < deadline, f"{process.args!r} does not listen on {port}: {said}"
                time.sleep(0.02)

    def lose_syn_acks(self, percent: int = 50) -> None:
        """Drop a share of its answers to new connections, at random, but not of those to the balancer's checks.

        Else half of the checks would fail; and a node that a check cannot connect to is cut, as the site says.
        """
        rule = f"tcp flags & (syn | ack) == syn | ack numgen random mod 100 < {percent} drop"
        spared = "".join(f"ip daddr {address} accept; " for address in _BALANCERS)
        chain = f"chain output {{ type filter hook output priority 0; {spared}{rule}; }}"
        self.host.must("nft", "-f", "-", given=f"table inet loss {{ {chain}; }}")

    def lose_nothing(self) -> None:
        """Undo that."""
        self.host.must("nft", "delete", "table", "inet", "loss")

    def _serve(self, port: int, *command: str) -> None:
        self._commands[port] = list(command)
        self.start()

    def _popen(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "servers.log").open("ab") as log:
            return subprocess.Popen(
                [*self.host.prefix, *command],
                cwd=self.folder,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@dataclass(frozen=True, slots=True)
class Served:
    """A line of a node's web log: who asked, at which of its addresses and ports, for what, and how it went."""

    client: str
    address: str
    port: str
    path: str
    status: str
    body_bytes: str


class Call:
    """An open connection to a web server; each request uses it again."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        # As careful clients do: one that only waits for the rest of an answer hears of a dead node by its questions.
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _ASKS_EVERY_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _ASKS_EVERY_S)
        self._http = http.client.HTTPConnection("vip")
        self._http.sock = connected

    def who(self) -> tuple[str, str]:
        """Return which node answers, and which client it sees."""
        node, client = self.get("/who").split()
        return node.decode(), client.decode()

    def node(self) -> str:
        """Return which node answers."""
        return self.who()[0]

    def get(self, path: str) -> bytes:
        """Return a page."""
        answer = self.ask(path)
        body = answer.read()
        assert answer.status == 200, (answer.status, body)
        return body

    def ask(self, path: str) -> http.client.HTTPResponse:
        """Send a request, and return the answer once its head is there."""
        self._http.request("GET", path)
        return self._http.getresponse()

    def close(self) -> None:
        """Close it, as clients do."""
        self._http.close()

    def __enter__(self) -> "Call":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client:
    """A client's machine."""

    def __init__(self, host: Host, address6: str) -> None:
        self.host, self.address6 = host, address6

    def address(self, version: int = 4) -> str:
        """Return its address of IPv4 or IPv6."""
        return self.host.address if version == 4 else self.address6

    def call(self, address: str, port: int, *, source: str = "", timeout_s: float = 20) -> Call:
        """Open a connection to a web server."""
        return Call(self.host.connect(address, port, source=source, timeout_s=timeout_s))

    def call_together(self, address: str, port: int, sources: Sequence[str], *, timeout_s: float = 60) -> list[Call]:
        """Open a connection from each of these addresses, all at the same time."""
        with ThreadPoolExecutor(max(len(sources), 1)) as pool:
            opened = [pool.submit(self.call, address, port, source=each, timeout_s=timeout_s) for each in sources]
        return [each.result() for each in opened]

    def nodes(self, address: str, port: int, times: int, *, source: str = "") -> list[str]:
        """Return which nodes answered so many connections, one after the other."""
        return [self._one(address, port, source) for _ in range(times)]

    def _one(self, address: str, port: int, source: str) -> str:
        with self.call(address, port, source=source) as call:
            return call.node()

    def dicom(self, program: str, address: str, port: int, *rest: str) -> subprocess.CompletedProcess[str]:
        """Run one of DCMTK's clients to its end."""
        return self.host.run(*dicom_command(program, address, port, *rest), timeout_s=90)

    def receive_studies(self, folder: Path) -> subprocess.Popen[bytes]:
        """Start the storescp that archives move studies to, as `FAR`."""
        command = ("/usr/bin/storescp", "--fork", *_NO_LOOKUP, "-aet", FAR, "+B", "-od", str(folder), str(FAR_PORT))
        quiet = subprocess.DEVNULL
        process = subprocess.Popen([*self.host.prefix, *command], stdin=quiet, stdout=quiet, stderr=quiet)
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while not listens(process.pid, FAR_PORT):
            assert process.poll() is None, f"{command} ended"
            assert time.monotonic() < deadline, f"{command} does not listen"
            time.sleep(0.02)
        return process


def dicom_command(program: str, address: str, port: int, *rest: str) -> list[str]:
    """Return the command of one of DCMTK's clients; the files of storescu come last in `rest`, after "--"."""
    at = rest.index("--") if "--" in rest else len(rest)
    return [f"/usr/bin/{program}", "-v", "-aec", CALLED, *rest[:at], address, str(port), *rest[at + 1 :]]


def listens(pid: int, port: int) -> bool:
    """Say whether somebody listens on a port of the network that a process is in."""
    return any(port in _listening(Path(f"/proc/{pid}/net/{table}")) for table in ("tcp", "tcp6"))


def _listening(table: Path) -> set[int]:
    try:
        lines = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return set()
    return {int(columns[1].rpartition(":")[2], 16) for columns in lines if columns[3] == _LISTENS}


def write_pages(folder: Path, sizes: Sequence[tuple[str, int]] = PAGES) -> None:
    """Write files for the web servers, of bytes that repeat nowhere."""
    folder.mkdir()
    for name, size in sizes:
        (folder / name).write_bytes(os.urandom(size))


def _ports() -> str:
    return f"{WEB_PORTS[0]}-{WEB_PORTS[1]}"


def _far_address() -> str:
    return "10.77.0.50"


def _orthanc(name: str, store: Path) -> dict[str, object]:
    return {
        "Name": name,
        "StorageDirectory": str(store),
        "IndexDirectory": str(store),
        "Plugins": [],
        "HttpPort": ORTHANC_WEB_PORT,
        "RemoteAccessAllowed": False,
        "DicomPort": ORTHANC_PORT,
        "DicomAet": CALLED,
        "DicomModalities": {"far": [FAR, _far_address(), FAR_PORT]},
        **{f"DicomAlwaysAllow{asked}": True for asked in ("Echo", "Store", "Find", "Get", "Move")},
        "SyncStorageArea": False,
    }


_NGINX = """daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
  log_format seen '$remote_addr $server_addr $server_port $uri $status $body_bytes_sent';
  access_log {folder}/web.log seen;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  sendfile on; tcp_nodelay on; keepalive_timeout 600; keepalive_requests 1000000;
  server {{
    listen {ports} backlog=1024; listen [::]:{ports} backlog=1024;
    root {pages};
    add_header X-Node {name} always;
    location = /who {{ return 200 "{name} $remote_addr"; }}
    location /slow/ {{ alias {pages}/; limit_rate {rate}; }}
  }}
}}
"""
_DCMQRSCP = """MaxPDUSize = 131072
MaxAssociations = 64
HostTable BEGIN
far = (FAR, {far}, 11114)
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
PACS {database} RW (500, 1024mb) ANY
AETable END
"""

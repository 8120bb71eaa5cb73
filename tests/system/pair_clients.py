"""What clients of a pair have open, and remember, while one of its machines is lost."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException

from equipoise.base.paths import Directories
from equipoise.engines.layer4.runner import table_name
from tests.system.balancer import eventually
from tests.system.pair_machine import Machine
from tests.system.pair_stage import TRANSLATED, WEB, WITHIN_S, Pair


class Download(threading.Thread):
    """A page of 2 MB at 400 kB/s over one connection, which takes five seconds."""

    def __init__(self, pair: Pair, port: int) -> None:
        super().__init__(daemon=True)
        self._expected = pair.page("middle")
        self.port = port
        self._call = pair.lab.far.call(pair.vip, port, timeout_s=60)
        self.client_port: int = self._call.socket.getsockname()[1]
        self.got, self.failure = b"", ""

    def run(self) -> None:
        try:
            answer = self._call.ask("/slow/middle")
            while piece := answer.read1(65536):
                self.got += piece
        except (OSError, HTTPException) as error:
            self.failure = repr(error)
        self._call.close()

    def under_way(self) -> "Download":
        """Return it once a part of it is there."""
        self.start()
        eventually(lambda: len(self.got) > 400_000, WITHIN_S, "the first bytes")
        return self

    def is_whole(self) -> bool:
        """Wait for its end, and say whether it is what it must be."""
        self.join(60)
        assert not self.failure, f"{self.failure} after {len(self.got)} bytes"
        return self.got == self._expected


def nodes_of_clients(pair: Pair, sources: tuple[str, ...]) -> dict[str, str]:
    """Return which node each of these browsers reached."""
    return {source: pair.lab.far.nodes(pair.vip, WEB, 1, source=source)[0] for source in sources}


@contextmanager
def tracking(machine: Machine) -> Iterator[None]:
    """Have conntrackd run on a machine, as its operator would, with the configuration that Equipoise writes.

    But for two paths in it: the two machines have one file system here.
    """
    home = machine.balancer.home
    for left in ("conntrack.lock", "conntrackd.ctl"):  # one that was killed leaves both, and no other starts then
        (home / left).unlink(missing_ok=True)
    written = (home / "run/conntrackd.conf").read_text()
    configuration = home / "conntrackd.conf"
    configuration.write_text(re.sub(r"(LockFile|Path) .*/", rf"\1 {home}/", written))
    with (home / "conntrackd.log").open("ab") as log:
        process = subprocess.Popen(
            [*machine.host.prefix, "/usr/sbin/conntrackd", "-C", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        eventually((home / "conntrackd.ctl").exists, WITHIN_S, "conntrackd")
        yield
    finally:
        process.kill()
        process.wait()


def everything_told(machine: Machine) -> None:
    """Wait until the peer knows what a machine learned of clients; engines tell it within tenths of a second."""
    time.sleep(1)
    eventually(lambda: machine.cluster()["lag"]["pending"] == 0, WITHIN_S, "the peer told of everything")


def followed(active: Machine, standby: Machine, downloads: Sequence[Download]) -> None:
    """Wait until the standby knows each of these connections as the machine does through which they pass."""
    ports = [download.client_port for download in downloads if download.port == TRANSLATED]

    def look() -> bool:
        known = all(_translated(standby, port) == _translated(active, port) != "" for port in ports)
        return known and _direct(standby) >= _direct(active) != set()

    eventually(look, WITHIN_S, "the downloads on the standby")
    assert all(download.is_alive() for download in downloads), "they are still under way"


def _translated(machine: Machine, client_port: int) -> str:
    """Return the addresses and ports of a translated connection, those of its client and those of its node."""
    family = "ipv6" if ":" in machine.address else "ipv4"
    ports = ("--orig-port-src", str(client_port), "--orig-port-dst", str(TRANSLATED))
    dumped = machine.host.run("conntrack", "--dump", "--family", family, "--proto", "tcp", *ports).stdout
    return " ".join(re.findall(r"(?:src|dst|sport|dport)=\S+", dumped))


def _direct(machine: Machine) -> set[str]:
    """Return the keys of the flows of direct routing that a machine knows."""
    name = "flows6-direct" if ":" in machine.address else "flows-direct"
    table = table_name(Directories(machine.balancer.home / "run", machine.balancer.home / "state"))
    shown = json.loads(machine.host.must("nft", "--json", "list", "map", "netdev", table, name))["nftables"]
    elements = next(each["map"] for each in shown if "map" in each).get("elem", [])
    return {json.dumps(key["elem"]["val"]) for key, _ in elements}

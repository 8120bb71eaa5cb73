"""What clients of a pair have open, and remember, while one of its machines is lost."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPException

from equipoise.base.paths import Directories
from equipoise.engines.layer4.runner import table_name
from tests.system.balancer import eventually
from tests.system.conntrackd import conntrackd
from tests.system.pair_machine import Machine
from tests.system.pair_stage import DIRECT, TRANSLATED, WEB, WITHIN_S, Pair

_ATTEMPTS = 5


class Download(threading.Thread):
    """A page of 2 MB at 400 kB/s over one connection, which takes five seconds."""

    def __init__(self, pair: Pair, port: int) -> None:
        super().__init__(daemon=True)
        self._expected = pair.page("middle")
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
def tracking(*machines: Machine) -> Iterator[None]:
    """Have conntrackd run on these machines meanwhile."""
    with ExitStack() as stack:
        for machine in machines:
            stack.enter_context(conntrackd(machine.host, machine.balancer.home / "run/conntrackd.conf"))
        yield


def everything_told(machine: Machine) -> None:
    """Wait until the peer knows what a machine learned of clients; engines tell it within tenths of a second."""
    time.sleep(1)
    eventually(lambda: machine.cluster()["lag"]["pending"] == 0, WITHIN_S, "the peer told of everything")


def followed_downloads(pair: Pair, active: Machine, standby: Machine) -> list[Download]:
    """Return downloads of both ways, under way through a machine, that the standby knows as well as that one does.

    They take five seconds: where the standby hears of them later on a slow machine, others are begun.
    """
    for _ in range(_ATTEMPTS):
        before = _direct(active)
        downloads = [Download(pair, port).under_way() for port in (DIRECT, DIRECT, TRANSLATED)]
        client_port = downloads[-1].client_port
        while all(download.is_alive() for download in downloads):
            flows, translated = _direct(active) - before, _translated(active, client_port)
            if len(flows) == 2 and flows <= _direct(standby) and translated == _translated(standby, client_port) != "":
                return downloads
    raise AssertionError(f"{standby.name} knew none of them in time, {_ATTEMPTS} times")


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

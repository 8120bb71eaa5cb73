"""What clients of a pair have open, and remember, while one of its machines is lost."""

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from tests.system.balancer import eventually
from tests.system.pair_machine import Machine
from tests.system.pair_stage import TRANSLATED, WEB, WITHIN_S, Pair


class Download(threading.Thread):
    """A page of 2 MB at 400 kB/s over one connection, which takes five seconds."""

    def __init__(self, pair: Pair, port: int) -> None:
        super().__init__(daemon=True)
        self._expected = pair.page("middle")
        self._call = pair.lab.far.call(pair.vip, port, timeout_s=60)
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
    written = (home / "run/conntrackd.conf").read_text()
    configuration = home / "conntrackd.conf"
    configuration.write_text(re.sub(r"(LockFile|Path) .*/", rf"\1 {home}/", written))
    with (machine.balancer.home / "conntrackd.log").open("ab") as log:
        process = subprocess.Popen(
            [*machine.host.prefix, "/usr/sbin/conntrackd", "-C", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def everything_told(machine: Machine) -> None:
    """Wait until the peer knows what a machine learned of clients; engines tell it within tenths of a second."""
    time.sleep(1)
    eventually(lambda: machine.cluster()["lag"]["pending"] == 0, WITHIN_S, "the peer told of everything")


def followed(pair: Pair, machine: Machine) -> None:
    """Wait until a machine knows a translated connection that passes the other one."""
    family = "ipv6" if ":" in pair.vip else "ipv4"
    asked = ("conntrack", "--dump", "--family", family, "--proto", "tcp", "--orig-port-dst", str(TRANSLATED))

    def look() -> bool:
        return "ESTABLISHED" in machine.host.run(*asked).stdout

    eventually(look, WITHIN_S, "the connection on the standby")

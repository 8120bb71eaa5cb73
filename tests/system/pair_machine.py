"""One machine of a pair: its host in the laboratory, the balancer on it, and what can happen to either.

Power loss is what users mean by it: cables silent, every process gone, and after it an empty runtime directory, no
VIPs, rules or connections in the kernel; the state directory is still there.  Leaves out the pair: `pair_stage.py`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.system.balancer import Balancer, eventually
from tests.system.netns import Host

_OWN_BITS = (24, 64)  # addresses with these prefix lengths are the machine's own, see tests/lab/lab.py
_DEVICES = ("eth0", "eth1", "lo")
_PATIENCE_S = 90  # of an operator, whose machine may be a slow one


class Machine:
    """A machine on which Equipoise runs.

    Args:
        name: The host's in the laboratory.
        host: Where it is.
        site: Its document.
        through: Programs that start the balancer, and all that it starts: `faketime`, say.
        address: The machine's own, by which the other one knows it; the host's IPv4 address by default.
    """

    def __init__(self, name: str, host: Host, site: str, through: Sequence[str] = (), address: str = "") -> None:
        self.name, self.host = name, host
        self.address = address or host.address
        self._prefix = (*host.prefix, *through)
        self.balancer = Balancer(site, prefix=self._prefix)

    def command(self, *arguments: str, good: Sequence[int] = (0,)) -> str:
        """Run `equipoise` there; return what it printed on both."""
        done = subprocess.run(
            [*self._prefix, sys.executable, "-m", "equipoise", *arguments],
            env=self.balancer.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode in good, f"{self.name}: {arguments} ended with {done.returncode}: {said}"
        return said

    def apply_by_command(self, document: str, *, good: Sequence[int] = (0,)) -> str:
        """Apply a document as an operator does, whatever it takes away; return what was said."""
        file = self.balancer.home / "asked.yaml"
        file.write_text(document)
        return self.command("apply", "--force", str(file), good=good)

    def tell(self, path: str, **body: Any) -> dict[str, Any]:
        """Do by the API what a command does, without the second in which Python starts; return what it answered."""
        with self.balancer.client() as client:
            answer = client.post(path, json=body, timeout=_PATIENCE_S)
        assert answer.is_success, f"{self.name}: {path} {body}: {answer.text}"
        said: dict[str, Any] = answer.json()
        return said

    def apply(self, document: str) -> dict[str, Any]:
        """Apply a document, whatever it takes away."""
        return self.tell("apply", document=document, force=True)

    def override(self, action: str, node: str) -> None:
        """Override a node, SERVICE/NODE."""
        assert self.tell("nodes", pattern=node, action=action)["changed"] == [node]

    def hand_over(self, *groups: str, here: bool = False) -> None:
        """Hand groups of addresses over, all where none is named."""
        self.tell("cluster/handover", groups=groups, here=here)

    def cluster(self) -> dict[str, Any]:
        """Return what `cluster status --json` shows."""
        document: dict[str, Any] = self.balancer.get("cluster")
        return document

    def group(self, name: str = "primary") -> dict[str, Any]:
        """Return what the status shows of a group of addresses."""
        found: dict[str, Any] = next(group for group in self.cluster()["groups"] if group["name"] == name)
        return found

    def holds(self, address: str) -> bool:
        """Say whether an address is on one of its devices, whatever anybody says."""
        return address in {held for _, held, _ in self._addresses()}

    def pids(self, program: str) -> list[int]:
        """Return the processes of a program, parents before their children."""
        if program == "supervisor":
            assert self.balancer.process is not None
            return [self.balancer.process.pid]
        if program == "gateway":
            return self.balancer.gateway_pids()
        found = {pid: _parent(pid) for pid in self.host.pids() if _name(pid).startswith(program)}
        return sorted(found, key=lambda pid: (found[pid] in found, pid))

    def wait_pid(self, program: str, which: int, within_s: float = 20) -> int:
        """Return one of the processes of a program, as soon as there is such a one."""
        return eventually(lambda: self.pids(program)[which : which + 1], within_s, f"{program} on {self.name}")[0]

    @contextmanager
    def stopped(self, pid: int) -> Iterator[None]:
        """Have a process stand still meanwhile, as one that hangs."""
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def lose_power(self) -> None:
        """Have it fall silent, and lose all that is not on its disk."""
        self.host.lose_power()
        if self.balancer.process is not None:
            self.balancer.process.wait(20)
        shutil.rmtree(self.balancer.home / "run", ignore_errors=True)
        for device, address, bits in self._addresses():
            if bits not in _OWN_BITS and not address.startswith(("127.", "::1")):
                self.host.ip("address", "delete", f"{address}/{bits}", "dev", device)
        self.host.must("nft", "flush", "ruleset")
        self.host.run("conntrack", "--flush")

    def boot(self) -> None:
        """Have it back."""
        for device in self.host.devices:
            self.host.plug(device)
        self.balancer.start()

    def stop(self) -> None:
        """Stop the balancer as systemd does, and wait for its end."""
        process = self.balancer.process
        assert process is not None
        process.terminate()
        process.wait(40)

    def kill_everything(self) -> None:
        """Kill every process there at once; addresses, rules and cables stay as they are."""
        for pid in self.host.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self.balancer.process is not None
        self.balancer.process.wait(20)

    def _addresses(self) -> list[tuple[str, str, int]]:
        listed = json.loads(self.host.ip("-json", "address", "show"))
        return [
            (link["ifname"], info["local"], info["prefixlen"])
            for link in listed
            if link.get("ifname") in _DEVICES
            for info in link["addr_info"]
            if info["scope"] != "link" or info["family"] == "inet" or link["ifname"] == "lo"
        ]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0

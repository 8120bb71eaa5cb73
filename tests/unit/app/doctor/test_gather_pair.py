"""What the doctor finds of a pair, on this machine and on one that is written into a directory."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from equipoise.app.doctor.examine import examine
from equipoise.app.doctor.facts import Running
from equipoise.app.doctor.facts_pair import PairFacts
from equipoise.app.doctor.findings import Level
from equipoise.app.doctor.gather_layer4 import gather_layer4
from equipoise.app.doctor.gather_pair import gather_pair
from equipoise.base.clock import SystemClock
from equipoise.base.paths import Directories
from equipoise.cluster.here import write_here
from equipoise.config.cluster import Here
from equipoise.plan.model import Plan
from tests.unit.app.doctor.healthy import plan
from tests.unit.app.doctor.test_judge_pair import pair

SITE = """\
site: here
cluster: {router_id: 7}
services:
  ct: {protocol: dicom, listen: 192.0.2.100, nodes: {a: {address: '192.0.2.11:104'}}}
"""
NATTED = SITE.replace("listen", "mode: l4_nat, listen")
HERE = Here(peer="127.0.0.3", address="127.0.0.2", interface="lo", role="primary")
RUNNING = Running(pid=4711, version="1", site="here", listen=frozenset())


@pytest.fixture
def directories(tmp_path: Path) -> Directories:
    found = Directories(runtime=tmp_path / "run", state=tmp_path / "state")
    found.create()
    return found


def on_loopback(text: str, *, joined: bool = True) -> Plan:
    """Return the plan of a machine whose peer is reached by `lo`, which no document may say."""
    return pair(text, joined=joined, here=HERE)


def program(proc: Path, pid: int, name: str, *words: str, network: str = "net:[1]") -> None:
    folder = proc / str(pid)
    (folder / "ns").mkdir(parents=True)
    (folder / "comm").write_text(f"{name}\n")
    (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in (name, *words)))
    os.symlink(network, folder / "ns/net")


def written(directories: Directories, capabilities: int = 0x3000) -> Path:
    """Return a machine in a directory, with a supervisor that has these rights."""
    proc = directories.state / "proc"
    for pid in ("self", "4711"):
        (proc / pid / "ns").mkdir(parents=True)
        (proc / pid / "status").write_text(f"CapEff:\t{capabilities:016x}\n")
        os.symlink("net:[1]", proc / pid / "ns/net")
    return proc


def looked(site: Plan, directories: Directories, proc: Path, path: str = "") -> PairFacts:
    etc = directories.state / "etc"
    found = gather_pair(site, RUNNING, "me", directories, proc=proc, etc=etc, path=path)
    assert found is not None
    return found


def test_a_machine_alone_is_not_asked(directories: Directories) -> None:
    assert gather_pair(plan(), None, "me", directories) is None


def test_this_machine_can_be_looked_at(directories: Directories) -> None:
    found = gather_pair(on_loopback(SITE, joined=False), None, "me", directories)
    assert found is not None
    assert (found.link, found.has_address, found.unreachable, found.tracking) == ("up", True, None, None)
    assert found.whose == "me"


def test_a_bare_machine(directories: Directories) -> None:
    elsewhere = HERE.model_copy(update={"interface": "none0", "address": "198.51.100.7"})
    site = pair(SITE, joined=False, here=elsewhere)
    found = looked(site, directories, written(directories, 0x2000), path=str(directories.runtime))
    assert (found.keepalived, found.nft, found.strangers, found.starts_itself) == ("", "", (), False)
    assert (found.link, found.has_address) == ("missing", False)
    assert (found.whose, found.lacking) == ("the running balancer", ("CAP_NET_ADMIN",))


def test_programs_are_found_where_they_are(directories: Directories) -> None:
    for name in ("keepalived", "nft"):
        (directories.runtime / name).touch(mode=0o755)
    found = looked(on_loopback(SITE, joined=False), directories, written(directories), path=str(directories.runtime))
    assert (found.keepalived, found.nft) == tuple(f"{directories.runtime}/{name}" for name in ("keepalived", "nft"))


def test_a_keepalived_that_is_not_ours(directories: Directories) -> None:
    proc = written(directories)
    program(proc, 20, "keepalived", "-f", f"{directories.runtime}/keepalived/keepalived.conf")
    program(proc, 30, "keepalived", "--dont-fork")
    program(proc, 40, "keepalived", network="net:[2]")  # in a container
    program(proc, 50, "bash")
    found = looked(on_loopback(SITE, joined=False), directories, proc)
    assert (found.strangers, found.lacking) == ((30,), ())


def test_a_service_of_the_distribution_that_would_start_one(directories: Directories) -> None:
    etc, proc = directories.state / "etc", written(directories)
    unit = etc / "systemd/system/multi-user.target.wants/keepalived.service"
    unit.parent.mkdir(parents=True)
    unit.symlink_to("/lib/systemd/system/keepalived.service")
    assert not looked(on_loopback(SITE, joined=False), directories, proc).starts_itself, (
        "without a configuration it does not"
    )
    (etc / "keepalived").mkdir()
    (etc / "keepalived/keepalived.conf").touch()
    assert looked(on_loopback(SITE, joined=False), directories, proc).starts_itself


def test_conntrackd_of_services_that_want_it(directories: Directories) -> None:
    proc, bin_ = written(directories), directories.runtime
    site = on_loopback(NATTED, joined=False)
    assert looked(site, directories, proc, path=str(bin_)).tracking == "absent"
    (bin_ / "conntrackd").touch(mode=0o755)
    assert looked(site, directories, proc, path=str(bin_)).tracking == "stopped"
    program(proc, 20, "conntrackd", "-d")
    assert looked(site, directories, proc, path=str(bin_)).tracking == "other"
    found = looked(site, directories, proc, path=str(bin_))
    program(proc, 30, "conntrackd", "-d", "-C", found.tracking_file)
    assert looked(site, directories, proc, path=str(bin_)).tracking == "ours"


def test_a_peer_that_answers_and_one_that_does_not(directories: Directories) -> None:
    proc = written(directories)
    with socket.socket() as peer:
        peer.bind(("127.0.0.3", 0))
        peer.listen()
        site = on_loopback(SITE.replace("router_id: 7", f"port: {peer.getsockname()[1]}"))
        assert looked(site, directories, proc).unreachable == ""
    assert looked(site, directories, proc).unreachable == "Connection refused"


def test_the_peer_answers_for_addresses_that_are_not_here(tmp_path: Path) -> None:
    asked: list[str] = []

    def who_has(_: str, host: str, __: float) -> tuple[str, ...]:
        asked.append(host)
        return ()

    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_text("CapEff:\t0000000000002000\n")
    text = SITE.replace("listen: 192.0.2.100", "mode: l4_dr, listen: 192.0.2.100").replace("11:104", "11")
    site = on_loopback(text, joined=False)
    found = gather_layer4(site, None, "me", (), SystemClock(), who_has=who_has, proc=tmp_path)
    assert found is not None
    assert found.absent == ()
    assert "192.0.2.100" not in asked
    alone = replace(site, cluster=None)
    found = gather_layer4(alone, None, "me", (), SystemClock(), who_has=who_has, proc=tmp_path)
    assert found is not None
    assert found.absent == ("192.0.2.100",)


def examined(text: str, directories: Directories) -> dict[str, tuple[Level, str]]:
    site = directories.state / "site.yaml"
    site.write_text(text)
    findings = examine(site, None, directories, SystemClock())
    return {each.seen: (each.level, each.do) for each in findings if each.item in ("pair", "peer")}


def test_a_document_with_a_cluster_that_has_no_peer(directories: Directories) -> None:
    (said,) = examined(SITE, directories)
    assert "no peer, or no way to it, is known here" in said
    write_here(directories.state, HERE)
    found = examined(SITE, directories)
    assert "192.0.2.100: at home on the primary, VRRP router identifier 7" in found
    assert "the two have not joined: they share addresses, and nothing else" in found


def test_a_file_of_the_machine_that_cannot_be_used(directories: Directories) -> None:
    write_here(directories.state, Here(peer="127.0.0.3", role="primary"))
    (directories.state / "cluster/here.yaml").write_text("role: boss\n")
    (level, do) = next(iter(examined(SITE, directories).values()))
    assert (level, "as the balancer's user" in do) == (Level.WARNING, True)

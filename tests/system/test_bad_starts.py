"""What keeps a balancer from starting or changing: said plainly, with a way out, and with the exit code of an error."""

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from equipoise.sim.ports import free_port
from tests.system.balancer import Balancer, eventually

NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


def document(*, port: int | None = None, address: str = "127.0.0.1:9", nodes: int = 1, extra: str = "") -> str:
    pool = "".join(f"      n{number}: {{address: '{address}'}}\n" for number in range(nodes))
    return f"""site: starts
services:
  pacs:
    protocol: dicom
    listen: 127.0.0.1
    ports: [{port or free_port()}]
    balance: round_robin
{extra}    nodes:
{pool}"""


def refused(balancer: Balancer, *words: str) -> str:
    """Hold that `run` ends at once with exit code 1 and says these words, and no traceback; return what it says."""
    balancer.start(wait=False)
    assert balancer.process is not None
    assert balancer.process.wait(60) == 1, balancer.log()
    said = balancer.log()
    assert "Traceback" not in said, said
    for word in words:
        assert word in said, said
    assert balancer.gateway_pids() == []
    return said


@pytest.fixture
def running() -> Iterator[Balancer]:
    with Balancer(document(nodes=4)) as balancer:
        yield balancer


# The start


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(
            Balancer(document(port=port)),
            f"cannot listen on 127.0.0.1:{port}: another program has the port",
            f"ss -ltnp 'sport = :{port}'",
            "choose another port",
        )


@root
def test_no_right_to_port_104() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if lowest <= 104:
        pytest.skip(f"everybody may use port 104 here: net.ipv4.ip_unprivileged_port_start is {lowest}")
    balancer = Balancer(document(port=104), AS_NOBODY)
    shutil.chown(balancer.home, NOBODY, NOBODY)
    refused(balancer, "cannot listen on 127.0.0.1:104", "ports below 1024 need a right", "CAP_NET_BIND_SERVICE", "1024")


def test_a_document_that_is_no_yaml() -> None:
    said = refused(Balancer("site: starts\nservices: [pacs: {\n"), "site.yaml:")
    assert any(place in said for place in ("site.yaml:2:", "site.yaml:3:")), said


def test_an_unknown_key() -> None:
    balancer = Balancer(document(extra="    helth: {check: tcp}\n"))
    refused(balancer, f"{balancer.site}:8:5: services.pacs.helth", "did you mean 'health'?")


def test_a_document_that_is_not_there() -> None:
    balancer = Balancer("")
    balancer.site.unlink()
    refused(balancer, str(balancer.site), "No such file")


@root
def test_a_document_that_may_not_be_read() -> None:
    balancer = Balancer(document(), AS_NOBODY)
    shutil.chown(balancer.home, NOBODY, NOBODY)
    balancer.site.chmod(0o600)  # root's
    assert "is not readable" in " ".join(refused(balancer).replace("│", "").split())


@root
@pytest.mark.parametrize(("name", "variable"), [("run", "EQUIPOISE_RUNTIME_DIR"), ("state", "EQUIPOISE_STATE_DIR")])
@pytest.mark.parametrize("exists", [True, False])
def test_a_directory_that_may_not_be_written(name: str, variable: str, exists: bool) -> None:
    balancer = Balancer(document(), AS_NOBODY)
    balancer.site.chmod(0o644)
    for own in ("run", "state"):
        (balancer.home / own).mkdir()
        shutil.chown(balancer.home / own, NOBODY, NOBODY)
    balancer.home.chmod(0o755)
    if exists:
        shutil.chown(balancer.home / name, 0, 0)
    else:
        (balancer.home / name).rmdir()
    refused(balancer, str(balancer.home / name), f"set {variable} to")


def test_a_runtime_directory_whose_socket_path_is_too_long() -> None:
    balancer = Balancer(document())
    deep = balancer.home / ("x" * 100)
    balancer.environment["EQUIPOISE_RUNTIME_DIR"] = str(deep)
    refused(balancer, "Linux takes 107", "set EQUIPOISE_RUNTIME_DIR to a shorter directory")
    assert not deep.exists()


@pytest.mark.parametrize("length", [107 - len("/api.sock"), 107 - len("/gateway-0.123456.sock") + 1])
def test_a_runtime_directory_that_only_the_gateways_sockets_overrun(length: int) -> None:
    """The supervisor's own socket fits, the longer names beside it do not: that is said too."""
    balancer = Balancer(document())
    deep = balancer.home / ("x" * (length - len(str(balancer.home)) - 1))
    balancer.environment["EQUIPOISE_RUNTIME_DIR"] = str(deep)
    refused(balancer, "Linux takes 107", "set EQUIPOISE_RUNTIME_DIR to a shorter directory")


def test_a_second_supervisor(running: Balancer) -> None:
    assert running.process is not None
    second = running.cli("run", str(running.site))
    assert second.returncode == 1
    assert f"another supervisor (process {running.process.pid}) runs with {running.home}/run" in second.stderr
    assert "set EQUIPOISE_RUNTIME_DIR and EQUIPOISE_STATE_DIR" in second.stderr
    assert running.get("identity")["pid"] == running.process.pid


def test_a_node_whose_name_does_not_resolve() -> None:
    with Balancer(document(address="archive.invalid:104")) as balancer:
        checked = balancer.cli("check", str(balancer.site))
        assert checked.returncode == 2, checked
        assert f"{balancer.site}:9:21: " in checked.stderr, checked.stderr
        assert "services.pacs.nodes.n0.address: 'archive.invalid' does not resolve" in checked.stderr
        (event,) = balancer.events("node.unresolved")
        assert (event["service"], event["node"], event["address"]) == ("pacs", "n0", "archive.invalid:104")
        assert "does not resolve" in event["reason"]
        balancer.wait_state("pacs", "n0", "down")
        reason = balancer.status("pacs")["nodes"]["n0"]["check"]["reason"]
        assert "archive.invalid" in reason
        assert "resolve" in reason
        assert balancer.cli("status").returncode == 2


# Changes


def test_apply_of_an_invalid_document(running: Balancer) -> None:
    plan, bad = running.status()["plan"], running.home / "bad.yaml"
    bad.write_text(document(extra="    balance: best\n").replace("    balance: round_robin\n", ""))
    for command in ("apply", "plan", "check"):
        done = running.cli(command, str(bad))
        assert done.returncode == 1, done
        assert f"{bad}:7:14: services.pacs.balance: 'best' is not known" in done.stderr, done.stderr
    assert running.status()["plan"] == plan
    assert "balance: round_robin" in running.site.read_text()


def test_apply_of_a_document_whose_port_is_taken(running: Balancer) -> None:
    plan, text = running.status()["plan"], running.site.read_text()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bad = running.home / "bad.yaml"
        bad.write_text(document(port=taken.getsockname()[1], nodes=4))
        done = running.cli("apply", str(bad))
    assert (done.returncode, "another program has the port" in done.stderr) == (1, True), done
    assert (running.status()["plan"], running.site.read_text()) == (plan, text)


def test_sighup_with_an_invalid_document(running: Balancer) -> None:
    assert running.process is not None
    plan = running.status()["plan"]
    running.site.write_text("site: 'unfinished\n")
    running.process.send_signal(signal.SIGHUP)
    event = eventually(lambda: running.events("plan.refused"), what="plan.refused")[0]
    assert f"{running.site}:" in event["reason"]
    assert running.status()["plan"] == plan
    running.site.unlink()
    running.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(running.events("plan.refused")) == 2, what="a second plan.refused")
    assert "No such file" in running.events("plan.refused")[1]["reason"]
    assert running.status()["plan"] == plan


def test_the_guard(running: Balancer) -> None:
    assert running.process is not None
    before, fewer = running.status(), running.home / "fewer.yaml"
    port = before["services"]["pacs"]["listen"][0].rpartition(":")[2]
    fewer.write_text(document(port=int(port), nodes=1))
    done = running.cli("apply", str(fewer))
    assert done.returncode == 1
    assert "would lose 3 of its 4 nodes" in done.stderr
    assert "--force" in done.stderr
    assert running.status()["plan"] == before["plan"]
    shutil.copy(fewer, running.site)
    running.process.send_signal(signal.SIGHUP)
    event = eventually(lambda: running.events("plan.refused"), what="plan.refused")[0]
    assert "would lose 3 of its 4 nodes" in event["reason"]
    assert running.status()["plan"] == before["plan"]
    assert running.cli("apply", str(fewer), "--force").returncode == 0
    assert list(running.status("pacs")["nodes"]) == ["n0"]


# Without a supervisor


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("status", 1),
        ("status --json", 1),
        ("node drain pacs/n0", 1),
        ("node enable */n0", 1),
        ("node disable pacs/n0", 1),
        ("node weight pacs/n0 7", 1),
        ("events", 1),
        ("events --follow", 1),
        ("apply SITE", 1),
        ("check SITE", 0),
        ("check MISSING", 1),
        ("plan SITE", 2),  # against no plan at all: everything would be new
        ("plan MISSING", 1),
        ("probe tcp 127.0.0.1:PORT", 2),
        ("probe dicom_echo 127.0.0.1:PORT --timeout 1s", 2),
        ("probe nonsense 127.0.0.1:PORT", 1),
        ("probe tcp nowhere", 1),
        ("nonsense", 1),
        ("run", 1),
        ("run SITE --nonsense", 1),
    ],
)
def test_the_exit_code_without_a_supervisor(words: str, code: int) -> None:
    balancer = Balancer(document())
    places = {"SITE": balancer.site, "MISSING": balancer.home / "missing.yaml", "PORT": free_port()}
    for name, value in places.items():
        words = words.replace(name, str(value))
    done = balancer.cli(*words.split())
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    if code == 1:
        assert done.stdout == ""
        assert done.stderr
    if words.startswith(("status", "node", "events", "apply")):
        assert f"no supervisor answers at {balancer.home}/run/api.sock; start one with" in done.stderr, done.stderr

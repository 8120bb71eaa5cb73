"""The process model: take-over, hand-over, crash, lock, signals, one document, overrides.  DESIGN, "Processes"."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from equipoise.sim.ports import free_port
from tests.system import dcmtk
from tests.system.balancer import Balancer, eventually

VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[dict[str, dcmtk.Peer]]:
    peers = {name: dcmtk.storescp(free_port(), tmp_path / name) for name in ("a", "b")}
    for peer in peers.values():
        peer.start()
    yield peers
    for peer in peers.values():
        peer.kill()


def site_of(nodes: dict[str, dcmtk.Peer], port: int, extra: str = "", top: str = "") -> str:
    lines = "\n".join(f"      {name}: {{address: '127.0.0.1:{peer.port}'}}" for name, peer in nodes.items())
    return f"""site: test
{top}
services:
  pacs:
    protocol: dicom
    listen: 127.0.0.1:{port}
    balance: round_robin
    health: {{check: dicom_echo, interval: 500ms, timeout: 5s, rise: 1, fall: 1}}
    {extra}
    nodes:
{lines}
"""


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def balancer(nodes: dict[str, dcmtk.Peer], port: int) -> Iterator[Balancer]:
    with Balancer(site_of(nodes, port)) as running:
        for name in nodes:
            running.wait_state("pacs", name, "up")
        yield running


def associate(port: int) -> Association:
    """Return an open association, which the caller releases or aborts."""
    entity = AE(ae_title="TESTER")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    entity.add_requested_context(VERIFICATION, ImplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="PACS")
    assert association.is_established
    return association


def echo(association: Association) -> bool:
    return bool(association.send_c_echo().get("Status") == 0)


def echoes(port: int) -> bool:
    return dcmtk.run("echoscu", "127.0.0.1", str(port)).returncode == 0


def test_traffic_goes_on_without_a_supervisor_and_the_next_one_takes_over(balancer: Balancer, port: int) -> None:
    held = associate(port)
    gateways = balancer.gateway_pids()
    balancer.kill_supervisor()
    assert echo(held)
    assert echoes(port)
    balancer.start()
    assert balancer.gateway_pids() == gateways
    assert echo(held)
    assert echoes(port)
    eventually(lambda: balancer.status("pacs")["connections"] == 1, what="one connection")
    held.release()
    started = balancer.events("supervisor.started")[-1]
    assert started["adopted"] == 1


def test_what_happened_without_a_supervisor_is_told_to_the_next(balancer: Balancer, port: int) -> None:
    balancer.kill_supervisor()
    assert echoes(port)
    balancer.start()
    assert balancer.ended(1)[0]["calling_ae"] == "ECHOSCU"


def test_a_node_that_was_down_stays_out_when_a_supervisor_takes_over(
    balancer: Balancer, port: int, nodes: dict[str, dcmtk.Peer]
) -> None:
    nodes["a"].kill()
    balancer.wait_state("pacs", "a", "down")
    balancer.kill_supervisor()
    balancer.start()
    assert balancer.status("pacs")["nodes"]["a"]["state"] == "down"


def test_sigusr2_ends_the_supervisor_alone(balancer: Balancer, port: int) -> None:
    gateways = balancer.gateway_pids()
    assert balancer.process is not None
    balancer.process.send_signal(signal.SIGUSR2)
    assert balancer.process.wait(25) == 0
    assert balancer.gateway_pids() == gateways
    assert echoes(port)
    assert balancer.cli("status").returncode == 1
    balancer.start()


def test_callers_of_a_crashed_gateway_wait_until_it_is_back(balancer: Balancer, port: int) -> None:
    (crashed,) = balancer.gateway_pids()
    os.kill(crashed, signal.SIGKILL)
    assert echoes(port)  # it waits in the backlog: no connection is refused
    assert balancer.events("gateway.lost")[-1]["pid"] == crashed
    assert crashed not in balancer.gateway_pids()


def test_a_gateway_that_crashed_knows_node_states_and_overrides_again(balancer: Balancer, port: int) -> None:
    balancer.post("nodes", pattern="pacs/a", action="drain", weight=None)
    os.kill(balancer.gateway_pids()[0], signal.SIGKILL)
    assert echoes(port)
    assert balancer.ended(1)[-1]["node"] == "b"
    for _ in range(4):
        assert echoes(port)
    assert {event["node"] for event in balancer.ended(5)} == {"b"}


def test_a_replaced_gateway_drains_while_the_new_one_serves(balancer: Balancer, port: int) -> None:
    held = associate(port)
    (old,) = balancer.gateway_pids()
    answer = balancer.cli("gateway", "replace")
    assert answer.returncode == 0, answer.stderr
    assert echo(held)
    assert echoes(port)
    assert set(balancer.gateway_pids()) > {old}
    eventually(lambda: balancer.status("pacs")["connections"] == 1, what="one connection")
    held.release()
    eventually(lambda: old not in balancer.gateway_pids(), what="the old gateway's end")
    assert balancer.events("gateway.replaced")[-1]["old_pid"] == old


def test_limits_count_what_an_old_gateway_still_holds(nodes: dict[str, dcmtk.Peer], port: int) -> None:
    site = site_of(nodes, port, "max_connections: 1\n    queue_wait: 500ms")
    with Balancer(site) as balancer:
        balancer.wait_state("pacs", "a", "up")
        held = associate(port)
        assert balancer.cli("gateway", "replace").returncode == 0
        refused = dcmtk.run("echoscu", "127.0.0.1", str(port))
        assert refused.returncode != 0
        assert "Local Limit Exceeded" in refused.stderr
        held.release()
        eventually(lambda: echoes(port), what="a place after the release")


def test_limits_count_through_two_replacements(nodes: dict[str, dcmtk.Peer], port: int) -> None:
    site = site_of(nodes, port, "max_connections: 1\n    queue_wait: 500ms")
    with Balancer(site) as balancer:
        balancer.wait_state("pacs", "a", "up")
        held = associate(port)
        for _ in range(2):
            assert balancer.cli("gateway", "replace").returncode == 0
        assert not echoes(port)
        held.release()
        eventually(lambda: echoes(port), what="a place after the release")


def test_persistence_survives_a_replacement(nodes: dict[str, dcmtk.Peer], port: int) -> None:
    site = site_of(nodes, port, "persistence: {by: source_ip, ttl: 5m}")
    with Balancer(site) as balancer:
        balancer.wait_state("pacs", "a", "up")
        balancer.wait_state("pacs", "b", "up")
        assert echoes(port)
        first = balancer.ended(1)[0]["node"]
        for count in (2, 3):
            assert balancer.cli("gateway", "replace").returncode == 0
            assert echoes(port)
            assert balancer.ended(count)[-1]["node"] == first


def test_a_second_supervisor_is_refused(balancer: Balancer) -> None:
    second = balancer.cli("run", str(balancer.site))
    assert second.returncode == 1
    assert f"process {balancer.process.pid}" in second.stderr if balancer.process else False
    assert "EQUIPOISE_RUNTIME_DIR" in second.stderr
    assert balancer.status("pacs")["state"] == "up"


def test_overrides_outlive_a_restart_and_go_with_their_node(
    balancer: Balancer, nodes: dict[str, dcmtk.Peer], port: int
) -> None:
    assert balancer.cli("node", "disable", "pacs/a").returncode == 0
    assert balancer.cli("node", "weight", "pacs/b", "7").returncode == 0
    balancer.kill_supervisor()
    balancer.start()
    shown = balancer.status("pacs")["nodes"]
    assert (shown["a"]["state"], shown["b"]["weight"]) == ("disabled", 7)
    text = balancer.site.read_text()
    without_a = "\n".join(line for line in text.splitlines() if not line.startswith("      a:"))
    assert balancer.post("apply", document=without_a, force=True).status_code == 200
    assert balancer.post("apply", document=text, force=True).status_code == 200
    assert balancer.status("pacs")["nodes"]["a"]["state"] == "up"


def test_disabled_wins_over_drain_and_enable_clears_both(balancer: Balancer) -> None:
    for action in ("disable", "drain"):
        assert balancer.cli("node", action, "*/a").returncode == 0
    assert balancer.status("pacs")["nodes"]["a"]["state"] == "disabled"
    assert balancer.cli("node", "enable", "pacs/a").returncode == 0
    assert balancer.status("pacs")["nodes"]["a"]["state"] == "up"


def test_sighup_reads_the_document_and_open_work_goes_on(balancer: Balancer, port: int) -> None:
    held = associate(port)
    other = free_port()
    balancer.site.write_text(balancer.site.read_text().replace(f":{port}\n", f":{other}\n"))
    assert balancer.process is not None
    balancer.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(balancer.events("plan.applied")) == 2, what="the new plan")
    assert echo(held)
    assert echoes(other)
    assert not echoes(port)
    held.release()


def test_an_applied_document_replaces_the_file_and_keeps_the_old_one(balancer: Balancer, port: int) -> None:
    old = balancer.site.read_text()
    new = balancer.home / "new.yaml"
    new.write_text(old.replace("round_robin", "first_up"))
    assert balancer.cli("plan", str(new)).returncode == 2
    applied = balancer.cli("apply", str(new))
    assert applied.returncode == 0, applied.stderr
    assert balancer.site.read_text() == new.read_text()
    revisions = list((balancer.home / "state/revisions").iterdir())
    assert [revision.read_text() for revision in revisions] == [old]
    assert balancer.cli("plan", str(new)).returncode == 0


def test_a_port_in_use_leaves_the_old_plan_running(balancer: Balancer, port: int, nodes: dict[str, dcmtk.Peer]) -> None:
    text = balancer.site.read_text()
    taken = balancer.post("apply", document=text.replace(f":{port}\n", f":{nodes['a'].port}\n"), force=True)
    assert taken.status_code >= 400
    assert balancer.site.read_text() == text
    assert echoes(port)


def test_sigterm_lets_open_work_end_and_takes_no_new(balancer: Balancer, port: int) -> None:
    held = associate(port)
    assert balancer.process is not None
    balancer.process.send_signal(signal.SIGTERM)
    eventually(lambda: not echoes(port), what="the end of listening")
    assert echo(held)
    held.release()
    assert balancer.process.wait(25) == 0  # before the drain would be over
    assert balancer.gateway_pids() == []


def test_after_the_drain_timeout_the_rest_is_aborted_politely(nodes: dict[str, dcmtk.Peer], port: int) -> None:
    with Balancer(site_of(nodes, port, top="drain_timeout: 1s")) as balancer:
        balancer.wait_state("pacs", "a", "up")
        held = associate(port)
        assert balancer.process is not None
        balancer.process.send_signal(signal.SIGTERM)
        assert balancer.process.wait(25) == 0
        eventually(lambda: held.is_aborted, what="an A-ABORT")
        assert balancer.gateway_pids() == []


def test_a_second_sigterm_stops_at_once(balancer: Balancer, port: int) -> None:
    held = associate(port)
    assert balancer.process is not None
    began = time.monotonic()
    balancer.process.send_signal(signal.SIGTERM)
    eventually(lambda: not echoes(port), what="the end of listening")
    balancer.process.send_signal(signal.SIGTERM)
    assert balancer.process.wait(25) == 0
    assert time.monotonic() - began < 25  # the drain would last for 30 s
    eventually(lambda: held.is_aborted, what="an A-ABORT")


def test_services_are_spread_over_workers_and_moved_when_their_number_changes(
    nodes: dict[str, dcmtk.Peer], port: int
) -> None:
    other = free_port()
    second = f"""
  other:
    protocol: dicom
    listen: 127.0.0.1:{other}
    nodes:
      a: {{address: '127.0.0.1:{nodes["a"].port}'}}
"""
    with Balancer(site_of(nodes, port, top="gateway: {workers: 2}") + second) as balancer:
        assert len(balancer.gateway_pids()) == 2
        assert echoes(port)
        assert echoes(other)
        held = associate(port)
        document = balancer.site.read_text().replace("workers: 2", "workers: 1")
        assert balancer.post("apply", document=document, force=False).status_code == 200
        assert echo(held)
        assert echoes(port)
        assert echoes(other)
        held.release()
        eventually(lambda: len(balancer.gateway_pids()) == 1, what="one gateway")


def test_an_address_that_is_not_here_yet_is_waited_for(nodes: dict[str, dcmtk.Peer]) -> None:
    site = site_of(nodes, 11112).replace("127.0.0.1:11112", "192.0.2.77:11112")  # RFC 5737: nobody's
    with Balancer(site) as balancer:
        eventually(lambda: balancer.status("pacs")["state"] == "waiting", what="waiting")
        assert "192.0.2.77" in balancer.status("pacs")["reason"]
        assert balancer.cli("status").returncode == 2
        assert balancer.events("listener.waiting")[0]["address"] == "192.0.2.77"


def test_two_instances_run_on_one_machine(balancer: Balancer, nodes: dict[str, dcmtk.Peer]) -> None:
    other = free_port()
    with Balancer(site_of(nodes, other)) as second:
        second.wait_state("pacs", "a", "up")
        assert echoes(other)
        assert balancer.status("pacs")["state"] == "up"


def test_a_gateway_that_cannot_be_started_again_is_tried_until_it_can(balancer: Balancer, port: int) -> None:
    state = balancer.home / "state"
    (lost,) = balancer.gateway_pids()
    log = state / "gateway.log"
    log.rename(state / "kept.log")
    log.mkdir()  # its log cannot be opened, so it cannot be started
    os.kill(lost, signal.SIGKILL)
    eventually(lambda: len(balancer.events("gateway.lost")) >= 3, 30, "two tries in vain")
    log.rmdir()
    assert echoes(port)


def test_a_gateway_that_hangs_does_not_keep_the_balancer_from_stopping(nodes: dict[str, dcmtk.Peer], port: int) -> None:
    with Balancer(site_of(nodes, port, top="drain_timeout: 1s")) as balancer:
        balancer.wait_state("pacs", "a", "up")
        os.kill(balancer.gateway_pids()[0], signal.SIGSTOP)
        assert balancer.process is not None
        balancer.process.send_signal(signal.SIGTERM)
        assert balancer.process.wait(40) == 0
        assert balancer.gateway_pids() == []


def test_nothing_is_applied_while_the_balancer_stops(balancer: Balancer, port: int) -> None:
    held = associate(port)
    assert balancer.process is not None
    balancer.process.send_signal(signal.SIGTERM)
    eventually(lambda: not echoes(port), what="the end of listening")
    refused = balancer.post("apply", document=balancer.site.read_text().replace("round_robin", "first_up"), force=True)
    assert refused.status_code == 503, refused.text
    assert not echoes(port)
    held.release()
    assert balancer.process.wait(25) == 0


def test_a_start_that_fails_leaves_nothing_behind(nodes: dict[str, dcmtk.Peer], port: int) -> None:
    balancer = Balancer(site_of(nodes, port))
    (balancer.home / "run").mkdir()
    (balancer.home / "run/api.sock").write_text("not a socket")
    failed = balancer.cli("run", str(balancer.site))
    assert failed.returncode == 1
    assert "api.sock" in failed.stderr
    assert balancer.gateway_pids() == []
    with pytest.raises(AssertionError):
        associate(port)


def test_a_gateway_that_hangs_is_replaced(balancer: Balancer, port: int) -> None:
    (hung,) = balancer.gateway_pids()
    os.kill(hung, signal.SIGSTOP)
    lost = eventually(lambda: balancer.events("gateway.lost"), 40, "the loss noticed")
    assert "did not answer" in lost[0]["reason"]
    assert echoes(port)
    assert hung not in balancer.gateway_pids()


def test_a_gateway_that_hangs_does_not_keep_a_supervisor_from_starting(balancer: Balancer, port: int) -> None:
    held = associate(port)
    (old,) = balancer.gateway_pids()
    assert balancer.cli("gateway", "replace").returncode == 0
    os.kill(old, signal.SIGSTOP)
    balancer.kill_supervisor()
    balancer.start()
    assert echoes(port)
    assert old not in balancer.gateway_pids()
    held.abort()


def open_now(balancer: Balancer) -> dict[str, int]:
    return {name: service["connections"] for name, service in balancer.status()["services"].items()}


def two_services(nodes: dict[str, dcmtk.Peer], ports: tuple[int, int], workers: int) -> str:
    services = "".join(
        f"""
  {name}:
    protocol: dicom
    listen: 127.0.0.1:{port}
    max_connections: 1
    queue_wait: 300ms
    nodes:
      n: {{address: '127.0.0.1:{nodes[name].port}'}}"""
        for name, port in zip(("a", "b"), ports, strict=True)
    )
    return f"site: test\ngateway: {{workers: {workers}}}\nservices:{services}\n"


def test_what_is_open_counts_when_a_service_leaves_and_comes_back(nodes: dict[str, dcmtk.Peer]) -> None:
    ports = (free_port(), free_port())
    both = two_services(nodes, ports, workers=1)
    alone = both[: both.index("\n  b:")] + "\n"
    with Balancer(both) as balancer:
        held = associate(ports[1])
        assert balancer.post("apply", document=alone, force=True).status_code == 200
        assert balancer.post("apply", document=both, force=True).status_code == 200
        assert balancer.status("b")["connections"] == 1
        assert not echoes(ports[1])
        held.release()
        eventually(lambda: echoes(ports[1]), what="a place after the release")


def test_what_is_open_counts_when_services_move_to_and_fro(nodes: dict[str, dcmtk.Peer]) -> None:
    ports = (free_port(), free_port())
    with Balancer(two_services(nodes, ports, workers=1)) as balancer:
        held = [associate(port) for port in ports]
        first = balancer.gateway_pids()
        for workers in (2, 1, 2):
            answer = balancer.post("apply", document=two_services(nodes, ports, workers), force=True)
            assert answer.status_code == 200, answer.text
            assert not any(echoes(port) for port in ports), f"over the limit with {workers} workers"
            eventually(lambda: open_now(balancer) == {"a": 1, "b": 1}, what="what is held, and no more")
        for pid in set(balancer.gateway_pids()) - set(first):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(balancer.events("gateway.lost")) >= 1, what="the loss noticed")
        eventually(lambda: len(balancer.gateway_pids()) >= 2, what="a new gateway")
        # The new one hears what is open from the older gateways, a moment after it has begun.
        eventually(lambda: not any(echoes(port) for port in ports), what="the limit, after a crash of who had nothing")
        assert not any(echoes(port) for port in ports)
        for association in held:
            association.release()

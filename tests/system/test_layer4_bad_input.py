"""Layer 4, what cannot work: it is said before anything is changed, and what runs goes on."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.lab import VIPS, VIPS6, Segment
from tests.system.layer4_stage import DIRECT, MASQUERADED, TRANSLATED, Stage, document, in_laboratory

WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
CROWD = """table inet crowd {
  set seen { type ipv4_addr; flags dynamic,timeout; timeout 1m; }
  chain in { type filter hook prerouting priority -300; add @seen { ip saddr }; }
}"""
MANAGED = {"manage_addresses": True, "interface": "eth0"}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with in_laboratory(tmp_path_factory.mktemp("lab")) as stage:
        yield stage


def service(**settings: Any) -> dict[str, Any]:
    return {
        "protocol": "tcp",
        "listen": f"{VIPS[0]}:8050",
        "health": {"check": "tcp"},
        "nodes": {"a": {"address": Segment.SERVERS.v4(11)}},
        **DIRECT.settings,
        **settings,
    }


CHECKED = {
    "another port behind direct routing": (service(nodes={"a": {"address": "10.77.1.11:8051"}}), "nodes.a", "8051"),
    "another family behind it": (service(nodes={"a": {"address": Segment.SERVERS.v6(11)}}), "nodes.a", "IPv6"),
    "two families in front": (service(listen=[f"{VIPS[0]}:8050", f"[{VIPS6[0]}]:8050"]), "listen", "family"),
    "every address": (service(listen="0.0.0.0:8050"), "listen", "0.0.0.0"),
    "least_work": (service(balance="least_work"), "balance", "least_connections"),
    "a cookie": (service(protocol="http", persistence={"by": "cookie"}), "persistence", "source_ip"),
    "masquerade of direct routing": (service(masquerade=True), "masquerade", "l4_nat"),
    "a limit of direct routing": (
        service(nodes={"a": {"address": "10.77.1.11", "max_connections": 3}}),
        "max_connections",
        "l4_nat",
    ),
}


@pytest.mark.parametrize("case", CHECKED)
def test_check_says_what_a_mode_cannot(stage: Stage, case: str) -> None:
    wrong, place, word = CHECKED[case]
    done = stage.command("check", site=document({"pacs": wrong}))
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert place in said, said
    assert word in said, said


def test_a_node_behind_a_router_is_refused_and_what_runs_goes_on(stage: Stage) -> None:
    served = stage.serve(DIRECT)
    with served.transfer() as transfer:
        transfer.goes_on()
        wrong = {**served.document, "nodes": {"away": {"address": Segment.CLIENTS.v4(60)}}}
        answer = stage.balancer.post("apply", document=document({served.name: wrong}), force=True)
        assert not answer.is_success
        assert "router" in answer.text, answer.text
        assert Segment.CLIENTS.v4(1) not in answer.text or "away" in answer.text
        transfer.goes_on(5)
    assert set(served.nodes(4)) == {"a", "b"}


def test_nat_without_forwarding_is_refused(stage: Stage) -> None:
    served = stage.serve(DIRECT)
    machine = stage.lab.balancer
    machine.set_kernel(ipv4__ip_forward=0)
    try:
        wrong = {**served.document, **TRANSLATED.settings, "nodes": {"x": {"address": Segment.INNER.v4(11)}}}
        answer = stage.balancer.post("apply", document=document({"nat": wrong}), force=True)
        assert not answer.is_success
        assert "ip_forward" in answer.text, answer.text
        assert set(served.nodes(4)) == {"a", "b"}
    finally:
        machine.set_kernel(ipv4__ip_forward=1)


def test_without_the_right_to_administer_the_network_it_does_not_start(stage: Stage) -> None:
    site = stage.folder / "asked.yaml"
    site.write_text(document({"pacs": service()}))
    home = stage.folder / "unprivileged"
    environment = {
        **stage.balancer.environment,
        "EQUIPOISE_RUNTIME_DIR": str(home / "run"),
        "EQUIPOISE_STATE_DIR": str(home / "state"),
    }
    command = [*stage.lab.balancer.prefix, *WITHOUT_RIGHTS, sys.executable, "-m", "equipoise", "run", str(site)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "CAP_NET_ADMIN" in done.stdout + done.stderr


def test_an_address_that_another_machine_has_is_not_taken(stage: Stage) -> None:
    rival = stage.lab.near.host
    rival.add_address(f"{VIPS[2]}/32")
    try:
        wanted = {"pacs": service(**MASQUERADED.settings, listen=f"{VIPS[2]}:8050")}
        answer = stage.balancer.post("apply", document=document(wanted, network=MANAGED), force=True)
        assert not answer.is_success
        assert f"{VIPS[2]} is another machine's" in answer.text
        assert rival.mac() in answer.text
        assert f"{VIPS[2]}/" not in stage.lab.balancer.ip("-brief", "address", "show", "dev", "eth0")
    finally:
        rival.ip("address", "del", f"{VIPS[2]}/32", "dev", "eth0")


def test_doctor_finds_a_node_that_answers_for_the_vip(stage: Stage) -> None:
    loud = stage.node("c").host
    loud.set_kernel(ipv4__conf__all__arp_ignore=0)
    site = document({"pacs": service(nodes={"c": {"address": loud.address}})})
    try:
        done = stage.command("doctor", "--json", site=site)
        said = done.stdout + done.stderr
        assert done.returncode == 2, said
        assert VIPS[0] in said, said
        assert loud.mac() in said.lower() or loud.address in said, said
    finally:
        loud.set_kernel(ipv4__conf__all__arp_ignore=1)


def test_rules_that_the_kernel_has_for_others_do_not_stop_it(stage: Stage) -> None:
    machine = stage.lab.balancer
    machine.must("nft", "-f", "-", given=CROWD)
    try:
        served = stage.serve(TRANSLATED)
        assert set(served.nodes(4)) == {"x", "y"}
    finally:
        machine.must("nft", "delete", "table", "inet", "crowd")


def test_the_site_of_this_stage_is_good(stage: Stage) -> None:
    # Else the cases above might be refused for something else.
    done = stage.command("check", site=document({"pacs": service()}))
    assert done.returncode == 0, done.stdout + done.stderr

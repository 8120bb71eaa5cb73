from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from equipoise.base.errors import EngineError
from equipoise.engines.layer4.conntrackd import keep
from equipoise.engines.layer4.render import render
from equipoise.plan.model import Cluster
from tests.unit.engines.layer4.plans import plan_of

DIRECT = "dr: {protocol: tcp, mode: l4_dr, listen: 10.0.0.101, ports: [80], nodes: {a: {address: 10.0.0.13}}}"
SERVICES = f"""
nat: {{protocol: tcp, mode: l4_nat, listen: 10.0.0.100, ports: [80],
    nodes: {{a: {{address: 10.0.20.12}}, b: {{address: 10.0.20.11}}, old: {{address: old.example}}}}}}
nat6: {{protocol: tcp, mode: l4_nat, listen: 'fd00::100', ports: [80], nodes: {{a: {{address: 'fd00:20::12'}}}}}}
{DIRECT}
"""
PAIR = Cluster(
    role="primary",
    address="10.0.0.2",
    peer="10.0.0.3",
    interface="eth0",
    advert_s=0.2,
    preempt=False,
    port=11251,
    groups=(),
)


def text_of(services: str = SERVICES, cluster: Cluster | None = PAIR) -> str:
    return render(replace(plan_of(services), cluster=cluster), "equipoise").tracking


def values(text: str) -> Iterator[list[str]]:
    return (line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def test_the_two_machines_talk_to_each_other_alone() -> None:
    found = list(values(text_of()))
    assert ["IPv4_address", "10.0.0.2"] in found
    assert ["IPv4_Destination_Address", "10.0.0.3"] in found
    assert ["Port", "11253"] in found
    assert ["Interface", "eth0"] in found


def test_a_pair_may_talk_ipv6() -> None:
    found = list(values(text_of(cluster=replace(PAIR, address="fd00::2", peer="fd00::3"))))
    assert ["IPv6_address", "fd00::2"] in found
    assert ["IPv6_Destination_Address", "fd00::3"] in found


def test_only_connections_to_translated_nodes_are_told() -> None:
    accepted = text_of().split("Address Accept {")[1]
    listed = [line for line in values(accepted) if len(line) == 2]
    assert listed == [["IPv4_address", "10.0.20.11"], ["IPv4_address", "10.0.20.12"], ["IPv6_address", "fd00:20::12"]]


def test_entries_go_into_the_kernel_at_once_and_nothing_is_logged() -> None:
    found = list(values(text_of()))
    for line in ("DisableExternalCache yes", "StartupResync yes", "TCPWindowTracking no", "LogFile no", "Syslog no"):
        assert line.split() in found


def test_without_a_peer_or_without_translated_nodes_there_is_nothing() -> None:
    assert text_of(cluster=None) == ""
    assert text_of(DIRECT) == ""
    nobody = "{old: {address: old.example}}"
    assert text_of(f"s: {{protocol: tcp, mode: l4_nat, listen: 10.0.0.1, ports: [80], nodes: {nobody}}}") == ""


def test_the_file_is_there_with_the_text_and_goes_with_it(tmp_path: Path) -> None:
    file = tmp_path / "conntrackd.conf"
    keep(file, "")
    assert not file.exists()
    keep(file, "first\n")
    written = file.stat()
    keep(file, "first\n")
    assert (file.read_text(), file.stat().st_ino) == ("first\n", written.st_ino), "what is right is left alone"
    keep(file, "second\n")
    assert file.read_text() == "second\n"
    keep(file, "")
    assert not file.exists()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot write .*/none/conntrackd\.conf: No such file"):
        keep(tmp_path / "none" / "conntrackd.conf", "text\n")

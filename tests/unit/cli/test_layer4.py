"""`layer4 prepare-node` as people call it; what it does to a machine is in tests/system/test_prepare_node.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Equipoise = Callable[..., Any]
PREPARE = ("layer4", "prepare-node")


def test_a_site_and_a_node_give_a_script(equipoise: Equipoise, tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(
        "site: s\nservices: {ct: {protocol: dicom, mode: l4_dr, listen: 10.0.0.100, nodes: {a: {address: 10.0.0.11}}}}"
    )
    script = equipoise(*PREPARE, str(site), "a").stdout
    assert script.startswith("#!/bin/sh\n")
    assert "ip address replace 10.0.0.100/32 dev lo" in script
    assert (
        "$lan = (Get-NetIPAddress -IPAddress '10.0.0.11')"
        in equipoise(*PREPARE, "--for", "windows", str(site), "a").stdout
    )


def test_programs_get_its_parts(equipoise: Equipoise) -> None:
    found = json.loads(equipoise(*PREPARE, "--vip", "10.0.0.100", "--json").stdout)
    assert found["addresses"] == ["10.0.0.100"]
    assert found["settings"]["net.ipv4.conf.all.arp_ignore"] == "1"
    assert len(found["files"]) == 2
    windows = json.loads(equipoise(*PREPARE, "--vip", "10.0.0.100", "--for", "windows", "--json").stdout)
    assert (windows["for"], "files" in windows) == ("windows", False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say which addresses: `SITE.yaml NODE`, or `--vip ADDRESS`"),
        (("site.yaml",), "say which addresses"),
        (("site.yaml", "a", "--vip", "10.0.0.1"), "say which addresses"),
        (("--vip", "pacs"), "'pacs' is no IP address"),
        (("--vip", "10.0.0.1", "--for", "windows", "--apply"), "--apply and --undo are for the Linux machine"),
        (("--apply", "--undo"), "are opposites"),
        (("--vip", "10.0.0.1", "--for", "solaris"), "solaris"),
    ],
)
def test_wrong_use_is_an_error_with_a_way_out(equipoise: Equipoise, words: tuple[str, ...], said: str) -> None:
    result = equipoise(*PREPARE, *words)
    assert (result.exit_code, said in result.stderr) == (1, True), result.stderr

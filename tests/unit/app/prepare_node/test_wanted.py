"""Which addresses a node is prepared for."""

from pathlib import Path

import pytest

from equipoise.app.prepare_node.wanted import Wanted, of_site, of_words
from equipoise.base.errors import EquipoiseError

SITE = """\
site: here
services:
  ct:
    protocol: dicom
    mode: l4_dr
    listen: 10.0.0.100
    nodes: {pacs-a: {address: 10.0.0.11}, pacs-b: {address: b.invalid}}
  web:
    protocol: tcp
    mode: l4_dr
    listen: ['10.0.0.101:443', '10.0.0.100:80']
    nodes: {pacs-a: {address: 10.0.0.11}}
  six: {protocol: tcp, mode: l4_dr, listen: '[fd00::100]:80', nodes: {pacs-c: {address: 'fd00::11'}}}
  hl7: {protocol: hl7, listen: 10.0.0.102, nodes: {pacs-a: {address: '10.0.0.11:2575'}, engine: {address: 10.0.0.20}}}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(SITE)
    return path


@pytest.mark.parametrize("name", ["pacs-a", "*/pacs-a"])
def test_a_machine_takes_packets_of_all_its_direct_services(site: Path, name: str) -> None:
    assert of_site(site, name) == Wanted(("10.0.0.100", "10.0.0.101"), (80, 104, 443), ("ct", "web"), "10.0.0.11")


def test_one_service_alone(site: Path) -> None:
    assert of_site(site, "ct/pacs-a").ports == (104,)


def test_a_node_whose_address_is_a_name(site: Path) -> None:
    assert of_site(site, "pacs-b") == Wanted(("10.0.0.100",), (104,), ("ct",), None)


def test_ipv6(site: Path) -> None:
    wanted = of_site(site, "pacs-c")
    assert (wanted.of_version(4), wanted.of_version(6)) == ((), ("fd00::100",))


@pytest.mark.parametrize("name", ["engine", "hl7/pacs-a", "pacs-x"])
def test_a_node_of_no_such_service_is_refused_with_the_names_there_are(site: Path, name: str) -> None:
    with pytest.raises(EquipoiseError, match=f"has a node '{name}'; their nodes are pacs-a, pacs-b, pacs-c"):
        of_site(site, name)


def test_a_site_without_such_services(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("site: here\nservices: {ct: {protocol: dicom, listen: 10.0.0.1, nodes: {a: {address: 10.0.0.2}}}}")
    with pytest.raises(EquipoiseError, match=r"no service has `mode: l4_dr`"):
        of_site(path, "a")


def test_addresses_as_people_write_them() -> None:
    assert of_words(["10.0.0.100", "FD00:0::100", "10.0.0.100"]) == Wanted(("10.0.0.100", "fd00::100"))
    with pytest.raises(EquipoiseError, match=r"--vip '10\.0\.0\.100:104' is no IP address; .* without port"):
        of_words(["10.0.0.100:104"])

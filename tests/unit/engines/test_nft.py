import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from equipoise.base import processes
from equipoise.base.errors import EngineError
from equipoise.engines import nft
from tests.unit.engines.layer4.namespace import Namespace, missing, namespace
from tests.unit.engines.nobody import told_to_nobody

WHY_NOT = missing("nft")
needs_root = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


@pytest.fixture(scope="module")
def network() -> Iterator[Namespace]:
    with namespace() as made:
        yield made


def tables(network: Namespace) -> str:
    return network.run("nft", "list", "tables")


@pytest.mark.root("network namespaces and nf_tables")
@needs_root
def test_a_transaction_is_taken_whole_or_not_at_all(network: Namespace) -> None:
    network.call(nft.run, "add table inet one\n")
    with pytest.raises(EngineError) as refused:
        network.call(nft.run, "add table inet two\nadd rule inet two nowhere accept\ndelete table inet one\n")
    assert "in `add rule inet two nowhere accept`" in str(refused.value)
    assert tables(network) == "table inet one\n"


@pytest.mark.root("network namespaces and nf_tables")
@needs_root
def test_a_check_changes_nothing(network: Namespace) -> None:
    before = tables(network)
    network.call(nft.run, "add table inet checked\n", only_check=True)
    with pytest.raises(EngineError, match="the kernel does not take the packet rules"):
        network.call(nft.run, "delete table inet nobody\n", only_check=True)
    assert tables(network) == before


@pytest.mark.root("network namespaces and nf_tables")
@needs_root
def test_of_many_complaints_the_first_few_are_said_with_their_lines(network: Namespace) -> None:
    with pytest.raises(EngineError) as refused:
        network.call(nft.run, "".join(f"add nonsense-{i} {'x' * 500}\n" for i in range(50)))
    assert "add nonsense-0" in str(refused.value)
    assert len(str(refused.value)) < 1000


@pytest.mark.root("becomes another user")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_without_the_right_it_is_said_who_has_it() -> None:
    assert "CAP_NET_ADMIN" in told_to_nobody(lambda: nft.run("add table inet nobody\n"))


def stand_in(folder: Path, script: str) -> None:
    (folder / "nft").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nft").chmod(0o755)


def test_the_usual_places_are_looked_through_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(tmp_path, "exit 0")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(processes, "_USUAL_PLACES", str(tmp_path))
    assert nft.program() == str(tmp_path / "nft")
    nft.run("add table inet x\n")


def test_without_the_program_it_is_said_where_it_is_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(processes, "_USUAL_PLACES", str(tmp_path))
    with pytest.raises(EngineError, match="apt install nftables"):
        nft.run("add table inet x\n")


def test_what_it_says_otherwise_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(tmp_path, "cat >/dev/null; echo 'netlink: Error: cache initialization failed' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(EngineError, match="cache initialization failed"):
        nft.run("add table inet x\n")


def test_one_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(tmp_path, "exec sleep 60")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(nft, "_WAIT_S", 0.2)
    with pytest.raises(EngineError, match="nft cannot be asked"):
        nft.run("add table inet x\n")

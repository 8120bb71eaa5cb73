"""The page of peers says what the tests say: its rows are their parameters, and it was written by a run that passed."""

import re

import pytest

from tests.system import dcmtk
from tests.system.peers import DCMTK, PEERS, Operation, Side, covered
from tests.system.peers_page import NO_TLS, PASSED, UNTESTED, empty, read_rows

PROGRAMS = {
    (Side.CLIENT, Operation.ECHO): "echoscu",
    (Side.CLIENT, Operation.STORE): "storescu",
    (Side.CLIENT, Operation.FIND): "findscu",
    (Side.CLIENT, Operation.WORKLIST): "findscu",
    (Side.CLIENT, Operation.MOVE): "movescu",
    (Side.CLIENT, Operation.GET): "getscu",
    (Side.NODE, Operation.ECHO): "storescp",
    (Side.NODE, Operation.STORE): "storescp",
    (Side.NODE, Operation.FIND): "dcmqrscp",
    (Side.NODE, Operation.MOVE): "dcmqrscp",
    (Side.NODE, Operation.GET): "dcmqrscp",
    (Side.NODE, Operation.WORKLIST): "wlmscpfs",
}


def test_the_page_has_the_cells_that_are_tested_and_no_others() -> None:
    said = dict(pair for row in read_rows() for pair in row.cells())
    assert {cell for cell, text in said.items() if text not in (NO_TLS, UNTESTED)} == covered(), "run `make peers`"


def test_the_page_was_written_by_a_run_in_which_all_passed() -> None:
    by_name = {peer.name: peer for peer in PEERS}
    tested = covered()
    for row in read_rows():
        for cell, text in row.cells():
            assert text == (PASSED if cell in tested else empty(cell, by_name[cell.peer])), row


def test_every_peer_has_a_row_with_its_version() -> None:
    versions = {row.peer: row.version for row in read_rows()}
    assert set(versions) == {peer.name for peer in PEERS}
    assert all(re.fullmatch(r"[0-9]+(\.[0-9]+)+", version) for version in versions.values()), versions


@pytest.mark.parametrize(("side", "operation"), PROGRAMS, ids=str)
def test_dcmtk_has_tls_where_the_table_says_so(side: Side, operation: Operation) -> None:
    has_tls = "--enable-tls" in dcmtk.run(PROGRAMS[side, operation], "--help").stdout
    assert has_tls == DCMTK.can_tls(side, [operation])

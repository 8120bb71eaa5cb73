"""docs/reference/peers.md, written by a run of the tests with real peers: `make peers` loads this as a plug-in.

    python -m pytest -p tests.system.peers_page TESTS

A cell has what its tests gave: passed, or what failed.  A run that leaves cells out writes nothing.
"""

from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.system.peers import PEERS, Cell, Operation, Peer, Side, Talk, Wire, covered, covering, talks_of

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "peers.md"
PASSED, NO_TLS, UNTESTED = "passed", "has none", "not tested"
_INTRODUCTION = """# Peers

Written by `make peers` from what the tests `tests/system/test_real_peers_*.py` saw; change those, then run it.

Each row is an independent implementation in conversation with another one, through the balancer: as the client that
calls it, or as the node behind it. `plain` and `TLS` are what this peer and the balancer speak with each other.
*Has none*: this version of the peer does the operation in plain only.

| peer | version | as | operation | with | plain | TLS |
|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    peer: str
    version: str
    side: str
    operation: str
    others: str
    plain: str
    tls: str

    def cells(self) -> Iterable[tuple[Cell, str]]:
        """Yield its two cells with what they say."""
        for wire, text in ((Wire.PLAIN, self.plain), (Wire.TLS, self.tls)):
            yield Cell(self.peer, Side(self.side), Operation(self.operation), wire), text

    def __str__(self) -> str:
        texts = (self.peer, self.version, self.side, self.operation, self.others, self.plain, self.tls)
        return f"| {' | '.join(texts)} |"


def read_rows() -> list[Row]:
    """Return the table of the page as it is."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [Row(*line.strip("| ").split(" | ")) for line in lines[1:]]


def rows(results: Mapping[Cell, str]) -> list[Row]:
    """Return the table for what each tested cell says."""
    return [
        Row(
            peer.name,
            peer.version(),
            side,
            operation,
            ", ".join(covering(peer, side, operation)),
            _text(results, Cell(peer.name, side, operation, Wire.PLAIN), peer),
            _text(results, Cell(peer.name, side, operation, Wire.TLS), peer),
        )
        for peer in PEERS
        for side in Side
        for operation in Operation
        if any(Cell(peer.name, side, operation, wire) in results for wire in Wire)
    ]


def empty(cell: Cell, peer: Peer) -> str:
    """Return what stands in a cell that no test fills."""
    return NO_TLS if cell.wire is Wire.TLS and not peer.can_tls(cell.side, [cell.operation]) else UNTESTED


def _text(results: Mapping[Cell, str], cell: Cell, peer: Peer) -> str:
    return results[cell] if cell in results else empty(cell, peer)


# The plug-in

_outcomes = pytest.StashKey[defaultdict[Cell, list[str]]]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin with nothing."""
    outcomes: defaultdict[Cell, list[str]] = defaultdict(list)
    config.stash[_outcomes] = outcomes


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what a test with talks gave, for each of their cells."""
    report = yield
    if report.when == "call" or not report.passed:
        for talk in _talks(item):
            for cell in talk.cells():
                item.config.stash[_outcomes][cell].append(_outcome(report, call))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the page, when every cell has something to say."""
    outcomes = session.config.stash[_outcomes]
    if missing := covered() - set(outcomes):
        session.config.issue_config_time_warning(
            pytest.PytestWarning(f"{PAGE.name} stays as it is: {len(missing)} cells were not run"), stacklevel=2
        )
        return
    results = {cell: next((text for text in texts if text != PASSED), PASSED) for cell, texts in outcomes.items()}
    PAGE.write_text(_INTRODUCTION + "".join(f"{row}\n" for row in rows(results)))


def _talks(item: pytest.Item) -> list[Talk]:
    parameters: Any = getattr(item, "callspec", None)
    return talks_of(parameters.params.values()) if parameters else []


def _outcome(report: pytest.TestReport, call: pytest.CallInfo[None]) -> str:
    if report.passed:
        return PASSED
    said = str(call.excinfo.value).strip() if call.excinfo else ""
    first = said.splitlines()[0][:100].replace("|", "/") if said else "no message"
    return f"not run: {first}" if report.skipped else f"failed: {first}"

"""The real peers of the tests, and which cells of the table "peer, operation, plain or TLS" each test fills.

A test that has two peers talk through the balancer is parametrized by `Talk`s; `covered` finds them all again in the
parameters, so the page (`peers_page.py`) has a row for what is tested and for nothing else.  Leaves out how a peer is
started or called: each has a file of its own.
"""

import importlib
import json
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import ModuleType

import pynetdicom

from tests.system import dcmjs, dcmtk, dicom_echo, orthanc

MODULES = ("test_real_peers_orthanc", "test_real_peers_others", "test_real_peers_worklist")


class Wire(StrEnum):
    """What a peer speaks with the balancer."""

    PLAIN = "plain"
    TLS = "TLS"


class Side(StrEnum):
    """Where a peer stands: it calls the balancer, or is called by it."""

    CLIENT = "client"
    NODE = "node"


class Operation(StrEnum):
    """What is asked; a name of DICOM PS3.7, and the service where that alone would not say it."""

    ECHO = "C-ECHO"
    STORE = "C-STORE"
    FIND = "C-FIND"
    MOVE = "C-MOVE"
    GET = "C-GET"
    WORKLIST = "C-FIND of the worklist"
    CREATE = "N-CREATE of MPPS"
    SET = "N-SET of MPPS"
    COMMIT = "N-ACTION of storage commitment"
    REPORT = "N-EVENT-REPORT of storage commitment"


@dataclass(frozen=True, slots=True)
class Peer:
    """An implementation.

    Attributes:
        name: As its makers write it.
        version: Finds the version of what is installed.
        without_tls: What it can do in plain only.
    """

    name: str
    version: Callable[[], str]
    without_tls: frozenset[tuple[Side, Operation]] = frozenset()

    def can_tls(self, side: Side, operations: Iterable[Operation]) -> bool:
        """Say whether it does all of these over TLS."""
        return not any((side, operation) in self.without_tls for operation in operations)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the table."""

    peer: str
    side: Side
    operation: Operation
    wire: Wire


@dataclass(frozen=True, slots=True)
class Talk:
    """A client and a node, what they speak with the balancer, and what the one asks of the other."""

    client: Peer
    node: Peer
    operations: tuple[Operation, ...]
    client_wire: Wire = Wire.PLAIN
    node_wire: Wire = Wire.PLAIN

    def __str__(self) -> str:
        wires = f"{self.client_wire}-{self.node_wire}"
        return f"{self.client.name}-{self.node.name}-{'+'.join(self.operations)}-{wires}".replace(" ", "_")

    def cells(self) -> Iterator[Cell]:
        """Yield what this fills: two cells for each operation."""
        for operation in self.operations:
            yield Cell(self.client.name, Side.CLIENT, operation, self.client_wire)
            yield Cell(self.node.name, Side.NODE, operation, self.node_wire)


def talks(client: Peer, node: Peer, *operations: Operation) -> list[Talk]:
    """Return the talk in plain, and once more with TLS on every side that can."""
    client_wire = Wire.TLS if client.can_tls(Side.CLIENT, operations) else Wire.PLAIN
    node_wire = Wire.TLS if node.can_tls(Side.NODE, operations) else Wire.PLAIN
    both = {Talk(client, node, operations): None, Talk(client, node, operations, client_wire, node_wire): None}
    return list(both)


def talks_of(parameters: Iterable[object]) -> list[Talk]:
    """Return the talks among the parameters of a test."""
    return [each for each in parameters if isinstance(each, Talk)]


def covered() -> set[Cell]:
    """Return every cell that a test fills."""
    return {cell for talk in _all_talks() for cell in talk.cells()}


def covering(peer: Peer, side: Side, operation: Operation) -> list[str]:
    """Return the names of those that a peer talks with, where it stands at this side."""
    found = [talk for talk in _all_talks() if operation in talk.operations]
    if side is Side.CLIENT:
        others = {talk.node.name for talk in found if talk.client is peer}
    else:
        others = {talk.client.name for talk in found if talk.node is peer}
    return sorted(others, key=str.lower)


def _all_talks() -> list[Talk]:
    modules = [importlib.import_module(f"tests.system.{name}") for name in MODULES]
    return [talk for module in modules for talk in _talks_in(module)]


def _talks_in(module: ModuleType) -> Iterator[Talk]:
    for name, function in vars(module).items():
        marks = getattr(function, "pytestmark", []) if name.startswith("test_") else []
        for mark in marks:
            if mark.name == "parametrize":
                yield from talks_of(mark.args[1])


def _debian_version(package: str) -> str:
    asked = ["dpkg-query", "--show", "--showformat", "${Version}", package]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.partition("-")[0]


def _dcmtk_version() -> str:
    found = re.search(r"v(\S+)", dcmtk.run("echoscu", "--version").stdout)
    assert found is not None
    return found[1]


_ALL = [(side, operation) for side in Side for operation in Operation]
# DCMTK 3.6.7: findscu, storescu, echoscu and storescp have TLS; the others of its programs do not.
_DCMTK_PLAIN = [
    *((Side.CLIENT, operation) for operation in (Operation.MOVE, Operation.GET)),
    *((Side.NODE, operation) for operation in (Operation.FIND, Operation.MOVE, Operation.GET, Operation.WORKLIST)),
]

DCMTK = Peer("DCMTK", _dcmtk_version, frozenset(_DCMTK_PLAIN))
ORTHANC = Peer("Orthanc", orthanc.version)
PYNETDICOM = Peer("pynetdicom", lambda: str(pynetdicom.__version__))
DCMJS = Peer("dcmjs-dimse", lambda: str(json.loads(dcmjs.PACKAGE.read_text())["dependencies"]["dcmjs-dimse"]))
ODIL = Peer("odil", lambda: _debian_version("odil"), frozenset(_ALL))
DICOM_ECHO = Peer("dicom-echo", lambda: dicom_echo.VERSION, frozenset(_ALL))
PEERS = (DCMTK, ORTHANC, PYNETDICOM, DCMJS, ODIL, DICOM_ECHO)

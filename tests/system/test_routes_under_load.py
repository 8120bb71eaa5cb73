"""One port, several pools, senders that never rest: nodes are drained, routes come and go, nothing fails or is lost.

Objects are numbers (see `senders`), so that it shows which node stored what, and how often.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import pytest

from equipoise.sim.ports import free_port
from tests.system.balancer import Balancer, eventually
from tests.system.rawpeer import RawClient, RawNode
from tests.system.senders import Sender, Shelf

STEP_S = 0.35
TITLES = ("PACS", "WL", "OWN")
ROUTES: list[dict[str, Any]] = [
    {"called_ae": "WL", "to": "second"},
    {"called_ae": "PACS", "service": ["store"], "to": "archive"},
]


@dataclass(slots=True)
class Site:
    """The balancer, and a shelf for each node."""

    port: int
    nodes: dict[str, RawNode]
    shelves: dict[str, Shelf]
    balancer: Balancer = field(init=False)

    def document(self, routes: list[dict[str, Any]]) -> str:
        """Return the document with these routes, and the pools that they lead to."""
        pools = {"door": ["x"], "archive": ["a", "b"], "second": ["c"]}
        wanted = {"door", *(route["to"] for route in routes)}
        services = {name: self._service(nodes) for name, nodes in pools.items() if name in wanted}
        services["door"] |= {"listen": f"127.0.0.1:{self.port}", "routes": routes}
        return json.dumps({"site": "routes", "services": services})

    def _service(self, nodes: list[str]) -> dict[str, Any]:
        return {
            "protocol": "dicom",
            "balance": "least_work",
            "slow_start": "0s",
            "health": {"check": "tcp", "interval": "1h", "rise": 1},
            "nodes": {name: {"address": f"127.0.0.1:{self.nodes[name].port}"} for name in nodes},
        }

    def reload(self, *routes: dict[str, Any]) -> None:
        """Put a document with just these routes into force."""
        answer = self.balancer.post("apply", document=self.document(list(routes)), force=True)
        assert answer.status_code == 200, answer.text
        time.sleep(STEP_S)

    def drain(self, node: str, sender: Sender) -> None:
        """Drain a node for a while; hold that it gets nothing new of a sender to its pool."""
        self.operate("drain", node)
        self.stores(sender, 2)  # what had begun is stored
        before = len(self.shelves[node.partition("/")[2]].stored)
        self.stores(sender, 6)
        assert len(self.shelves[node.partition("/")[2]].stored) == before, f"{node} is drained and gets work"
        self.operate("enable", node)

    def connections(self) -> set[int]:
        """Return what is open at nodes."""
        services = self.balancer.status()["services"].values()
        return {node["connections"] for service in services for node in service["nodes"].values()}

    def stores(self, sender: Sender, count: int) -> None:
        """Wait until a sender has stored so many objects more."""
        wanted = len(sender.acknowledged) + count
        eventually(lambda: sender.failures or len(sender.acknowledged) >= wanted, 30, f"{count} objects stored")

    def operate(self, action: str, node: str) -> None:
        answer = self.balancer.post("nodes", pattern=node, action=action, weight=None)
        assert answer.json() == {"changed": [node]}, answer.text


@pytest.fixture
def site() -> Iterator[Site]:
    with ExitStack() as stack:
        shelves = {name: Shelf() for name in "abcx"}
        nodes = {
            name: stack.enter_context(closing(RawNode(dict.fromkeys(TITLES, shelf.serve))))
            for name, shelf in shelves.items()
        }
        site = Site(free_port(), nodes, shelves)
        site.balancer = stack.enter_context(Balancer(site.document(ROUTES)))
        for pool, node in (("door", "x"), ("archive", "a"), ("archive", "b"), ("second", "c")):
            site.balancer.wait_state(pool, node, "up")
        yield site


def dialling(site: Site, title: str) -> Any:
    return lambda: RawClient(site.port, title)


def worked(site: Site, senders: dict[str, Sender]) -> bool:
    """Say whether everybody has stored what is worth a look."""
    shelves, of_all = site.shelves.values(), senders.values()
    return all(len(shelf.stored) > 10 for shelf in shelves) and all(len(each.acknowledged) > 30 for each in of_all)


def test_nothing_fails_while_nodes_are_drained_and_routes_come_and_go(site: Site) -> None:
    with ExitStack() as stack:
        senders = {title: stack.enter_context(Sender(dialling(site, title))) for title in TITLES}
        time.sleep(STEP_S)
        site.drain("archive/a", senders["PACS"])
        site.reload(ROUTES[1])  # WL is for the door's own node
        site.drain("archive/b", senders["PACS"])
        site.reload()  # and so is everything; the pools drain
        site.reload(*ROUTES)  # they are back
        assert site.balancer.post("gateways/replace").status_code == 200
        site.drain("archive/a", senders["PACS"])
        site.reload(ROUTES[0])
        site.reload(*ROUTES)
        site.drain("archive/b", senders["PACS"])
        process = site.balancer.process
        assert process is not None
        site.balancer.kill_supervisor()
        time.sleep(STEP_S)
        site.balancer.start()
        site.reload(*reversed(ROUTES))
        eventually(lambda: any(each.failures for each in senders.values()) or worked(site, senders), 60, "work for all")
    assert {title: sender.failures for title, sender in senders.items()} == {title: [] for title in TITLES}
    acknowledged = {title: set(sender.acknowledged) for title, sender in senders.items()}
    assert worked(site, senders)
    stored = Counter(number for shelf in site.shelves.values() for number in shelf.stored)
    assert stored == Counter(number for numbers in acknowledged.values() for number in numbers), "each once"
    assert acknowledged["OWN"] <= set(site.shelves["x"].stored)
    assert set(site.shelves["c"].stored) <= acknowledged["WL"]
    assert set(site.shelves["a"].stored) | set(site.shelves["b"].stored) <= acknowledged["PACS"]
    eventually(lambda: len(site.balancer.gateway_pids()) == 1, 20, "the end of the gateway that was replaced")
    assert {event["ended"] for event in site.balancer.events("association.ended")} == {"released"}
    assert site.balancer.events("task.failed") == site.balancer.events("gateway.lost") == []
    eventually(lambda: site.connections() == {0}, what="no connection")

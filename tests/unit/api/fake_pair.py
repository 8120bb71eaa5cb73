"""Half of a pair without a peer: it keeps what its status says, and each request changes that as the real one does."""

from typing import Any

from equipoise.base.errors import EquipoiseError
from equipoise.cluster.wanted import WantedPair

OWN, PEER = "10.0.0.2", "10.0.0.3"
TOKEN = "eqp1-secret"
SINCE = "2031-03-01T05:06:07.123Z"
CHANGE = {"path": "services.ct.nodes.a.weight", "what": "change", "old": "100", "new": "50"}


def alone() -> dict[str, Any]:
    """What a machine says that is no half of a pair."""
    return {
        "joined": False,
        "configured": False,
        "site": "general-hospital",
        "role": None,
        "address": None,
        "interface": None,
        "advert_ms": None,
        "peer": None,
        "revision": None,
        "groups": [],
        "staying": [],
        "fault": None,
        "split": None,
        "lag": None,
        "last_failover": None,
        "invitation": None,
    }


def healthy() -> dict[str, Any]:
    """What the primary of a pair says with which nothing is wrong."""
    return alone() | {
        "joined": True,
        "configured": True,
        "role": "primary",
        "address": OWN,
        "interface": "eth0",
        "advert_ms": 200,
        "peer": {
            "address": PEER,
            "role": "secondary",
            "connected": True,
            "since": SINCE,
            "heard_s": 0.2,
            "version": "0.1.0",
            "clock_off_s": 0.01,
            "fault": None,
            "problem": None,
        },
        "revision": {"ours": 17, "theirs": 17, "relation": "same"},
        "groups": [group()],
        "staying": [],
        "lag": {"pending": 0, "behind_s": 0.0, "overrides": "same"},
    }


def group(**changes: Any) -> dict[str, Any]:
    """Return the addresses of the primary, which are here."""
    usual = {
        "name": "primary",
        "router_id": 51,
        "addresses": ["10.0.0.100", "10.0.0.101"],
        "here": "master",
        "here_since": SINCE,
        "there": "backup",
        "there_since": SINCE,
        "holder": "here",
        "reason": "the peer was silent",
    }
    return {**usual, **changes}


class FakePair:
    def __init__(self) -> None:
        self.document = alone()
        self.asked: list[tuple[Any, ...]] = []
        self.difference: list[dict[str, Any]] = []
        self.looks = 0
        self.joins_after_looks: int | None = None
        self.expires_after_looks: int | None = None
        self.peer_knows = True

    async def status(self) -> dict[str, Any]:
        self.looks += 1
        if self.document["invitation"] is not None:
            if self.looks == self.joins_after_looks:
                self.document = healthy()
            elif self.looks == self.expires_after_looks:
                self.document = alone()
        return self.document

    async def join(self, wanted: WantedPair, token: str | None) -> dict[str, Any]:
        peer, role, address = wanted.peer, wanted.role, wanted.address
        self.asked.append(("join", peer, token, role, address, wanted.interface))
        if self.document["joined"]:
            raise EquipoiseError(f"{PEER} is the peer already; `equipoise cluster leave` first")
        if token is None:
            self.document = alone() | {"invitation": {"peer": peer, "expires_s": 599.0}}
            command = f"equipoise cluster join {address or OWN} --token {TOKEN}"
            return {"state": "invited", "token": TOKEN, "command": command, "expires_s": 600.0}
        if token != TOKEN:
            raise EquipoiseError("the token is not that of an invitation; ask for a new one")
        self.document = healthy()
        return {"state": "joined", "peer": peer, "role": role or "secondary", "revision": 17}

    async def leave(self) -> dict[str, Any]:
        self.asked.append(("leave",))
        self._in_a_pair()
        self.document = alone()
        return {"peer": PEER, "peer_knows": self.peer_knows}

    async def sync(self, take: str | None) -> dict[str, Any]:
        self.asked.append(("sync", take))
        self._in_a_pair()
        revision = self.document["revision"]
        found = {"ours": revision["ours"], "theirs": revision["theirs"], "difference": self.difference}
        if revision["relation"] == "conflict" and take is None:
            return {"result": "conflict", **found}
        result = {"same": "same", "ahead": "sent", "behind": "taken"}.get(revision["relation"])
        self.document["revision"] = {"ours": 19, "theirs": 19, "relation": "same"}
        return {"result": result or ("sent" if take == "ours" else "taken"), **found}

    async def handover(self, groups: list[str], here: bool) -> dict[str, Any]:
        self.asked.append(("handover", groups, here))
        self._in_a_pair()
        moved = [each for each in self.document["groups"] if not groups or each["name"] in groups]
        for each in moved:
            each |= {"holder": "here" if here else "peer", "here": "master" if here else "backup"}
        return {"groups": [each["name"] for each in moved], "to": OWN if here else PEER, "within_ms": 42.7}

    def _in_a_pair(self) -> None:
        if not self.document["configured"]:
            raise EquipoiseError("this machine is in no pair; `equipoise cluster join PEER` makes one")

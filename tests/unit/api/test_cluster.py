"""The routes of a pair: what is asked reaches it, what it says passes as it is, nonsense does not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.api.fake_pair import OWN, PEER, TOKEN, healthy
from tests.unit.api.running import RunningApi


@pytest.fixture
def api(tmp_path: Path) -> Iterator[RunningApi]:
    running = RunningApi(tmp_path / "api.sock").start()
    yield running
    running.close()


@pytest.fixture
def http(api: RunningApi) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(api.socket))
    with httpx.Client(transport=transport, base_url="http://equipoise/api/v1", timeout=5) as client:
        yield client


def post(http: httpx.Client, what: str, **body: Any) -> Any:
    return http.post(f"/cluster/{what}", json=body)


def test_the_status_is_the_pairs_own_document(api: RunningApi, http: httpx.Client) -> None:
    assert http.get("/cluster").json()["configured"] is False
    api.supervisor.pair.document = healthy()
    assert http.get("/cluster").json() == healthy()


def test_a_pair_is_made_used_and_ended(api: RunningApi, http: httpx.Client) -> None:
    invited = post(http, "join", peer=PEER).json()
    assert (invited["state"], invited["token"]) == ("invited", TOKEN)
    joined = post(http, "join", peer=PEER, token=TOKEN, role="primary", address=OWN, interface="eth0").json()
    assert joined == {"state": "joined", "peer": PEER, "role": "primary", "revision": 17}
    assert post(http, "sync", take="ours").json()["result"] == "same"
    assert post(http, "handover", groups=["primary"], here=True).json()["to"] == OWN
    assert post(http, "leave").json() == {"peer": PEER, "peer_knows": True}
    assert api.supervisor.pair.asked == [
        ("join", PEER, None, None, None, None),
        ("join", PEER, TOKEN, "primary", OWN, "eth0"),
        ("sync", "ours"),
        ("handover", ["primary"], True),
        ("leave",),
    ]


def test_what_does_not_fit_is_409_in_words(http: httpx.Client) -> None:
    for what in ("leave", "sync", "handover"):
        answer = post(http, what)
        assert (answer.status_code, "in no pair" in answer.json()["error"]) == (409, True)
    refused = post(http, "join", peer=PEER, token="another")
    assert (refused.status_code, refused.json()["error"][:9]) == (409, "the token")


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("join", {}),
        ("join", {"peer": ""}),
        ("join", {"peer": PEER, "role": "boss"}),
        ("join", {"peer": PEER, "address": "pacs"}),
        ("join", {"peer": PEER, "interface": "a name that is too long"}),
        ("join", {"peer": PEER, "tokken": TOKEN}),
        ("sync", {"take": "both"}),
        ("handover", {"groups": ["tertiary"]}),
    ],
)
def test_nonsense_is_400_and_reaches_nobody(
    api: RunningApi, http: httpx.Client, what: str, body: dict[str, Any]
) -> None:
    assert post(http, what, **body).status_code == 400
    assert api.supervisor.pair.asked == []


def test_apply_says_whether_the_peer_has_it(api: RunningApi, http: httpx.Client) -> None:
    answer = http.post("/apply", json={"document": api.supervisor.document}).json()
    assert (answer["revision"], answer["peer"]) == (None, None)
    api.supervisor.applied = (18, "it does not answer")
    answer = http.post("/apply", json={"document": api.supervisor.document}).json()
    assert (answer["revision"], answer["peer"]) == (18, "it does not answer")

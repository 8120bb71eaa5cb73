import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import uvloop

from equipoise.api.server import serve
from equipoise.base.errors import EquipoiseError
from tests.unit.api.fake_supervisor import FIRST, FakeSupervisor
from tests.unit.api.running import RunningApi


@pytest.fixture
def api(tmp_path: Path) -> Iterator[RunningApi]:
    running = RunningApi(tmp_path / "api.sock").start()
    yield running
    running.close()


@pytest.fixture
def http(api: RunningApi) -> Iterator[httpx.Client]:
    with _client(api) as client:
        yield client


def _client(api: RunningApi) -> httpx.Client:
    return httpx.Client(
        transport=httpx.HTTPTransport(uds=str(api.socket)), base_url="http://equipoise/api/v1", timeout=5
    )


def test_status_is_the_document_of_the_supervisor(api: RunningApi, http: httpx.Client) -> None:
    api.supervisor.down["ct/b"] = "connection refused"
    document = http.get("/status").json()
    assert document["services"]["ct"]["state"] == "degraded"
    assert document["services"]["ct"]["nodes"]["b"]["check"]["reason"] == "connection refused"
    assert document["services"]["mr"]["state"] == "up"


def test_identity(http: httpx.Client) -> None:
    assert http.get("/identity").json() == {"version": "0.1.0", "pid": 4711, "site": "general-hospital"}


def test_plan_changes_nothing_and_apply_does(api: RunningApi, http: httpx.Client) -> None:
    wanted = FIRST.replace("10.0.0.12", "10.0.0.99")
    change = {"path": "services.ct/b", "what": "change", "old": "10.0.0.12:104", "new": "10.0.0.99:104"}
    assert http.post("/plan", json={"document": wanted}).json()["changes"] == [change]
    assert api.supervisor.document == FIRST
    assert http.post("/apply", json={"document": wanted}).json()["changes"] == [change]
    assert api.supervisor.document == wanted
    assert http.post("/plan", json={"document": wanted}).json()["changes"] == []


def test_apply_passes_force_on(api: RunningApi, http: httpx.Client) -> None:
    less = FIRST.splitlines()[0]
    refused = http.post("/apply", json={"document": less})
    assert refused.status_code == 409
    assert "--force" in refused.json()["error"]
    assert api.supervisor.document == FIRST
    assert http.post("/apply", json={"document": less, "force": True}).status_code == 200
    assert api.supervisor.document == less


def test_a_bad_document_is_refused_with_its_places(http: httpx.Client) -> None:
    answer = http.post("/plan", json={"document": "broken"})
    assert answer.status_code == 422
    assert answer.json() == {
        "error": "in-force.yaml:2:5: services.ct: 'broken' is no service; remove it",
        "problems": [
            {
                "file": "in-force.yaml",
                "line": 2,
                "column": 5,
                "path": "services.ct",
                "message": "'broken' is no service; remove it",
            }
        ],
    }


def test_an_engine_that_refuses_is_503(api: RunningApi, http: httpx.Client) -> None:
    answer = http.post("/apply", json={"document": FIRST + "unhappy"})
    assert answer.status_code == 503
    assert "no memory" in answer.json()["error"]
    assert api.supervisor.document == FIRST


def test_nodes_are_overridden_by_pattern(api: RunningApi, http: httpx.Client) -> None:
    answer = http.post("/nodes", json={"pattern": "*/a", "action": "drain"})
    assert answer.json() == {"changed": ["ct/a", "mr/a"]}
    assert api.supervisor.holds == {"ct/a": "drain", "mr/a": "drain"}
    http.post("/nodes", json={"pattern": "ct/a", "action": "weight", "weight": 7})
    assert api.supervisor.weights == {"ct/a": 7}
    http.post("/nodes", json={"pattern": "ct/a", "action": "weight"})
    assert api.supervisor.weights == {}
    assert http.post("/nodes", json={"pattern": "x/y", "action": "drain"}).status_code == 409


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/nodes", b'{"pattern": "a/b", "action": "explode"}'),
        ("/nodes", b'{"pattern": "a/b", "action": "weight", "weight": -1}'),
        ("/apply", b'{"document": "x", "forse": true}'),
        ("/apply", b'{"document": 5}'),
        ("/plan", b"{"),
        ("/plan", b""),
    ],
)
def test_nonsense_is_400_in_words(http: httpx.Client, path: str, body: bytes) -> None:
    answer = http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("body")


def test_unknown_pages_are_json_too(http: httpx.Client) -> None:
    assert http.get("/nothing").status_code == 404
    assert "/api/v1/nothing" in http.get("/nothing").json()["error"]
    assert http.get("/plan").status_code == 405


def test_a_document_over_a_mebibyte_is_refused(http: httpx.Client) -> None:
    answer = http.post("/plan", json={"document": "ä" * (1 << 19) + "x"})
    assert answer.status_code == 413
    assert "1048576" in answer.json()["error"]
    assert http.post("/plan", json={"document": "\n" * (1 << 20)}).status_code == 200


def test_a_body_without_an_end_is_not_kept(api: RunningApi, http: httpx.Client) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1 << 20
            yield b" " * (1 << 20)

    with contextlib.suppress(httpx.WriteError):  # the server closed while we were still sending
        assert http.post("/plan", content=chunks()).status_code == 413
    assert sent < 20 << 20
    assert http.get("/identity").status_code == 200


def test_a_bug_is_reported_and_said(api: RunningApi, http: httpx.Client, capfd: pytest.CaptureFixture[str]) -> None:
    api.supervisor.bug = KeyError("ct")
    answer = http.get("/status")
    assert answer.status_code == 500
    assert "KeyError" in answer.json()["error"]
    assert [(name, type(error)) for name, error in api.bugs] == [("api GET /api/v1/status", KeyError)]
    assert capfd.readouterr() == ("", "")


def test_events_newest_last_and_bounded(api: RunningApi, http: httpx.Client) -> None:
    for number in range(5):
        api.call(partial(api.supervisor.emit, "node.up", number=number))
    assert [event["number"] for event in http.get("/events?limit=2").json()["events"]] == [3, 4]
    assert http.get("/events?limit=0").status_code == 400
    assert http.get("/events?limit=10001").status_code == 400


def test_follow_joins_what_was_and_what_comes(api: RunningApi, http: httpx.Client) -> None:
    api.call(lambda: api.supervisor.emit("node.up", number=1))
    with http.stream("GET", "/events/follow?limit=10") as answer:
        lines = answer.iter_lines()
        assert json.loads(next(lines))["number"] == 1
        api.call(lambda: api.supervisor.emit("node.down", number=2))
        assert json.loads(next(lines))["kind"] == "node.down"
        api.call(api.supervisor.end)
        assert list(lines) == []


def test_a_follower_that_goes_is_forgotten(api: RunningApi, http: httpx.Client) -> None:
    with http.stream("GET", "/events/follow") as answer:
        lines = answer.iter_lines()  # kept: httpx ends the answer with its iterator
        api.call(lambda: api.supervisor.emit("node.up"))
        next(lines)
        assert len(api.supervisor.followers) == 1
    _until(lambda: len(api.supervisor.followers) == 0)


def test_close_ends_streams_at_once_and_in_order(api: RunningApi) -> None:
    ended: list[list[str]] = []

    def follow() -> None:
        with _client(api) as http, http.stream("GET", "/events/follow") as answer:
            ended.append(list(answer.iter_lines()))

    followers = [threading.Thread(target=follow, daemon=True) for _ in range(5)]
    for follower in followers:
        follower.start()
    _until(lambda: len(api.supervisor.followers) == 5)
    started = time.monotonic()
    api.close()
    assert time.monotonic() - started < 1
    for follower in followers:
        follower.join(5)
    assert ended == [[]] * 5


def test_close_does_not_wait_for_a_follower_that_does_not_read(api: RunningApi) -> None:
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.connect(str(api.socket))
        stuck.sendall(b"GET /api/v1/events/follow HTTP/1.1\r\nHost: x\r\n\r\n")
        _until(lambda: len(api.supervisor.followers) == 1)
        for _ in range(200):
            api.call(lambda: api.supervisor.emit("node.up", padding="x" * 10_000))
        started = time.monotonic()
        api.close()
        assert time.monotonic() - started < 3


def test_the_socket_is_for_owner_and_group_and_goes_at_the_end(api: RunningApi) -> None:
    found = api.socket.stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o660
    api.close()
    assert not api.socket.exists()


def test_the_socket_of_a_dead_supervisor_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    running = RunningApi(path).start()
    with _client(running) as http:
        assert http.get("/identity").status_code == 200
    running.close()


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.write_text("precious")
    with pytest.raises(EquipoiseError, match="no socket"):
        RunningApi(path).start()
    assert path.read_text() == "precious"


def test_the_socket_of_a_successor_stays(api: RunningApi) -> None:
    api.socket.unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(api.socket))
        api.close()
        assert api.socket.exists()


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EquipoiseError, match="107"):
        RunningApi(tmp_path / ("x" * 120)).start()


def test_signals_stay_the_supervisors(tmp_path: Path) -> None:
    """The server in the main thread, where uvicorn would take SIGTERM for itself."""

    async def run() -> object:
        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        server = await serve(FakeSupervisor(), tmp_path / "api.sock")
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
        await server.close()
        return os.listdir(tmp_path)

    assert asyncio.run(run()) == []


def test_it_serves_on_uvloop(tmp_path: Path) -> None:
    async def run() -> int:
        server = await serve(FakeSupervisor(), tmp_path / "api.sock")
        transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "api.sock"))
        async with httpx.AsyncClient(transport=transport, base_url="http://equipoise/api/v1") as http:
            code = (await http.get("/status")).status_code
            async with http.stream("GET", "/events/follow") as answer:
                await server.close()
                assert [line async for line in answer.aiter_lines()] == []
        return code

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run()) == 200


def _until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.01)

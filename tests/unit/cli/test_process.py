"""The program as a process: exit codes, signals, pipes, a terminal, and what it imports."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import equipoise
from tests.unit.api.running import RunningApi

_SOURCE = str(Path(equipoise.__file__).parents[1])


def _start(*words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "equipoise", *words],
        env={**os.environ, "PYTHONPATH": _SOURCE, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _run(*words: str) -> tuple[int, str, str]:
    process = _start(*words)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def test_version() -> None:
    assert _run("--version") == (0, f"equipoise {equipoise.__version__}\n", "")


def test_exit_codes(api: RunningApi) -> None:
    assert _run("status")[0] == 0
    api.supervisor.down["ct/a"] = "refused"
    assert _run("status", "--json")[0] == 2
    assert _run("stattus")[0] == 1
    api.close()
    code, out, err = _run("status")
    assert (code, out) == (1, "")
    assert "no supervisor answers" in err
    assert "Traceback" not in err


def test_a_reader_that_leaves_is_no_error(api: RunningApi) -> None:
    for number in range(3000):
        api.supervisor.events.append({"at": "", "kind": "node.up", "number": number, "padding": "x" * 100})
    process = _start("events", "--limit", "3000")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    process.wait(10)
    assert process.stderr.read() == ""
    process.stderr.close()


def test_follow_prints_each_event_at_once_until_ctrl_c(api: RunningApi) -> None:
    process = _start("events", "--follow", "--json")
    assert process.stdout is not None
    _until(lambda: len(api.supervisor.followers) == 1)
    for number in range(3):
        api.call(lambda: api.supervisor.emit("node.up", node="a"))
        assert json.loads(process.stdout.readline())["kind"] == "node.up", number
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 0


def test_follow_ends_with_the_supervisor(api: RunningApi) -> None:
    process = _start("events", "--follow")
    _until(lambda: len(api.supervisor.followers) == 1)
    api.close()
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (1, "")
    assert "the supervisor ended" in err


def test_watch_outlives_the_supervisor(api: RunningApi) -> None:
    process = _start("status", "--watch")
    assert process.stdout is not None
    out = process.stdout
    _until(lambda: "all 2 services up" in out.readline())
    api.close()
    _until(lambda: "NO SUPERVISOR" in out.readline())
    _until(lambda: "all 2 services up" in out.readline())  # what was seen last
    again = RunningApi(api.socket).start()
    again.supervisor.down["ct/a"] = "refused"
    _until(lambda: "in trouble" in out.readline())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, "")
    again.close()


def test_watch_on_a_terminal_refreshes_in_place(api: RunningApi) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "equipoise", "status", "--watch"],
        env={**os.environ, "PYTHONPATH": _SOURCE, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    while seen.count(b"general-hospital") < 3:
        seen += os.read(ours, 65536)
    assert b"\x1b[1A" in seen  # the cursor goes up: written over
    assert b"\x1b[32m" in seen  # green
    process.send_signal(signal.SIGINT)
    while process.poll() is None:
        try:
            os.read(ours, 65536)
        except OSError:  # the terminal's other side is gone
            break
    assert process.wait(10) == 0
    os.close(ours)


def test_no_command_but_run_waits_for_the_api(api: RunningApi) -> None:
    program = (
        "import sys; from equipoise.__main__ import main; sys.argv[1:] = ['status']\n"
        "try: main()\nexcept SystemExit: print(*sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": _SOURCE},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    imported = set(said.splitlines()[-1].split())
    assert "equipoise.cli.status_view" in imported
    assert imported.isdisjoint({"fastapi", "uvicorn", "uvloop", "pynetdicom", "ruamel.yaml"})


def _until(condition: Callable[[], bool], timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.01)

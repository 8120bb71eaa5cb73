import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from equipoise.base.errors import EquipoiseError
from equipoise.base.processes import (
    arguments,
    has_ended,
    is_alive,
    kill,
    processes,
    run_to_end,
    session,
    start_detached,
    start_ready,
)


def test_a_detached_program_has_a_session_of_its_own_and_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = "import os; print(os.getsid(0) == os.getpid(), os.environ['WORD'])"
    process = start_detached([sys.executable, "-c", program], log, {"WORD": "hello"})
    assert process.wait(20) == 0
    assert log.read_text() == "True hello\n"
    assert log.stat().st_mode & 0o007 == 0, "others do not read what a balancer says"


def test_a_process_is_alive_until_it_has_ended(tmp_path: Path) -> None:
    process = start_detached(["/bin/sleep", "60"], tmp_path / "log")
    assert is_alive(process.pid)
    kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while is_alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(process.pid)  # and not a zombie
    kill(process.pid)  # already gone: no error
    process.wait(0)


def test_a_program_says_when_it_is_ready(tmp_path: Path) -> None:
    process, line = start_ready(["/bin/sh", "-c", "echo port 104; cat"], tmp_path / "log", 20)
    assert line == b"port 104\n"
    assert process.stdin is not None
    process.stdin.close()  # it ends with us
    assert process.wait(20) == 0
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.parametrize("program", ["exec sleep 60", "echo 'no right' >&2; exit 1", "printf half; exec sleep 60"])
def test_a_program_that_does_not_get_ready_is_ended(tmp_path: Path, program: str) -> None:
    with pytest.raises(EquipoiseError, match=r"did not say within 0\.3 s that it is ready; see .*log") as caught:
        start_ready(["/bin/sh", "-c", program], tmp_path / "log", 0.3)
    pid = int(str(caught.value).split()[1])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_program_that_looks_at_something_is_waited_for() -> None:
    ended = run_to_end(["/bin/sh", "-c", "echo $WORD; echo bad >&2; exit 3"], 20, {"WORD": "hello"})
    assert (ended.code, ended.output) == (3, "hello\nbad\n")
    with pytest.raises(EquipoiseError, match=r"/bin/sleep did not end within 0\.2 s"):
        run_to_end(["/bin/sleep", "60"], 0.2, {})


def test_a_process_is_known_by_its_command_line(tmp_path: Path) -> None:
    process = start_detached(["/bin/sleep", "60"], tmp_path / "log")
    deadline = time.monotonic() + 10
    while not arguments(process.pid) and time.monotonic() < deadline:
        time.sleep(0.001)  # it is on its way from our program to its own
    assert arguments(process.pid) == ("/bin/sleep", "60")
    assert process.pid in set(processes())
    assert session(process.pid) == process.pid
    process.kill()
    process.wait(20)
    assert arguments(process.pid) == ()
    assert session(process.pid) is None


def test_the_end_of_a_process_is_noticed_at_once_whoever_started_it() -> None:
    sleeper = subprocess.Popen(["sleep", "60"])

    async def scene() -> float:
        loop = asyncio.get_running_loop()
        waiting = loop.create_task(has_ended(sleeper.pid))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        since_s = loop.time()
        sleeper.kill()
        await asyncio.wait_for(waiting, 5)
        took_s = loop.time() - since_s
        sleeper.wait()
        await asyncio.wait_for(has_ended(sleeper.pid), 5)  # one that is gone already
        return took_s

    assert asyncio.run(scene()) < 3

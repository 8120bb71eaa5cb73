"""What a program of the site may do to its check: hang, fork, print without end, ignore signals, not be there."""

import asyncio
import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from equipoise.base.clock import SystemClock
from equipoise.base.errors import EquipoiseError
from equipoise.health.asking import Outcome, ask
from equipoise.health.catalogue import checks
from equipoise.health.checks import script as module
from equipoise.health.checks.script import Params
from equipoise.health.question import Question
from equipoise.plan.model import Endpoint
from tests.unit.health.conftest import Run
from tests.unit.health.plans import node, service

Write = Callable[..., str]
STARTER = "check script: start"


@pytest.fixture
def program(tmp_path: Path) -> Write:
    def write(*lines: str, mode: int = 0o755, first: str = "#!/bin/sh") -> str:
        path = tmp_path / "check"
        path.write_text("\n".join((first, *lines, "")))
        path.chmod(mode)
        return str(path)

    return write


async def _asked(params: Params) -> Outcome:
    asking = service("script", params, listen=(Endpoint("10.0.0.100", 104), Endpoint("10.0.0.100", 2762)))
    return await ask(Question.of(asking, node()), checks(), SystemClock())


def outcome(run: Run, path: str, **settings: Any) -> Outcome:
    found: Outcome = run(_asked(Params(**{"program": path, "timeout": 5.0, **settings})))
    assert found.reason.isprintable()
    assert found.reason.startswith(path)
    assert found.took_ms < settings.get("timeout", 5.0) * 1000 + 3000
    return Outcome(found.ok, found.reason.removeprefix(path), 0, found.took_ms)


def gone(pid_file: Path) -> bool:
    """Wait for a process to be gone, or a zombie that nobody has collected yet.

    It may be killed when its file is there and nothing is in it yet: then nobody writes any more.
    """
    for _ in range(200):
        pid = pid_file.read_text().strip()
        if not pid:
            time.sleep(0.01)
            continue
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return not pid_file.read_text()


def test_exit_code_0_is_up_and_the_last_line_is_shown(run: Run, program: Write) -> None:
    found = outcome(run, program("echo first; echo 'all well  '; echo"))
    assert (found.ok, found.reason) == (True, " ended with 0; it said: all well")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("exit 3", " ended with 3, 0 is up"),
        ("echo 'no database' >&2; exit 1", " ended with 1, 0 is up; it said: no database"),
        ("kill -9 $$", " was ended by SIGKILL"),
        ("printf 'a\\033[2Jb\\377\\n'; exit 1", " ended with 1, 0 is up; it said: a\\x1b[2Jb\ufffd"),
    ],
)
def test_everything_else_is_down(run: Run, program: Write, line: str, reason: str) -> None:
    found = outcome(run, program(line))
    assert (found.ok, found.reason) == (False, reason)


def test_arguments_are_its_own_then_service_and_node_and_no_shell_reads_them(run: Run, program: Write) -> None:
    found = outcome(run, program('echo "$# $*"'), arguments=("-v", "$(id); x"))
    assert found.reason == " ended with 0; it said: 6 -v $(id); x 10.0.0.100 104 10.0.0.11 104"


def test_surroundings_are_minimal(run: Run, program: Write) -> None:
    assert os.environ.get("HOME"), "there is something to leave out"
    lines = (
        'env | cut -d= -f1 | sort | tr "\\n" " "',
        "pwd | tr '\\n' ' '",
        "wc -c | tr '\\n' ' '",
        "ls /proc/self/fd | wc -l",
    )
    found = outcome(run, program(*lines))
    # PWD is the shell's own; no input; descriptors 0, 1 and 2, and the one that `ls` reads the folder with
    assert found.reason == " ended with 0; it said: LANG PATH PWD / 0 4"


def test_one_that_hangs_is_killed_at_the_deadline(run: Run, program: Write, tmp_path: Path) -> None:
    found = outcome(run, program(f"echo $$ >{tmp_path}/pid", "echo asking", "sleep 60"), timeout=1.5)
    assert (found.ok, found.reason) == (False, " did not end within 1.5 s and was killed; it said: asking")
    assert gone(tmp_path / "pid")


def test_one_that_ignores_signals_is_killed_too(run: Run, program: Write, tmp_path: Path) -> None:
    lines = ("trap '' TERM INT HUP", f"echo $$ >{tmp_path}/pid", "while :; do sleep 1; done")
    assert not outcome(run, program(*lines), timeout=1.5).ok
    assert gone(tmp_path / "pid")


def test_what_it_leaves_in_the_background_is_neither_waited_for_nor_left(
    run: Run, program: Write, tmp_path: Path
) -> None:
    """It has our pipe still open."""
    found = outcome(run, program("sleep 60 &", f"echo $! >{tmp_path}/pid", "echo well"))
    assert (found.ok, found.reason) == (True, " ended with 0; it said: well")
    assert found.took_ms < 3000
    assert gone(tmp_path / "pid")


def test_forks_go_with_it_at_the_deadline(run: Run, program: Write, tmp_path: Path) -> None:
    lines = (f"(sh -c 'echo $$ >{tmp_path}/pid; exec sleep 60') &", "wait")
    assert not outcome(run, program(*lines), timeout=1.5).ok
    assert gone(tmp_path / "pid")


def test_a_megabyte_blocks_nothing_and_is_not_kept(run: Run, program: Write) -> None:
    found = outcome(run, program("head -c 1000000 /dev/zero | tr '\\0' x", "echo", "echo the end"))
    assert (found.ok, found.reason) == (True, " ended with 0; it said: the end")
    found = outcome(run, program("head -c 1000000 /dev/zero | tr '\\0' x"))
    assert found.ok
    assert len(found.reason) < 300


def test_one_that_prints_without_end_is_killed(run: Run, program: Write) -> None:
    found = outcome(run, program("yes"), timeout=1.5)
    assert (found.ok, found.reason) == (False, " did not end within 1.5 s and was killed; it said: y")


def test_one_that_is_not_there(run: Run, tmp_path: Path) -> None:
    found = outcome(run, str(tmp_path / "missing"))
    assert (found.ok, found.reason) == (
        False,
        " does not exist on this balancer; put it there, or correct health.program",
    )


def test_one_that_is_not_executable(run: Run, program: Write) -> None:
    found = outcome(run, program("exit 0", mode=0o644))
    assert found.reason == " is not executable for this balancer; chmod +x it, and let its folders be entered"


def test_one_whose_interpreter_is_missing(run: Run, program: Write) -> None:
    found = outcome(run, program("exit 0", first="#!/no/such/shell"))
    assert found.reason == " cannot run: the program in its first line (#!) does not exist; install or correct that"


def test_one_that_is_no_program(run: Run, program: Write) -> None:
    assert outcome(run, program(first="\x7fno ELF")).reason == " is no program; write '#!/bin/sh' into its first line"


def test_a_folder(run: Run, tmp_path: Path) -> None:
    assert not outcome(run, str(tmp_path)).ok


def test_a_check_that_is_cancelled_leaves_nothing(run: Run, program: Write, tmp_path: Path) -> None:
    path = program(f"echo $$ >{tmp_path}/pid", "sleep 60")

    async def body() -> None:
        task = asyncio.create_task(_asked(Params(program=path, timeout=20)))
        for _ in range(500):
            if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
                break
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(body())
    assert gone(tmp_path / "pid")


@pytest.fixture
def hanging(program: Write, tmp_path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A program whose start hangs as on a network file system, and what lets it go on.

    A write lease holds up whoever opens the file, execve(2) too, until it is given back (fcntl(2), F_SETLEASE).
    """
    path = program(f"echo $$ >{tmp_path}/pid", "sleep 60")
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # how the kernel says that somebody waits
    held = os.open(path, os.O_RDONLY)
    fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    def let_go() -> None:
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    yield path, let_go
    os.close(held)
    assert all_started()
    signal.signal(signal.SIGIO, before)


def starters() -> int:
    return sum(thread.name == STARTER for thread in threading.enumerate())


def all_started() -> bool:
    """Wait until no start is under way; what was started too late is killed and collected by then."""
    for _ in range(1000):
        if not starters():
            return True
        time.sleep(0.01)
    return False


def test_one_whose_start_hangs_holds_up_nobody(
    run: Run, hanging: tuple[str, Callable[[], None]], tmp_path: Path
) -> None:
    path, let_go = hanging

    async def body() -> int:
        loop, beats = asyncio.get_running_loop(), 0
        asked = asyncio.ensure_future(_asked(Params(program=path, timeout=0.5)))
        before_s = loop.time()
        while not asked.done():
            await asyncio.sleep(0.01)
            beats += 1
        assert loop.time() - before_s < 5
        with pytest.raises(EquipoiseError, match=r"was not started within 0\.5 s, so nothing is known of the node"):
            await asked
        return beats

    assert run(body()) > 3  # some forty, on an idle machine
    assert starters() == 1
    let_go()
    assert all_started()
    assert not (tmp_path / "pid").exists() or gone(tmp_path / "pid")


def test_many_whose_start_hangs_are_bounded(
    run: Run, hanging: tuple[str, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = hanging
    monkeypatch.setattr(module, "_MAX_STARTING", 2)

    async def body() -> list[BaseException | Outcome]:
        asked = [_asked(Params(program=path, timeout=0.3)) for _ in range(3)]
        return await asyncio.gather(*asked, return_exceptions=True)

    said = sorted(str(each) for each in run(body()))
    assert "2 programs before it hang in their start" in said[0]
    assert all("was not started within 0.3 s" in each for each in said[1:])


def test_descriptors_do_not_leak(run: Run, program: Write) -> None:
    path = program("sleep 60 &", "echo x")

    async def body() -> list[int]:
        counts = []
        for _ in range(4):
            await _asked(Params(program=path, timeout=5))
            counts.append(len(os.listdir("/proc/self/fd")))
        return counts

    counts = run(body())
    assert counts[1] == counts[-1]

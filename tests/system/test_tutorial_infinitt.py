"""The INFINITT tutorial does what it says, and shows what is seen: its blocks are run, their output compared."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from equipoise.base.processes import kill
from equipoise.sim.ports import free_port

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "infinitt.md"
# In another order than they stand in the page's addresses: 11104 is also a part of no other number.
WITH_PORTS_OF_OURS = ("8080", "11104", "11105", "11204")
# Checks each second, where the template has them each five: rise, fall and the order of things stay.  What people wait
# for by the clock is waited for until it is there: the machine may be a slow and busy one.
ALL_UP = "until equipoise status >/dev/null 2>&1; do sleep 0.2; done\n"
AT_A_QUICKER_PACE = {
    "{nodes: {a: {address": "{health: {interval: 1s}, nodes: {a: {address",
    "sleep 3\n": "",
    "sleep 5\n": ALL_UP,
    "sleep 17\n": "until { equipoise status || true; } | grep -q '4 of 4 services in trouble'; do sleep 0.2; done\n",
    "sleep 15\n": ALL_UP,
}
BLOCK = re.compile(r"<!-- run -->\n```sh\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    """Return each block that is run, with what the page says it prints, on ports that are free here."""
    text = PAGE.read_text()
    for slow, quick in AT_A_QUICKER_PACE.items():
        assert slow in text
        text = text.replace(slow, quick)
    for port in WITH_PORTS_OF_OURS:
        text = text.replace(port, str(free_port()))
    found = BLOCK.findall(text)
    assert len(found) > 5
    return [(script, shown) for script, shown in found]


def pattern(line: str) -> str:
    """Return what matches a line whatever the numbers in it: times, ports, sizes, digests."""
    digest = re.sub(r"plan [0-9a-f]{12}", "plan 1", line.strip())
    parts = re.split(r"(\d[\d.:]*|\s+)", digest)
    return "".join(
        r"[\da-f][\da-f.:]*" if part[:1].isdigit() else r"\s+" if part.isspace() else re.escape(part) for part in parts
    )


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here: apt-get install curl")
def test_the_tutorial_runs_and_shows_what_is_seen(tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("t")  # a short name: HAProxy's sockets are below it, and Linux takes 107 bytes
    ours, steps = Path(sys.executable).parent, blocks()
    start = (
        f"shopt -s expand_aliases\nalias equipoise={shlex.quote(str(ours / 'equipoise'))}\n"
        f"PYTHON={shlex.quote(sys.executable)}\n"
        "trap 'kill $(jobs -r -p) 2>/dev/null || true; wait' EXIT\n"
    )
    program = start + "\n".join(f"{script}\necho '--- {number}'" for number, (script, _) in enumerate(steps))
    try:
        # Into a file: a pipe would stay open as long as anything lives that the blocks started.
        with (tmp_path / "printed").open("wb") as printed:
            done = subprocess.run(
                ["bash", "-eo", "pipefail", "-c", program],
                cwd=tmp_path,
                env={**os.environ, "NO_COLOR": "1", "COLUMNS": "120"},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                timeout=240,
                check=False,
            )
    finally:
        for file in (tmp_path / "infinitt").glob("*.pid"):
            for pid in file.read_text().split():
                kill(int(pid), signal.SIGKILL)
    text = (tmp_path / "printed").read_text()
    assert done.returncode == 0, text
    for (_, shown), said in zip(steps, re.split(r"^--- \d+\n", text, flags=re.MULTILINE), strict=False):
        whole = r".*?".join(pattern(line) for line in shown.splitlines() if line != "…")
        assert re.search(whole, said, re.DOTALL), f"the page shows\n{shown}\nand this was printed\n{said}"

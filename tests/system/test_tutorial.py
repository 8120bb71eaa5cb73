"""The tutorial does what it says: its marked blocks, run one after the other in one shell."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from equipoise.sim.ports import free_port

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "first-site.md"
WITH_PORTS_OF_OURS = ("11112", "11113", "11114")
# What people wait for by the clock is waited for until it is there: the machine may be a slow and busy one.
AS_LONG_AS_IT_TAKES = {
    "sleep 4\n": "until equipoise status >/dev/null 2>&1; do sleep 0.2; done\n",
    "sleep 8\n": "until { equipoise status || true; } | grep -q DEGRADED; do sleep 0.2; done\n",
}


def script() -> str:
    """Return the blocks that are marked `<!-- run -->`, on ports that are free here."""
    blocks = re.findall(r"<!-- run -->\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) > 5
    text = "\n".join(blocks)
    for by_the_clock, as_long in AS_LONG_AS_IT_TAKES.items():
        assert by_the_clock in text
        text = text.replace(by_the_clock, as_long)
    for port in WITH_PORTS_OF_OURS:
        text = text.replace(port, str(free_port()))
    return text


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("storescp") is None, reason="DCMTK is not here: apt-get install dcmtk")
def test_the_tutorial_runs(tmp_path: Path) -> None:
    ours = Path(sys.executable).parent
    # As the page asks for it: with the whole of `ours`, pynetdicom's storescu would stand in front of DCMTK's.
    here = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if Path(part) != ours)
    alias = f"shopt -s expand_aliases\nalias equipoise={shlex.quote(str(ours / 'equipoise'))}"
    # Whatever happens, what it started ends with it.
    program = f"{alias}\ntrap 'kill $(jobs -r -p) 2>/dev/null || true; wait' EXIT\n{script()}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PATH": here, "NO_COLOR": "1", "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    site = tmp_path / "first-site"
    assert {path.name for path in site.glob("store-?/*")} == {"SC.2.25.1"}
    assert len(list(site.glob("store-?/*"))) == 2, said
    assert "pacs is DEGRADED" in said
    assert "pacs is DOWN" in said
    assert "Transient" in said or "transient" in said
    assert not list((site / "run").glob("*.sock")), "the balancer has ended"

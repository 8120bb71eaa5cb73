"""`equipoise demo`, plain and of a template: services at work, a node killed and another one drained."""

import os
import re
import subprocess
import sys
from pathlib import Path

from equipoise.sim.scene import playable


def demo(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "equipoise", "demo", *words],
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def counted(said: str, row: str) -> list[int]:
    """Return the numbers of a row of the summary."""
    (found,) = re.findall(rf"{row}\s*│(.*)│", said)
    return [int(number) for number in re.findall(r"\b\d+\b", found)]


def test_the_infinitt_site_keeps_what_it_took_and_whom_it_knew(tmp_path: Path) -> None:
    done = demo("--template", "infinitt_pacs", "--for", "24s", "--keep", str(tmp_path / "kept"))
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for beat in ("pacs-b was killed with SIGKILL", "pacs-c was drained", "pacs-b and pacs-c returned"):
        assert beat in said
    assert "pacs-b up → down (connection refused) in pacs-" in said
    acknowledged, unharmed = counted(said, "objects acknowledged")[0], counted(said, "of these found unharmed")[0]
    assert acknowledged == unharmed > 0
    assert counted(said, "missing, harmed") == [0, 0]
    assert counted(said, "worklists answered")[0] > 0
    assert counted(said, "pages of the portal")[0] > 100
    begun, lost, moved = counted(said, "sessions ")
    assert (lost, begun - moved) == (0, 6), "each of the six browsers has one session at a time"
    assert moved >= 1, "of a node that was killed or drained"
    for service in ("web", "dicom", "query", "mwl"):
        assert f"node.down service=pacs-{service} node=pacs-b" in (tmp_path / "kept" / "balancer.log").read_text()
    assert (tmp_path / "kept" / "site.yaml").read_text().count("template: infinitt_pacs") == 1


def test_the_plain_demo_keeps_every_object_and_every_message() -> None:
    done = demo("--for", "8s")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "pacs-b was killed with SIGKILL" in said
    acknowledged = counted(said, "HL7 messages acknowledged")[0]
    assert acknowledged == counted(said, "of these at a receiver")[0] > 20
    assert (counted(said, "lost, harmed"), counted(said, "out of order")) == ([0, 0], [0])
    assert counted(said, "delivered twice")[0] == 0
    assert "every acknowledged object and HL7 message was found unharmed" in said


def test_a_template_of_another_name_is_not_found_and_the_nearest_one_proposed() -> None:
    done = demo("--template", "infinit_pacs", "--for", "8s")
    assert done.returncode == 1
    assert "did you mean" in done.stderr
    assert "infinitt_pacs" in done.stderr


def test_a_template_without_dicom_says_which_ones_can_be_played() -> None:
    done = demo("--template", "xds_repository", "--for", "8s")
    assert done.returncode == 1
    assert "no DICOM service" in done.stderr
    assert "Traceback" not in done.stderr
    assert all(name in " ".join(done.stderr.split()) for name in playable())

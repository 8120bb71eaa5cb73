"""dicom-echo, of PyPI, as a client: C-ECHO by the Rust library dicom-rs, without TLS.

It is no dependency of ours: its own command line wants just one old version of typer.  So pip installs its wheel by
itself below build/, and only its compiled part is called, in a process of its own.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.system.conversation import CALLED, Client, Line

VERSION = "0.3.0"
_INSTALLED = Path(__file__).parents[2] / "build" / "peers"
_CALL = "import sys, dicom_echo; print(dicom_echo.send(sys.argv[1], called_ae_title=sys.argv[2]))"


def installed_library() -> Path:
    """Return the folder with the library, filled when it is not there; skips the test when pip cannot."""
    target = _INSTALLED / f"dicom-echo-{VERSION}-{sys.implementation.cache_tag}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            _install(Path(scratch) / "library", target)
    return target


def _install(scratch: Path, target: Path) -> None:
    wanted = ["--no-deps", "--only-binary", ":all:", "--target", str(scratch), f"dicom-echo=={VERSION}"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode != 0:
        pytest.skip(
            f"dicom-echo is not tested: pip cannot fetch {VERSION}, is a registry in reach? {_last_line(done.stderr)}"
        )
    if not target.exists():
        os.rename(scratch, target)


def _last_line(said: str) -> str:
    return (said.strip().splitlines() or ["it said nothing"])[-1][:300]


class DicomEchoClient(Client):
    """C-ECHO, and nothing else."""

    def __init__(self) -> None:
        self._library = installed_library()

    def echo(self, line: Line) -> None:
        assert line.tls is None, "dicom-echo has no TLS"
        done = subprocess.run(
            [sys.executable, "-c", _CALL, f"127.0.0.1:{line.port}", CALLED],
            env={**os.environ, "PYTHONPATH": str(self._library)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stdout + done.stderr

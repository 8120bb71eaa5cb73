"""The load generator and the sink, which are not what is measured: compiled on demand, run, their counters read.

Leaves out what they do: `dicom_load.c` and `dicom_sink.c` say that.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BUILD = HERE / "build"
HEADERS = ("addresses.h", "dicom_wire.h", "dicom_tls.h", "hl7_tls.h")
LIBRARIES = dict.fromkeys(("dicom_load", "hl7_load", "hl7_receiver"), ("-lssl", "-lcrypto"))


class BenchError(Exception):
    """The benchmark cannot run; the message says what to do."""


def find_program(name: str, package: str, path: str | None = None) -> str:
    """Return where a program is, on PATH or where only root looks.  Raises: BenchError."""
    found = shutil.which(name, path=path) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        raise BenchError(f"{name} is missing; install it with: apt-get install {package}")
    return found


def build(name: str) -> Path:
    """Compile `name`.c where its sources are newer than the program, and return the program.  Raises: BenchError."""
    program, sources = BUILD / name, [HERE / source for source in (f"{name}.c", *HEADERS)]
    if program.exists() and all(program.stat().st_mtime > source.stat().st_mtime for source in sources):
        return program
    BUILD.mkdir(exist_ok=True)
    command = [find_program("gcc", "gcc libc6-dev"), "-O2", "-Wall", "-Wextra", "-o", str(program), str(sources[0])]
    done = subprocess.run([*command, *LIBRARIES.get(name, ())], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        hint = "; apt-get install libssl-dev" if "openssl/" in done.stderr or "-lssl" in done.stderr else ""
        raise BenchError(f"{name}.c does not compile{hint}:\n{done.stderr}")
    return program


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What the generator measured; times in seconds and milliseconds.  With errors it is worth nothing."""

    seconds: float
    associations: int
    objects: int
    bytes: int
    rejected: int
    reject: str
    errors: int
    first_error: str
    cpu_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def read(cls, line: str) -> "LoadResult":
        """Return the result that one line of JSON holds.  Raises: BenchError."""
        try:
            told = json.loads(line)
            return cls(**{name: told[name] for name in cls.__dataclass_fields__})
        except (ValueError, KeyError) as error:
            raise BenchError(f"the load generator said {line!r}, not a result: {error}") from None


def load_command(mode: str, port: int, options: Mapping[str, str | float]) -> list[str]:
    """Return the command line of the generator; an option `object_bytes` is its `--object-bytes`."""
    command = [str(build("dicom_load")), mode, "--port", str(port)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    return command


def run_load(mode: str, port: int, *, limit_s: float, **options: str | float) -> LoadResult:
    """Run the generator to its end, at most `limit_s`.  Raises: BenchError."""
    try:
        done = subprocess.run(
            load_command(mode, port, options), capture_output=True, text=True, check=False, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"dicom_load {mode} did not end within {limit_s:.0f} s") from None
    if done.returncode not in (0, 3):
        raise BenchError(f"dicom_load {mode} failed: {done.stderr.strip()}")
    return LoadResult.read(done.stdout)


class BackgroundLoad:
    """A generator that runs beside another one, or that holds associations until it is told."""

    def __init__(self, mode: str, port: int, **options: str | float) -> None:
        self._process = subprocess.Popen(
            load_command(mode, port, options), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def read(self) -> dict[str, Any]:
        """Return the next line that it prints.  Raises: BenchError."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError("the load generator ended without a result")
        return dict(json.loads(line))

    def finish(self) -> LoadResult:
        """Let an idle load release, and return the result.  Raises: BenchError."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return LoadResult.read(json.dumps(self.read()))

    def stop(self) -> None:
        """End it if it still runs."""
        self._process.kill()
        self._process.wait()


class Sink:
    """The nodes: one process, a port for each; `options` are more of its own, `prefix` is what starts it elsewhere."""

    def __init__(self, listeners: int, *options: str, prefix: Sequence[str] = ()) -> None:
        command = [*prefix, str(build("dicom_sink")), "--listeners", str(listeners), *options]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        self.ports: list[int] = self._read()["ports"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError("the sink ended; run bench/build/dicom_sink by hand to see why")
        return dict(json.loads(line))

    def counters(self) -> dict[str, Any]:
        """Return what it has counted since it started.  Raises: BenchError."""
        assert self._process.stdin is not None
        self._process.stdin.write("counters\n")
        self._process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

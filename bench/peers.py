"""Do the load generator and the sink speak real DICOM?  Run: python -m bench.peers.

Both are tried against DCMTK: the generator against storescp; the sink against echoscu, storescu and dcmsend, with
files of pydicom.  Leaves out any relay and any speed.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom.data import get_testdata_file

from bench.programs import BenchError, Sink, find_program, run_load
from equipoise.sim.ports import free_port

DEBIAN = "/usr/bin"  # a venv may hold other programs of the same names
FILES = ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm")


def dcmtk(name: str, *arguments: str) -> None:
    """Run a program of DCMTK to its end.  Raises: BenchError."""
    command = [find_program(name, "dcmtk", path=DEBIAN), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise BenchError(f"{name} ended with {done.returncode}: {done.stdout}{done.stderr}")


@contextmanager
def storescp(port: int, directory: str) -> Iterator[None]:
    """Run DCMTK's storescp, which reads what comes and stores nothing."""
    command = [find_program("storescp", "dcmtk", path=DEBIAN), "--ignore", str(port)]
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)


def try_generator() -> int:
    """Send objects of many lengths to storescp, and return how many it took.  Raises: BenchError."""
    sizes = (1024, 16_378, 16_380, 32_756, 32_758, 520_000, 26_000_000)  # around the edges of the fragments
    stored = 0
    with tempfile.TemporaryDirectory() as directory, storescp(port := free_port(), directory):
        for size in sizes:
            for max_length in (4096, 16_384, 131_072):
                options = {"object_bytes": size, "max_length": max_length, "seconds": 0.2}
                result = run_load("store", port, limit_s=60, **options)
                if result.errors or not result.objects:
                    raise BenchError(
                        f"storescp, {size} bytes in {max_length}: {result.errors} errors, {result.first_error}"
                    )
                stored += result.objects
        result = run_load("echo", port, limit_s=60, seconds=0.2)
        if result.errors or not result.associations:
            raise BenchError(f"storescp, C-ECHO: {result.errors} errors, {result.first_error}")
    return stored


def try_sink() -> int:
    """Let DCMTK send to the sink, and return how many objects it took.  Raises: BenchError."""
    files = [str(get_testdata_file(name)) for name in FILES]
    sink = Sink(listeners=1)
    try:
        port = str(sink.ports[0])
        dcmtk("echoscu", "127.0.0.1", port)
        dcmtk("storescu", "127.0.0.1", port, *files)
        dcmtk("storescu", "--max-pdu", "4096", "--propose-lossless", "127.0.0.1", port, *files)
        dcmtk("dcmsend", "127.0.0.1", port, *files)
        counted = sink.counters()
    finally:
        sink.stop()
    if counted["objects"] != 3 * len(files) or counted["echoes"] != 1 or counted["protocol_errors"] or counted["drops"]:
        raise BenchError(f"the sink counted {counted}, not {3 * len(files)} objects and one C-ECHO without an error")
    return int(counted["objects"])


def main() -> int:
    """Try both.  Exit 0: they are understood; 1: they are not."""
    try:
        print(f"storescp took {try_generator()} objects of the generator, and its C-ECHO")
        print(f"the sink took {try_sink()} objects of storescu and dcmsend, and a C-ECHO of echoscu")
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

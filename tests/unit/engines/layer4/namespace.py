"""A network namespace for one test: programs run in it, and functions, in a thread that has moved there."""

import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

_CLONE_NEWNET = 0x40000000
T = TypeVar("T")


class Namespace:
    def __init__(self) -> None:
        self.name = f"eq{secrets.token_hex(4)}"

    def run(self, *command: str, stdin: str | None = None) -> str:
        inside = ["nsenter", f"--net=/run/netns/{self.name}", "--", *command]
        done = subprocess.run(inside, input=stdin, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr[:500]}"
        return done.stdout

    def nft(self, rules: str) -> None:
        self.run("nft", "-f", "-", stdin=rules)

    def call(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call it in a thread of its own, which moves to this network and ends here."""
        with ThreadPoolExecutor(1, initializer=self._move) as pool:
            return pool.submit(function, *arguments, **named).result()

    def _move(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with Path(f"/run/netns/{self.name}").open() as network:
            if libc.setns(network.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def namespace() -> Iterator[Namespace]:
    made = Namespace()
    subprocess.run(["ip", "netns", "add", made.name], check=True, capture_output=True)
    try:
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "delete", made.name], check=True, capture_output=True)


def missing(*programs: str) -> str | None:
    """Return why there can be no namespace with these programs here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [program for program in ("ip", "nsenter", *programs) if shutil.which(program) is None]
    if absent:
        return f"no {' and no '.join(absent)} here"
    try:
        with namespace() as network:
            for program in programs:
                network.run(program, *{"nft": ("list", "tables"), "conntrack": ("-C",)}.get(program, ("-V",)))
    except (OSError, AssertionError, subprocess.CalledProcessError) as error:
        return f"no network namespaces, or not with {' and '.join(programs)}: {error}"
    return None

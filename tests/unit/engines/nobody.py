"""What somebody is told who has no rights."""

import os
from collections.abc import Callable

from equipoise.base.errors import EngineError

_NOBODY = 65534


def told_to_nobody(do: Callable[[], object]) -> str:
    """Return what the EngineError says that this raises in a process without rights; nothing where it raises none."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
            do()
        except EngineError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        said = told.read()
    os.waitpid(child, 0)
    return said

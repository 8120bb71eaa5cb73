"""The program: the one place that knows the command line and the API, which do not know each other."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.cli.main import build

if TYPE_CHECKING:
    from equipoise.api.server import ApiServer


async def serve_api(supervisor: Any, socket_path: Path) -> "ApiServer":
    """Serve the API of `supervisor`.  Imported when a supervisor runs: no other command waits for FastAPI."""
    from equipoise.api.server import serve

    return await serve(supervisor, socket_path)


def main() -> None:
    """Run the command line and exit with its code."""
    build(serve_api)(prog_name="equipoise")


if __name__ == "__main__":
    main()

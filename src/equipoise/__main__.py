"""The program: the one place that knows the command line and the API, which do not know each other."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.cli.main import build
from equipoise.plan.model import Secured

if TYPE_CHECKING:
    from equipoise.api.peer import PeerServer
    from equipoise.api.server import ApiServer


class Servers:
    """What a supervisor is served by.  Imported when one runs: no other command waits for FastAPI."""

    async def api(self, supervisor: Any, socket_path: Path) -> "ApiServer":
        """Serve the API of `supervisor`.  Raises: EquipoiseError or OSError."""
        from equipoise.api.server import serve

        return await serve(supervisor, socket_path)

    async def pair(self, pair: Any, address: str, port: int, secured: Secured) -> "PeerServer":
        """Serve this half of a pair to the other one, and nobody else.  Raises: EquipoiseError or OSError."""
        from equipoise.api.peer import serve_pair

        return await serve_pair(pair, address, port, secured)

    async def invitation(self, inviting: Any, address: str, port: int, own: Path) -> "PeerServer":
        """Serve a machine that wants to join; `own` has our certificate.  Raises: EquipoiseError or OSError."""
        from equipoise.api.peer import serve_invitation

        return await serve_invitation(inviting, address, port, own)


def main() -> None:
    """Run the command line and exit with its code."""
    build(Servers())(prog_name="equipoise")


if __name__ == "__main__":
    main()

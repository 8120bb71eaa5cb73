"""The second machine's way into a pair: its token's secret goes to the machine that made it, and nowhere else.

First it only looks at the certificate that is shown there; the secret goes out over a second connection, which stands
only if that very certificate is shown again.
"""

import asyncio
import ssl

from equipoise.base.errors import PeerError
from equipoise.cluster.calls import JOIN
from equipoise.cluster.conversation import Conversation, OtherVersionError, RefusedError, why_unanswered
from equipoise.cluster.identity import fingerprint_of
from equipoise.cluster.invitation import LASTS_S, Token
from equipoise.cluster.messages import Join, Joined
from equipoise.cluster.trust import joining_client, looking_client
from equipoise.plan.model import Endpoint


async def ask_to_join(
    address: str, port: int, source_address: str | None, token: Token, asked: Join
) -> tuple[Joined, str]:
    """Ask the machine that invites, and return its answer and its certificate, PEM.

    Raises: PeerError; where it is RefusedError, the other machine said why.
    """
    machine = Endpoint(address, port)
    try:
        async with asyncio.timeout(JOIN.timeout_s):
            shown = await _certificate_shown(machine, source_address)
    except OSError as error:
        raise PeerError(why_unanswered(error, machine, source_address, JOIN.timeout_s)) from None
    if not token.fits(fingerprint_of(shown)):
        raise PeerError(
            f"the machine at {machine} is not the one that made the token: its certificate is another.  Is the address "
            "right, and the token its newest?  If so, somebody may stand between the two.  The secret was not sent"
        )
    certificate = ssl.DER_cert_to_PEM_cert(shown)
    talk = Conversation(machine, source_address, joining_client(certificate))
    try:
        return await talk.ask(JOIN, asked), certificate
    except (RefusedError, OtherVersionError):
        raise
    except PeerError as error:  # it is the right machine, and was there a moment ago
        raise PeerError(
            f"no invitation seems to be open at {machine}: a token works once, and for {LASTS_S / 60:g} minutes; have "
            f"it invite again ({error})"
        ) from None
    finally:
        await talk.close()


async def _certificate_shown(machine: Endpoint, source_address: str | None) -> bytes:
    """Return the certificate, DER, that a server shows.  Raises: OSError."""
    source = (source_address, 0) if source_address is not None else None
    _, writer = await asyncio.open_connection(machine.host, machine.port, ssl=looking_client(), local_addr=source)
    session: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
    shown = session.getpeercert(binary_form=True) if session is not None else None
    writer.transport.abort()
    if shown is None:
        raise ConnectionResetError("no certificate was shown")
    return shown

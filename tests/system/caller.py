"""A light client: dozens are held open for the price of a socket each, from any source address.

For what is balanced and what is admitted; what passes in an association is for real programs.
"""

import socket

from equipoise.proto.dicom.association import encode_request
from equipoise.proto.dicom.pdu import RELEASE_RP, RELEASE_RQ, PduType
from tests.system.rawpeer import CONTEXTS, ECHO_RQ, PATIENCE_S, Wire

ACCEPTED = (0, 0, 0)
_ANSWER_S = 40.0  # a place in a queue may be worth waiting for


class Caller(Wire):
    """One association, or the attempt; `answer` is result, source and reason of a reject, or ACCEPTED."""

    def __init__(
        self,
        port: int,
        *,
        calling: str = "CLIENT",
        called: str = "PACS",
        host: str = "127.0.0.1",
        source: str | None = None,
    ) -> None:
        own = (source, 0) if source else None
        super().__init__(socket.create_connection((host, port), timeout=PATIENCE_S, source_address=own))
        self.send(encode_request(called, calling, CONTEXTS))
        found = self.pdu(_ANSWER_S)
        assert found is not None, "closed without an answer"
        assert found.type in (PduType.ASSOCIATE_AC, PduType.ASSOCIATE_RJ), found
        rejected = found.type is PduType.ASSOCIATE_RJ
        self.answer = (found.body[1], found.body[2], found.body[3]) if rejected else ACCEPTED
        if rejected:
            self.close()

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        if self.answer == ACCEPTED and self.sock.fileno() >= 0:
            self.release()

    def echo(self) -> bool:
        """Ask; say whether an answer came."""
        self.send(ECHO_RQ)
        found = self.pdu()
        return found is not None and found.type is PduType.DATA_TF

    def release(self) -> None:
        """End the association, properly."""
        self.send(RELEASE_RQ)
        found = self.pdu()
        assert found is not None
        assert found.encode() == RELEASE_RP, found
        self.close()

    def is_aborted(self) -> bool:
        """Say whether the next that comes is an A-ABORT."""
        found = self.pdu()
        return found is not None and found.type is PduType.ABORT


def visit(
    port: int,
    *,
    calling: str = "CLIENT",
    called: str = "PACS",
    host: str = "127.0.0.1",
    source: str | None = None,
) -> tuple[int, int, int]:
    """Associate, echo, release; return the answer."""
    with Caller(port, calling=calling, called=called, host=host, source=source) as caller:
        assert caller.answer != ACCEPTED or caller.echo()
    return caller.answer

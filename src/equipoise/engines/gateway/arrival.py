"""A client's connection as an association finds it: who came, where to, and how."""

from dataclasses import dataclass

from equipoise.proto.proxy_protocol import Address


@dataclass(frozen=True, slots=True)
class Arrival:
    """One client that is let in.

    Attributes:
        client: As it says, where an outer balancer brought it.
        server: The address that it called.
        port: The service's port that it came to.
        tls: The version of TLS that it speaks, or None.
        certificate: The names in the certificate that it showed, or None.
    """

    client: Address
    server: Address
    port: int
    tls: str | None = None
    certificate: str | None = None

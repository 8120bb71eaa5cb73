"""What each protocol brings along: usual ports, how a node is picked and a client kept, and whether HTTP is read.

Source: DICOM PS3.8 section 9.1.1 (port 104); RFC 9110 section 4.2 (80 and 443); IANA's registry of ports (2575, hl7);
17035 is where XDS is seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass

HALF_A_DAY_S = 43200.0


@dataclass(frozen=True, slots=True)
class Protocol:
    """One protocol, and what holds where a document says nothing.

    Attributes:
        engine: Who carries it in the mode `l7_snat`.
        ports: Where it is plain; none where every site has its own.
        tls_ports: Where it is within TLS.
        balance: How a node is picked.
        persistence: What a client is known by.
        reads_http: Whether requests are read one by one, where TLS is not passed through.
        idle_s: How long a connection may be silent.
    """

    engine: str
    ports: tuple[int, ...]
    tls_ports: tuple[int, ...]
    balance: str
    persistence: str = "none"
    reads_http: bool = True
    idle_s: float = 60.0


PROTOCOLS: Mapping[str, Protocol] = {
    # Associations differ in size by a factor of a thousand: the bytes still to come say more than a count.
    "dicom": Protocol("gateway", (104,), (104,), "least_work", reads_http=False),
    "hl7": Protocol("gateway", (2575,), (2575,), "round_robin", reads_http=False),
    "http": Protocol("haproxy", (80,), (80,), "least_connections", "cookie"),
    "https": Protocol("haproxy", (443,), (443,), "least_connections", "cookie"),
    "dicomweb": Protocol("haproxy", (80,), (443,), "least_connections"),
    "xds": Protocol("haproxy", (17035,), (17035,), "round_robin"),
    "fhir": Protocol("haproxy", (80,), (443,), "round_robin"),
    "tcp": Protocol("haproxy", (), (), "least_connections", reads_http=False, idle_s=HALF_A_DAY_S),
}

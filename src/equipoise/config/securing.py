"""How connections are secured and announced: TLS on either side, and the PROXY protocol."""

from typing import Annotated

from pydantic import BeforeValidator

from equipoise.config.base import Port, Strict
from equipoise.config.fields import CertificateNamePattern, FilePath, HostName
from equipoise.config.words import one_or_more, word

TlsVersion = Annotated[
    str,
    *word(
        ("1.2", "1.3"),
        refused=dict.fromkeys(("1.0", "1.1"), "is broken and refused by BCP 195 (RFC 8996); write 1.2 or 1.3"),
    ),
]


class CertificateFile(Strict):
    """A certificate and its private key."""

    cert: FilePath
    """PEM file with a certificate of this balancer, and behind it those that lead to the authority."""
    key: FilePath | None = None
    """PEM file with its private key; by default it stands in `cert` too."""


class Tls(Strict):
    """TLS to senders, by the rules of BCP 195 (DICOM PS3.15 annex B.12): TLS 1.2 and 1.3."""

    cert: FilePath
    """PEM file with the certificate of this balancer, and behind it those that lead to the authority."""
    key: FilePath | None = None
    """PEM file with its private key; by default it stands in `cert` too."""
    client_ca: FilePath | None = None
    """PEM file of the authorities whose client certificates are let in.  Without it none is asked for."""
    client_names: Annotated[tuple[CertificateNamePattern, ...], one_or_more(CertificateNamePattern)] = ()
    """Names of which a client's certificate must have one, as its common name, a host name or an address; `*` stands
    for any text, `?` for one character, upper and lower case are the same.  Empty: any certificate of `client_ca`."""
    min_version: TlsVersion = "1.2"
    """The oldest version of TLS that is spoken: `1.2` or `1.3`."""
    ports: Annotated[tuple[Port, ...], one_or_more(Port)] = ()
    """Those of the service's ports that speak TLS; the others stay plain, for old modalities.  Empty: all."""
    more_certificates: tuple[CertificateFile, ...] = ()
    """Certificates for other names.  A client that names the host it wants (SNI) is shown the one for that name; `cert`
    is for all others.  Not for `dicom` and `hl7`, whose clients name none."""


class NodeTls(Strict):
    """TLS to nodes, and to their checks."""

    ca: FilePath | None = None
    """PEM file of the authorities that nodes' certificates are checked with.  By default the system's."""
    verify: Annotated[str, *word(("name", "authority", "none"))] = "name"
    """`name`: certificate of a known authority, for the node's name or address; `authority`: whatever its name;
    `none`: any certificate, which protects against listeners but not against impostors."""
    server_name: HostName | None = None
    """The name that nodes' certificates are for, where it is not what `address` says."""
    cert: FilePath | None = None
    """PEM file with the certificate that this balancer shows to nodes which ask for one."""
    key: FilePath | None = None
    """PEM file with its private key; by default it stands in `cert` too."""
    min_version: TlsVersion = "1.2"
    """The oldest version of TLS that is spoken: `1.2` or `1.3`."""


class ProxyProtocol(Strict):
    """The PROXY protocol: a line in front of the traffic that says who the client is."""

    send: Annotated[str, *word(("none", "v1", "v2"))] = "none"
    """What nodes are sent; they must expect it.  Not for `hl7`, whose senders share connections to nodes."""
    accept: bool = False
    """Whether clients come through another balancer that sends it; `allow_from` then names that balancer alone."""


def _sent_version(value: object) -> object:
    return {"send": value} if isinstance(value, str) else value


SentOrBoth = Annotated[ProxyProtocol, BeforeValidator(_sent_version, json_schema_input_type=str | ProxyProtocol)]

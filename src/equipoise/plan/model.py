"""The plan: what the configuration means, complete and immutable.  Engines render it; nothing adds to it.

All durations are in seconds, all sizes in bytes.
"""

from dataclasses import dataclass

from equipoise.config.base import CheckParams


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A numeric IP address and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Node:
    """One real server of a pool.

    Attributes:
        address: As configured; shown to people.
        host: The numeric address, or None while the configured name does not resolve.
        port: None means the port that the client came to.
        weight: As configured; 0 takes no new work.
        max_connections: Associations open at once, or None for no limit of its own.
        interface: With `l4_dr`, where packets for it go out; None where it is not on a segment of this machine.
        router: With `l4_dr`, the router that it is behind; None where there is none, as there should be.
    """

    name: str
    address: str
    host: str | None
    port: int | None
    weight: int
    max_connections: int | None
    backup: bool
    interface: str | None = None
    router: str | None = None


@dataclass(frozen=True, slots=True)
class Persistence:
    """How a client keeps its node: `by` is none, source_ip, calling_ae or cookie; masks are prefix lengths.

    With a cookie, `fallback` is none or source_ip, `cookie` its name and `same_site` lax, strict or none.
    """

    by: str
    ttl_s: float
    mask: int
    mask6: int
    fallback: str = "none"
    cookie: str = ""
    same_site: str = "lax"


@dataclass(frozen=True, slots=True)
class Dicom:
    """What is particular to a DICOM service.  Empty allow-lists let every title in."""

    called_ae_allow: tuple[str, ...]
    calling_ae_allow: tuple[str, ...]
    node_called_ae: str | None
    connect_timeout_s: float
    setup_timeout_s: float
    artim_s: float
    idle_timeout_s: float
    stall_timeout_s: float
    max_associate_bytes: int


@dataclass(frozen=True, slots=True)
class Hl7:
    """What is particular to an HL7 service: see `config.hl7`.

    Attributes:
        key: connection, message, sender or patient.
        on_no_node: close or reject.
        frame_start: In hexadecimal, as `frame_end`.
    """

    key: str = "connection"
    hold_s: float = 3.0
    on_no_node: str = "close"
    receivers_deduplicate: bool = False
    try_next: bool = False
    max_message_bytes: int = 256 * 1024 * 1024
    ack_timeout_s: float = 30.0
    connect_timeout_s: float = 2.0
    stall_timeout_s: float = 60.0
    idle_timeout_s: float = 600.0
    frame_start: str = "0b"
    frame_end: str = "1c0d"
    mllp_release: int = 1


@dataclass(frozen=True, slots=True)
class CertificateFile:
    """A file with a certificate, and one with its key; None where the key stands in the same."""

    cert: str
    key: str | None


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS to senders.  `fingerprint` stands for what the files held when the plan was made.

    Attributes:
        ports: Those of the service that speak TLS; empty means all.
        client_names: Patterns, of which one fits a name of the client's certificate; empty means any certificate.
        more_certificates: Shown to clients that name the host they are for.
    """

    cert: str
    key: str | None
    client_ca: str | None
    min_version: str
    ports: tuple[int, ...]
    fingerprint: str
    client_names: tuple[str, ...] = ()
    more_certificates: tuple[CertificateFile, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeTls:
    """TLS to nodes and to their checks: `verify` is name, authority or none; the rest as in `Tls`."""

    ca: str | None
    verify: str
    server_name: str | None
    cert: str | None
    key: str | None
    min_version: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ProxyProtocol:
    """`send` is none, v1 or v2; `accept` says that clients come with a header."""

    send: str = "none"
    accept: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Requests for the pool of service `to`: those that meet every condition; an empty one is met by all.

    Attributes:
        service: Words of `config.dicom.SERVICE_WORDS`.
        source: Networks.
    """

    called_ae: tuple[str, ...]
    calling_ae: tuple[str, ...]
    service: tuple[str, ...]
    source: tuple[str, ...]
    to: str


@dataclass(frozen=True, slots=True)
class PassiveHealth:
    """When a node is rested for failures in its traffic; `failures` 0 means never."""

    failures: int = 0
    within_s: float = 30.0
    rest_s: float = 10.0
    slow_response_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Http:
    """What is particular to a service whose HTTP is read; `hsts_s` None means that browsers are told nothing."""

    redirect_to_https: bool = False
    hsts_s: float | None = None
    trust_forwarded: tuple[str, ...] = ()
    retry_after_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long peers of a service that HAProxy carries may take."""

    connect_s: float = 2.0
    request_s: float = 10.0
    idle_s: float = 60.0
    stall_s: float = 300.0
    response_s: float = 600.0
    tunnel_s: float = 43200.0


@dataclass(frozen=True, slots=True)
class Layer4:
    """What is particular to a service that the kernel carries.

    Attributes:
        interfaces: Where clients' packets come in, with `l4_dr`; empty while that is not known.
        idle_s: How long a flow that says nothing is remembered, with `l4_dr`.
        masquerade: Whether nodes see this machine's address instead of the client's, with `l4_nat`.
    """

    interfaces: tuple[str, ...] = ()
    idle_s: float = 10800.0
    masquerade: bool = False


@dataclass(frozen=True, slots=True, order=True)
class ManagedAddress:
    """An address that this balancer puts on an interface of its machine, and takes away again."""

    host: str
    interface: str


@dataclass(frozen=True, slots=True)
class VipGroup:
    """Addresses that move together from machine to machine.

    Attributes:
        name: `primary` or `secondary`: on which machine they are while both work.
        router_id: VRRP's virtual router identifier.
        at_home: Whether this machine is that one.
    """

    name: str
    router_id: int
    at_home: bool
    addresses: tuple[ManagedAddress, ...]


@dataclass(frozen=True, slots=True)
class Secured:
    """The files with which this machine and its peer know each other, which joining made.

    Attributes:
        own: Certificate and key of this machine, in one file.
        peer: The certificate of the other one.
        fingerprint: What stands for the content of both.
    """

    own: str
    peer: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """The pair, as this machine sees it.

    Attributes:
        role: `primary` or `secondary`.
        address: This machine's, from which it talks to its peer.
        interface: Where it hears its peer.
        port: Where the two talk by TLS; that of the HAProxies is the next one.
        secured: None while the two have not joined; then they share addresses alone.
    """

    role: str
    address: str
    peer: str
    interface: str
    advert_s: float
    preempt: bool
    port: int
    groups: tuple[VipGroup, ...]
    secured: Secured | None = None

    @property
    def peer_role(self) -> str:
        """Return what the other machine is."""
        return "secondary" if self.role == "primary" else "primary"


@dataclass(frozen=True, slots=True)
class Service:
    """One virtual service, whole.

    Attributes:
        reads_http: Whether requests are read one by one; else bytes, associations or TLS pass as they are.
        always_secure: Whether clients come by TLS alone, at once or when they are sent there.
    """

    name: str
    protocol: str
    mode: str
    engine: str
    listen: tuple[Endpoint, ...]
    balance: str
    persistence: Persistence
    health: CheckParams
    check: str
    nodes: tuple[Node, ...]
    allow_from: tuple[str, ...]
    max_connections: int | None
    queue_wait_s: float
    source_address: str | None
    dicom: Dicom
    max_per_source: int | None = None
    slow_start_s: float = 0.0
    passive_health: PassiveHealth = PassiveHealth()
    routes: tuple[Route, ...] = ()
    tls: Tls | None = None
    node_tls: NodeTls | None = None
    proxy_protocol: ProxyProtocol = ProxyProtocol()
    reads_http: bool = False
    always_secure: bool = False
    on_down: str = "keep"
    timeouts: Timeouts = Timeouts()
    http: Http = Http()
    hl7: Hl7 = Hl7()
    layer4: Layer4 = Layer4()

    def node(self, name: str) -> Node | None:
        """Return the node of that name."""
        return next((node for node in self.nodes if node.name == name), None)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the engines are to do.

    Attributes:
        digest: 12 hexadecimal digits of what it holds.
        addresses: Those that this balancer is to bring up itself.
        cluster: The pair; None where this machine stands alone.
    """

    site: str
    services: tuple[Service, ...]
    gateway_workers: int
    drain_timeout_s: float
    digest: str
    addresses: tuple[ManagedAddress, ...] = ()
    cluster: Cluster | None = None

    @property
    def vips(self) -> tuple[ManagedAddress, ...]:
        """Return the addresses that this balancer brings up, alone or in turn with its peer."""
        groups = self.cluster.groups if self.cluster is not None else ()
        return (*self.addresses, *(address for group in groups for address in group.addresses))

    def service(self, name: str) -> Service | None:
        """Return the service of that name."""
        return next((service for service in self.services if service.name == name), None)

"""What a site document may say: keys, types, limits, defaults.  The reference and the JSON Schema are made of this.

Leaves out rules between keys (`crosscheck.py`) and what a document means (`plan/compile.py`).  Checks and balances are
not known here: they are handed in as a catalogue, and `site_model` builds the models for it.

Source: the timers are those of DICOM PS3.8 section 9.1.4 (ARTIM) and ours; a reason stands beside each limit.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import GenericAlias
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema, create_model

from equipoise.config.base import CheckParams, Duration, DurationOrZero, Port, Size, Strict
from equipoise.config.fields import (
    AeTitle,
    AeTitlePattern,
    CertificateNamePattern,
    CidrText,
    FilePath,
    HostName,
    ListenAddress,
    Name,
    NodeAddress,
    SourceAddress,
    split_port,
)
from equipoise.config.health import health_field, named

DICOM_PORT = 104  # PS3.8 section 9.1.1
SERVICE_WORDS = ("store", "query", "retrieve", "worklist", "mpps", "commitment")

Connections = Annotated[int, Field(ge=1, le=1_000_000)]  # beyond what one machine holds open


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The health checks and the ways to pick a node that this installation has."""

    checks: Mapping[str, type[CheckParams]]
    balances: frozenset[str]


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a sentence that proposes the known word nearest to `word`, or lists all of them."""
    words = sorted(known)
    if close := difflib.get_close_matches(word, words, n=1, cutoff=0.6):
        return f"did you mean {close[0]!r}?"
    return f"known here: {', '.join(words)}"


def _word(known: Iterable[str], later: Iterable[str] = (), refused: Mapping[str, str] | None = None) -> tuple[Any, Any]:
    """Return what makes a text one of `known`; `later` and `refused` get a sentence of their own."""
    words = sorted(known)

    def check(text: str) -> str:
        if text in words:
            return text
        if text in (refused or {}):
            raise ValueError(f"{text!r} {(refused or {})[text]}")
        if text in later:
            raise ValueError(f"{text!r} comes with a later version; this one can do {', '.join(words)}")
        raise ValueError(f"{text!r} is not known; {nearest(text, words)}")

    return AfterValidator(check), WithJsonSchema({"type": "string", "enum": words})


def _one_or_more(item: Any) -> BeforeValidator:
    return BeforeValidator(_as_list, json_schema_input_type=item | GenericAlias(list, (item,)))


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _sent_version(value: object) -> object:
    return {"send": value} if isinstance(value, str) else value


class Listener(NamedTuple):
    """One socket of a service; `entry` is the place of its address in `listen`."""

    host: str
    port: int
    entry: int


ServiceWord = Annotated[str, *_word(SERVICE_WORDS)]
TlsVersion = Annotated[
    str,
    *_word(
        ("1.2", "1.3"),
        refused=dict.fromkeys(("1.0", "1.1"), "is broken and refused by BCP 195 (RFC 8996); write 1.2 or 1.3"),
    ),
]


class Node(Strict):
    """One real server of a service's pool."""

    address: NodeAddress
    """IP address or host name, with or without a port; without one, the port that the client came to."""
    weight: Annotated[int, Field(ge=0, le=256)] = 100
    """Its share beside the other nodes; 0 takes no new associations."""
    max_connections: Connections | None = None
    """Associations open at once; more wait, or go to other nodes.  No limit of its own by default."""
    backup: bool = False
    """Takes work only while no node that is not a backup can."""


class Persistence(Strict):
    """How a client finds the node again that it had before."""

    by: Annotated[
        str,
        *_word(
            ("none", "source_ip", "calling_ae"),
            refused={"cookie": "is for web browsers, a DICOM association has no cookies; use source_ip or calling_ae"},
        ),
    ] = "none"
    """What a client is known by: nothing, its IP address, or its calling AE title."""
    ttl: Duration = 1800.0
    """How long a node is remembered, from the start of the client's last association."""
    mask: Annotated[int, Field(ge=1, le=32)] = 32
    """With `source_ip`: IPv4 clients that share so many leading bits share a node."""
    mask6: Annotated[int, Field(ge=1, le=128)] = 64
    """With `source_ip`: the same for IPv6, where one machine often has a whole /64."""


class Dicom(Strict):
    """What is particular to a DICOM service."""

    LATER: ClassVar[Mapping[str, str]] = {
        "replay": "an association whose node dies ends with an abort, and the sender sends again",
        "shared_store": "it goes together with replay, which comes then",
    }
    called_ae_allow: Annotated[tuple[AeTitlePattern, ...], _one_or_more(AeTitlePattern)] = ()
    """Called AE titles that are let in; `*` stands for any text, `?` for one character.  Empty: every title."""
    calling_ae_allow: Annotated[tuple[AeTitlePattern, ...], _one_or_more(AeTitlePattern)] = ()
    """Calling AE titles that are let in, written likewise.  Empty: every title."""
    node_called_ae: AeTitle | None = None
    """The called AE title that nodes are given instead of the sender's.  By default it is passed on as it came."""
    connect_timeout: Duration = 2.0
    """How long one node may take to accept the connection before the next is tried."""
    setup_timeout: Duration = 20.0
    """How long an association may take to be set up in all, over all nodes that are tried."""
    artim: Duration = 30.0
    """How long a client may take to send its association request, or to close after its end."""
    idle_timeout: Duration = 43200.0
    """How long an association may be silent on both sides; modalities keep one open for hours."""
    stall_timeout: Duration = 120.0
    """How long a peer may leave a PDU unfinished, or the bytes unread that are sent to it."""
    max_associate: Annotated[Size, Field(ge=4096, le=1 << 20)] = 128 * 1024
    """The longest association request or answer; real ones have up to 21 kB."""


class Route(Strict):
    """Which association requests go to the pool of another service: those that meet every condition given here."""

    model_config = ConfigDict(title="Route")

    called_ae: Annotated[tuple[AeTitlePattern, ...], _one_or_more(AeTitlePattern)] = ()
    """Called AE titles; `*` stands for any text, `?` for one character."""
    calling_ae: Annotated[tuple[AeTitlePattern, ...], _one_or_more(AeTitlePattern)] = ()
    """Calling AE titles, written likewise."""
    service: Annotated[tuple[ServiceWord, ...], _one_or_more(ServiceWord)] = ()
    """What is asked for, read from the presentation contexts: `store`, `query`, `retrieve`, `worklist`, `mpps`,
    `commitment`."""
    from_: Annotated[tuple[CidrText, ...], _one_or_more(CidrText), Field(alias="from")] = ()
    """Networks that the client is in."""
    to: Name
    """The service whose pool takes the association: its nodes, balance, persistence, limits and health."""


class Tls(Strict):
    """TLS to senders, by the rules of BCP 195 (DICOM PS3.15 annex B.12): TLS 1.2 and 1.3."""

    cert: FilePath
    """PEM file with the certificate of this balancer, and behind it those that lead to the authority."""
    key: FilePath | None = None
    """PEM file with its private key; by default it stands in `cert` too."""
    client_ca: FilePath | None = None
    """PEM file of the authorities whose client certificates are let in.  Without it none is asked for."""
    client_names: Annotated[tuple[CertificateNamePattern, ...], _one_or_more(CertificateNamePattern)] = ()
    """Names of which a client's certificate must have one, as its common name, a host name or an address; `*` stands
    for any text, `?` for one character, upper and lower case are the same.  Empty: any certificate of `client_ca`."""
    min_version: TlsVersion = "1.2"
    """The oldest version of TLS that is spoken: `1.2` or `1.3`."""
    ports: Annotated[tuple[Port, ...], _one_or_more(Port)] = ()
    """Those of the service's ports that speak TLS; the others stay plain, for old modalities.  Empty: all."""


class NodeTls(Strict):
    """TLS to nodes, and to their checks."""

    ca: FilePath | None = None
    """PEM file of the authorities that nodes' certificates are checked with.  By default the system's."""
    verify: Annotated[str, *_word(("name", "authority", "none"))] = "name"
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

    send: Annotated[str, *_word(("none", "v1", "v2"))] = "none"
    """What nodes are sent; they must expect it."""
    accept: bool = False
    """Whether clients come through another balancer that sends it; `allow_from` then names that balancer alone."""


class PassiveHealth(Strict):
    """When a node is rested for failures in its traffic: refused connections, aborts, A7xx, slow responses."""

    failures: Annotated[int, Field(ge=0, le=1000)] = 5
    """So many associations that failed at the node within `within`, and at least half of all there.  0: never."""
    within: Duration = 30.0
    """The time that is looked back over."""
    rest: Duration = 10.0
    """How long the node gets no new associations, the first time; each time in a row twice as long."""
    slow_response: Duration = 60.0
    """A response later than this after the last byte of its request is a failure; C-MOVE and C-GET may take longer."""


class Gateway(Strict):
    """The processes that carry DICOM."""

    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """How many there are; services are spread over them, and a service belongs to exactly one."""


class Service(Strict):
    """One virtual service: addresses, ports, a protocol and a pool of nodes."""

    LATER: ClassVar[Mapping[str, str]] = {
        "on_down": "what is open on a node that is down goes on until it ends",
        "timeouts": "those of DICOM stand under dicom",
        "hl7": "this version carries dicom",
        "http": "this version carries dicom",
    }
    protocol: Annotated[str, *_word(("dicom",), later=("hl7", "http", "https", "dicomweb", "xds", "fhir", "tcp"))]
    """What the service speaks."""
    mode: Annotated[str, *_word(("l7_snat",), later=("l4_dr", "l4_nat"))] = "l7_snat"
    """How traffic travels: `l7_snat` ends the client's connection here and opens another one to the node."""
    listen: Annotated[tuple[ListenAddress, ...], _one_or_more(ListenAddress)] = ()
    """One address of this balancer, or a list: `ADDRESS`, `ADDRESS:PORT`; IPv6 in quotes, `'[IPv6]:PORT'`.  A service
    that only routes of others lead to has none."""
    ports: Annotated[tuple[Port, ...], Field(min_length=1), _one_or_more(Port)] = (DICOM_PORT,)
    """The ports of every address in `listen` that names none."""
    balance: str
    """How a node is picked for a new association."""
    persistence: Persistence = Persistence()
    """How a client finds the node again that it had before."""
    health: CheckParams
    """How nodes are checked: the name of a check, and its settings."""
    nodes: dict[Name, Node] = Field(default_factory=dict)
    """The pool, by name; at least one node that is not a backup.  A service that only routes has none."""
    routes: tuple[Route, ...] = ()
    """Requests that go to the pool of another service: the first route that takes a request has it, and what no route
    takes stays here."""
    tls: Tls | None = None
    """TLS to senders.  By default connections are plain."""
    node_tls: NodeTls | None = None
    """TLS to nodes.  By default connections are plain."""
    proxy_protocol: Annotated[
        ProxyProtocol, BeforeValidator(_sent_version, json_schema_input_type=str | ProxyProtocol)
    ] = ProxyProtocol()
    """The PROXY protocol: `v1` or `v2` is what nodes are sent."""
    allow_from: Annotated[tuple[CidrText, ...], _one_or_more(CidrText)] = ()
    """Networks whose clients are let in.  Empty: all."""
    max_connections: Connections | None = None
    """Associations open at once, over all nodes; more wait.  No limit by default."""
    max_per_source: Connections | None = None
    """Connections open at once from one IP address; more are rejected.  No limit by default."""
    slow_start: DurationOrZero = 30.0
    """How long a node that is new or returns takes to reach its full share of new associations; 0s: none."""
    passive_health: PassiveHealth = PassiveHealth()
    """When a node is rested for failures in its traffic."""
    queue_wait: Duration = 5.0
    """How long an association waits for a node below its limit before it is rejected."""
    source_address: SourceAddress | None = None
    """The address that nodes are called from, where this machine has several."""
    dicom: Dicom = Dicom()
    """What is particular to DICOM."""

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Return every socket of this service: addresses times ports, in the order of the document."""
        found = []
        for entry, text in enumerate(self.listen):
            host, port = split_port(text)
            found += [Listener(host, number, entry) for number in ((port,) if port else self.ports)]
        return tuple(found)

    @property
    def check(self) -> tuple[str, CheckParams]:
        """Return the name of the health check and its settings, as the check itself defines them."""
        part = named(self.health)
        return part.check, part.params


class Site(Strict):
    """The whole document."""

    LATER: ClassVar[Mapping[str, str]] = {
        "use": "write the services of the template out under services",
        "network": "bring the addresses up yourself; a service whose address is missing waits for it",
        "api": "the API is a Unix socket in the runtime directory",
        "cluster": "this version runs on one machine",
    }
    site: Name
    """The name of the site, shown in status and events."""
    services: Annotated[dict[Name, Service], Field(min_length=1)]
    """The services, by name."""
    gateway: Gateway = Gateway()
    """The processes that carry DICOM."""
    drain_timeout: Duration = 30.0
    """How long open associations may go on when everything is told to stop."""


def default_balance(protocol: str, balances: frozenset[str]) -> str:
    """Return how nodes are picked where the document does not say.

    Associations differ in size by a factor of a thousand, so for DICOM the bytes still to come say more than a count.
    """
    return "least_work" if protocol == "dicom" and "least_work" in balances else "least_connections"


def site_model(catalogue: Catalogue) -> type[Site]:
    """Return the model of a site for these checks and balances."""
    balance: Any = Annotated[str, *_word(catalogue.balances)]
    service = create_model(
        "Service",
        __base__=Service,
        __doc__=Service.__doc__,
        balance=(
            balance,
            Field(
                default_balance("dicom", catalogue.balances), description=Service.model_fields["balance"].description
            ),
        ),
        health=health_field(catalogue.checks, Service.model_fields["health"].description),
    )
    services: Any = Annotated[dict[Name, service], Field(min_length=1)]
    return create_model(
        "Site",
        __base__=Site,
        __doc__=Site.__doc__,
        services=(services, Field(description=Site.model_fields["services"].description)),
    )

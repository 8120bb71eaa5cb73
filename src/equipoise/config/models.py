"""What a site document may say: keys, types, limits, defaults.  The reference and the JSON Schema are made of this.

Leaves out what is particular to one protocol (`dicom.py`, `hl7.py`, `web.py`), rules between keys (`crosscheck.py`) and
what a document means (`plan/compile.py`).  Checks and balances are not known here: they are handed in as a catalogue,
and `site_model` builds the models for it.  A reason stands beside each limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import GenericAlias
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BeforeValidator, ConfigDict, Field, create_model

from equipoise.config.base import CheckParams, Duration, DurationOrZero, Port, Strict
from equipoise.config.cluster import Cluster
from equipoise.config.dicom import Dicom, Route
from equipoise.config.fields import (
    CidrText,
    InterfaceName,
    ListenAddress,
    Name,
    NodeAddress,
    SourceAddress,
    split_port,
)
from equipoise.config.health import health_field, named
from equipoise.config.hl7 import Hl7
from equipoise.config.protocols import PROTOCOLS, Protocol
from equipoise.config.securing import NodeTls, ProxyProtocol, SentOrBoth, Tls
from equipoise.config.web import CookieName, Http, Timeouts
from equipoise.config.words import one_or_more, word
from equipoise.templates.model import Template

MOST_USES = 100  # each one is several services

Connections = Annotated[int, Field(ge=1, le=1_000_000)]  # beyond what one machine holds open


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The health checks, the ways to pick a node and the site templates that this installation has."""

    checks: Mapping[str, type[CheckParams]]
    balances: frozenset[str]
    templates: Mapping[str, Template] = field(default_factory=dict)


class Listener(NamedTuple):
    """One socket of a service; `entry` is the place of its address in `listen`."""

    host: str
    port: int
    entry: int


Mode = Annotated[str, *word(("l7_snat", "l4_dr", "l4_nat"))]


class Node(Strict):
    """One real server of a service's pool."""

    address: NodeAddress
    """IP address or host name, with or without a port; without one, the port that the client came to."""
    weight: Annotated[int, Field(ge=0, le=256)] = 100
    """Its share beside the other nodes; 0 takes no new associations."""
    max_connections: Connections | None = None
    """Associations, connections or, with HTTP, requests open at once; more wait, or go to other nodes.  With `hl7`,
    connections to it, each of which has one message under way.  No limit of its own by default."""
    backup: bool = False
    """Takes work only while no node that is not a backup can."""


class Persistence(Strict):
    """How a client finds the node again that it had before."""

    by: Annotated[str, *word(("none", "source_ip", "calling_ae", "cookie"))] | None = None
    """What a client is known by: nothing, its IP address, its calling AE title, or a cookie.  By default `cookie` for
    `http` and `https`, whose `fallback` is the IP address; `source_ip` for `https` that is passed through, and for both
    in `l4_dr` and `l4_nat`; `none` elsewhere."""
    ttl: Duration = 1800.0
    """How long a node is remembered, from the start of the client's last association or request."""
    fallback: Annotated[str, *word(("none", "source_ip"))] = "source_ip"
    """With `cookie`: what a client without one is known by."""
    cookie: CookieName = "EQUIPOISE"
    """With `cookie`: its name.  A browser keeps one of a name for all ports of a host, so services at one address had
    better have different ones; where they have not, the `fallback` holds."""
    same_site: Annotated[str, *word(("lax", "strict", "none"))] = "lax"
    """With `cookie`: whether browsers send it from pages of other sites; `none` for a viewer within another site's
    frame, which needs TLS."""
    mask: Annotated[int, Field(ge=1, le=32)] = 32
    """With `source_ip`: IPv4 clients that share so many leading bits share a node."""
    mask6: Annotated[int, Field(ge=1, le=128)] = 64
    """With `source_ip`: the same for IPv6, where one machine often has a whole /64."""


class PassiveHealth(Strict):
    """When a node is rested for failures in its traffic: refused connections, aborts, A7xx, late answers."""

    failures: Annotated[int, Field(ge=0, le=1000)] = 5
    """So many associations or messages that failed at the node within `within`, and at least half of all there.  0:
    never."""
    within: Duration = 30.0
    """The time that is looked back over."""
    rest: Duration = 10.0
    """How long the node gets no new associations, the first time; each time in a row twice as long."""
    slow_response: Duration = 60.0
    """A response later than this after the last byte of its request is a failure; C-MOVE and C-GET may take longer.
    Not for `hl7`, which has `ack_timeout`."""


class Gateway(Strict):
    """The processes that carry DICOM and HL7."""

    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """How many there are; services are spread over them, and a service belongs to exactly one."""


class Network(Strict):
    """The addresses of this machine."""

    manage_addresses: bool = False
    """Whether the addresses in `listen` are put on an interface here, told to the neighbours, and taken away on a stop.
    By default they are expected to be there."""
    interface: Annotated[tuple[InterfaceName, ...], Field(max_length=8), one_or_more(InterfaceName)] = ()
    """Where clients come in; with `manage_addresses` the first is the one that gets the addresses.  By default the one
    whose network the address is in."""


class Service(Strict):
    """One virtual service: addresses, ports, a protocol and a pool of nodes."""

    protocol: Annotated[str, *word(PROTOCOLS)]
    """What the service speaks.  `https` without `tls` is passed through to nodes as it is."""
    mode: Mode = "l7_snat"
    """How traffic travels: `l7_snat` ends the client's connection here and opens another one to the node.  `l4_dr` and
    `l4_nat` leave it to the kernel: with `l4_dr` the node answers the client directly, with `l4_nat` through here."""
    listen: Annotated[tuple[ListenAddress, ...], one_or_more(ListenAddress)] = ()
    """One address of this balancer, or a list: `ADDRESS`, `ADDRESS:PORT`; IPv6 in quotes, `'[IPv6]:PORT'`.  A service
    that only routes of others lead to has none."""
    ports: Annotated[tuple[Port, ...], Field(min_length=1), one_or_more(Port)] | None = None
    """The ports of every address in `listen` that names none.  By default 104 for `dicom`, 2575 for `hl7`, 80 for
    `http`, 443 for `https`, 17035 for `xds`, and for `dicomweb` and `fhir` 80, with `tls` 443."""
    balance: str | None = None
    """How a node is picked for new work.  By default `least_work` for `dicom`, `round_robin` for `hl7`, `xds` and
    `fhir`, `least_connections` for the others and wherever the kernel carries."""
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
    proxy_protocol: SentOrBoth = ProxyProtocol()
    """The PROXY protocol: `v1` or `v2` is what nodes are sent."""
    allow_from: Annotated[tuple[CidrText, ...], one_or_more(CidrText)] = ()
    """Networks whose clients are let in.  Empty: all."""
    max_connections: Connections | None = None
    """Associations or connections open at once, over all nodes; with `hl7`, messages under way.  More wait.  No limit
    by default."""
    max_per_source: Connections | None = None
    """Connections open at once from one IP address; more are rejected.  No limit by default."""
    slow_start: DurationOrZero = 30.0
    """How long a node that is new or returns takes to reach its full share of new associations; 0s: none."""
    passive_health: PassiveHealth = PassiveHealth()
    """When a node is rested for failures in its traffic."""
    queue_wait: Duration = 5.0
    """How long an association, request or connection waits for a node below its limit before it is turned away."""
    source_address: SourceAddress | None = None
    """The address that nodes are called from, where this machine has several.  In `l4_nat` it goes with
    `masquerade`."""
    masquerade: bool = False
    """With `l4_nat`: nodes see this machine's address instead of the client's, so that their answers come back here
    whatever their default gateway is."""
    on_down: Literal["keep", "cut"] | None = None
    """What is open on a node that goes down: `keep` lets it go on to its end, `cut` ends it at once.  By default
    `keep`, and in `l4_dr` and `l4_nat` `cut`, which acts there only when the check could not connect."""
    timeouts: Timeouts = Timeouts()
    """How long peers may take; those of DICOM and HL7 stand under `dicom` and `hl7`, except in `l4_dr`."""
    http: Http = Http()
    """What is particular to HTTP."""
    dicom: Dicom = Dicom()
    """What is particular to DICOM."""
    hl7: Hl7 = Hl7()
    """What is particular to HL7."""

    @property
    def traits(self) -> Protocol:
        """Return what the protocol brings along."""
        return PROTOCOLS[self.protocol]

    @property
    def is_passed_through(self) -> bool:
        """Return whether TLS ends at the nodes, so that nothing of what is said is seen here."""
        return self.protocol == "https" and self.tls is None

    @property
    def reads_http(self) -> bool:
        """Return whether HTTP is read here, request by request."""
        return self.traits.reads_http and not self.is_passed_through and not self.in_kernel

    @property
    def always_secure(self) -> bool:
        """Return whether clients come by TLS alone, at once or when they are sent there."""
        if self.tls is None:
            return False
        plain = {listener.port for listener in self.listeners} - set(self.tls.ports)
        return not self.tls.ports or not plain or self.http.redirect_to_https

    @property
    def in_kernel(self) -> bool:
        """Return whether the kernel carries it, packet by packet."""
        return self.mode != "l7_snat"

    @property
    def engine(self) -> str:
        """Return who carries it."""
        return "layer4" if self.in_kernel else self.traits.engine

    @property
    def known_by(self) -> str:
        """Return what a client is known by: as written, else what is usual for the protocol."""
        usual = "source_ip" if self.is_passed_through else self.traits.persistence
        if self.in_kernel and usual == "cookie":
            usual = "source_ip"
        return self.persistence.by or usual

    @property
    def picked_by(self) -> str:
        """Return how a node is picked: as written, else what is usual for the protocol and the mode."""
        return self.balance or ("least_connections" if self.in_kernel else self.traits.balance)

    @property
    def when_down(self) -> str:
        """Return what becomes of what is open on a node that goes down."""
        return self.on_down or ("cut" if self.in_kernel else "keep")

    @property
    def default_ports(self) -> tuple[int, ...]:
        """Return the ports of addresses that name none."""
        return self.ports or (self.traits.tls_ports if self.tls else self.traits.ports)

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Return every socket of this service: addresses times ports, in the order of the document."""
        found = []
        for entry, text in enumerate(self.listen):
            host, port = split_port(text)
            found += [Listener(host, number, entry) for number in ((port,) if port else self.default_ports)]
        return tuple(found)

    @property
    def check(self) -> tuple[str, CheckParams]:
        """Return the name of the health check and its settings, as the check itself defines them."""
        part = named(self.health)
        return part.check, part.params


def _node(value: object) -> object:
    return {"address": value} if isinstance(value, str) else value


NodeOrAddress = Annotated[Node, BeforeValidator(_node, json_schema_input_type=NodeAddress | Node)]


class Use(Strict):
    """A site template, put to use: it becomes services whose names are NAME-PART.

    What a template asks for beyond `vip` and `nodes` stands beside them; `equipoise template show NAME` says what.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": False})

    template: str
    """The template; `equipoise template list` shows them."""
    name: Name
    """What the names of its services start with."""
    vip: Annotated[tuple[ListenAddress, ...], one_or_more(ListenAddress)] = ()
    """The address of this balancer that clients come to, or a list; without ports, which are the template's."""
    nodes: dict[Name, NodeOrAddress] = Field(default_factory=dict)
    """The servers, by name: an address, or a mapping with `weight` and so on.  The template adds its ports to
    addresses that have none."""
    mode: Mode | None = None
    """How traffic travels, in all of its services.  By default as the template says."""
    persistence: Persistence | None = None
    """How a client finds its node again, in all of its services that can have that."""
    ports: dict[Name, Annotated[tuple[Port, ...], Field(min_length=1), one_or_more(Port)]] = Field(default_factory=dict)
    """Where clients come, by part: `{web: 8080}`.  The nodes keep the template's ports."""
    services: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    """Anything else, by part: keys of a service, laid over the template's."""
    without: Annotated[tuple[Name, ...], one_or_more(Name)] = ()
    """Parts that are left out."""


def _services_or_use(schema: dict[str, Any]) -> None:
    """Say that a document may have `use` alone: `services` is there once that is expanded."""
    schema["required"] = [name for name in schema["required"] if name != "services"]
    schema["anyOf"] = [{"required": ["services"]}, {"required": ["use"]}]


class Site(Strict):
    """The whole document."""

    model_config = ConfigDict(json_schema_extra=_services_or_use)

    LATER: ClassVar[Mapping[str, str]] = {
        "api": "the API is a Unix socket in the runtime directory",
    }
    site: Name
    """The name of the site, shown in status and events."""
    services: Annotated[dict[Name, Service], Field(min_length=1)]
    """The services, by name.  A site has at least one, from here or from `use`."""
    use: Annotated[tuple[Use, ...], Field(max_length=MOST_USES)] = ()
    """Site templates that make services."""
    gateway: Gateway = Gateway()
    """The processes that carry DICOM and HL7."""
    network: Network = Network()
    """The addresses of this machine."""
    cluster: Cluster | None = None
    """The pair of machines that this one belongs to.  By default it stands alone."""
    drain_timeout: Duration = 30.0
    """How long open associations may go on when everything is told to stop."""


def site_model(catalogue: Catalogue) -> type[Site]:
    """Return the model of a site for these checks and balances."""
    balance: Any = Annotated[str, *word(catalogue.balances)]
    service = create_model(
        "Service",
        __base__=Service,
        __doc__=Service.__doc__,
        balance=(balance | None, Field(None, description=Service.model_fields["balance"].description)),
        health=health_field(catalogue.checks, Service.model_fields["health"].description),
    )
    services: Any = Annotated[dict[Name, service], Field(min_length=1)]
    return create_model(
        "Site",
        __base__=Site,
        __doc__=Site.__doc__,
        services=(services, Field(description=Site.model_fields["services"].description)),
        use=(_uses(catalogue.templates), Field((), description=Site.model_fields["use"].description)),
    )


_TEXT = {"type": ["string", "integer"], "title": "text"}  # numbers are taken as they are written


def _asked(templates: Mapping[str, Template]) -> dict[str, Any]:
    """Return the schema of each value that a template asks for, by its name."""
    askers: dict[str, list[Template]] = {}
    for template in templates.values():
        for name in template.asks:
            askers.setdefault(name, []).append(template)
    found = {}
    for name, those in askers.items():
        ask = those[0].asks[name]
        kind = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]} if ask.takes_list else _TEXT
        found[name] = {**kind, "description": f"For {', '.join(each.name for each in those)}: {ask.about}."}
    return found


def _uses(templates: Mapping[str, Template]) -> Any:
    """Return the type of the key `use` for these templates; they are read only where a schema is written."""

    def describe(schema: dict[str, Any]) -> None:
        schema["additionalProperties"] = False
        for name, asked in _asked(templates).items():
            schema["properties"].setdefault(name, asked)

    class WithAsked(Use):
        model_config = ConfigDict(json_schema_extra=describe)

    check, schema = word(templates)
    name: Any = Annotated[str, check, schema] if templates else Annotated[str, check]
    template = (name, Field(description=Use.model_fields["template"].description))
    use: Any = create_model("Use", __base__=WithAsked, __doc__=Use.__doc__, template=template)
    return Annotated[GenericAlias(tuple, (use, ...)), Field(max_length=MOST_USES)]

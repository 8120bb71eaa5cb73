"""What is asked of a node: the check, its settings, and how the node is reached.  Pure.

Two questions that are equal are asked once, whoever wants to know: what does not change the answer is left out.
Leaves out how often (`runner.py`) and the connection itself (`dialling.py`).
"""

from dataclasses import dataclass, replace

from equipoise.config.base import CheckParams
from equipoise.config.fields import split_port
from equipoise.config.parts import parts_of
from equipoise.plan.model import Endpoint, Node, NodeTls, Service

# With `tls: true` and nothing said: the system's authorities, and the name that the node is called by.
SYSTEM_TLS = NodeTls(
    ca=None, verify="name", server_name=None, cert=None, key=None, min_version="1.2", fingerprint="system"
)
_OF_THE_WAY = ("port", "source_address", "tls")


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to find out, again and again.  Made by `of`, or `by_hand`.

    Attributes:
        check: The name of the check.
        params: Its settings, without what does not change the question: `rise`, `fall`, `port` and `tls`.
        host: A numeric address, or None where the node's name does not resolve; by hand, a name too.
        port: Where to ask: the settings' own port, or the node's.
        name: The host name that does not resolve; empty where `host` is known.
        tls: How TLS is spoken, `server_name` always filled in; None for a plain connection.
        proxy: The version of the PROXY protocol's header that is sent first, `v1` or `v2`, or `none`.
        service: The first address of the service that asks, where the check needs it and the service has one.
        parts: The questions that this one is made of, in order; none, of most.
    """

    check: str
    params: CheckParams
    host: str | None
    port: int
    name: str = ""
    tls: NodeTls | None = None
    proxy: str = "none"
    service: Endpoint | None = None
    parts: "tuple[Question, ...]" = ()

    @classmethod
    def of(cls, service: Service, node: Node) -> "Question":
        """Return what the service asks of its node.

        A node without a port of its own is asked at the service's first.  TLS is spoken as the check's `tls` says,
        else as the service's `node_tls` does where the node's own port is asked, and not at another one.
        """
        ports = (node.port,) if node.port is not None else tuple(listener.port for listener in service.listen)
        name, _ = split_port(node.address)
        proxy = service.proxy_protocol.send
        address = service.listen[0] if service.listen else None
        return _Way(node.host, name, ports, service.node_tls, proxy, address).question(service.check, service.health)

    @classmethod
    def by_hand(
        cls, check: str, params: CheckParams, host: str, port: int, node_tls: NodeTls | None = None
    ) -> "Question":
        """Return a question of an operator; `host` is an address or a name."""
        return _Way(host, host, (port,), node_tls, "none", None).question(check, params)

    def __str__(self) -> str:
        return f"{self.check} {self.host or self.name} port {self.port}"


@dataclass(frozen=True, slots=True)
class _Way:
    """How a node is reached, whatever it is asked."""

    host: str | None
    name: str
    own_ports: tuple[int, ...]
    node_tls: NodeTls | None
    proxy: str
    service: Endpoint | None

    def question(self, check: str, params: CheckParams) -> Question:
        port = params.port or self.own_ports[0]
        own = port in self.own_ports
        return Question(
            check=check,
            params=params.model_copy(update={"rise": 1, "fall": 1, "port": None, "tls": None}),
            host=self.host,
            port=port,
            name="" if self.host is not None else self.name,
            tls=self._tls(params.tls, own),
            proxy=self.proxy if own else "none",
            service=self.service if params.NEEDS_SERVICE else None,
            parts=tuple(self.question(part.check, _inheriting(part.params, params)) for part in parts_of(params)),
        )

    def _tls(self, wanted: bool | None, own: bool) -> NodeTls | None:
        if wanted is False or (wanted is None and not (own and self.node_tls)):
            return None
        tls = self.node_tls or SYSTEM_TLS
        return replace(tls, server_name=(tls.server_name or self.name).removesuffix("."))  # no certificate has the root


def _inheriting(part: CheckParams, whole: CheckParams) -> CheckParams:
    """Return the settings of a part, with what the whole says of the way to the node where the part says nothing."""
    said = {key: getattr(whole, key) for key in _OF_THE_WAY if getattr(part, key) is None}
    return part.model_copy(update=said)

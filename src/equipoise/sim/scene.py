"""A site template as a scene: its DICOM, HL7 and web services at free ports of the loopback interface.

Each node is an archive, which listens at one port for each DICOM service, a receiver of messages for each HL7 service,
and a web portal for each web service; they are killed together, as a machine is.  Leaves out services of other
protocols, which no device here would use.
Source: ours; the services are those of the template.
"""

from collections.abc import Mapping, Sequence

from equipoise.base.errors import EquipoiseError
from equipoise.sim.peers import Peer
from equipoise.sim.ports import free_port
from equipoise.sim.site import AE_TITLE, Places, archive_program, receiver_program
from equipoise.sim.workload import Fronts
from equipoise.templates.model import Template
from equipoise.templates.reader import names, read

_HOST = "127.0.0.1"
_NAME = "pacs"
_PLAYED = ("dicom", "http", "hl7")
# Short, for a demonstration of half a minute; the template's own checks, at their own pace, take fifteen seconds.
_HEALTH = "{interval: 1s, timeout: 1s, rise: 1, fall: 2}"
_ANSWERS = {"called_ae": AE_TITLE}


class TemplateScene:
    """What a template's services need.  Raises: EquipoiseError for a template that has no DICOM service."""

    def __init__(self, template: str, nodes: Sequence[str]) -> None:
        self._template = read(template)
        self._parts = _played(self._template)
        if "dicom" not in self._parts.values():
            raise EquipoiseError(
                f"template {template} has no DICOM service that the simulated modalities could store to; "
                f"try {', '.join(playable())}"
            )
        self._fronts = {part: free_port() for part in self._parts}
        self._nodes = {node: {part: free_port() for part in self._parts} for node in nodes}

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the balancer's services."""
        return tuple(f"{_NAME}-{part}" for part in self._parts)

    @property
    def fronts(self) -> Fronts:
        """Where devices call the balancer."""
        dicom, web = self._of("dicom"), self._of("http")
        return Fronts(
            store=self._front(dicom[0]),
            query=self._front(next((part for part in dicom if "query" in part), dicom[0])),
            worklist=next((self._front(part) for part in dicom if part in {"mwl", "worklist"}), None),
            web=self._front(web[0]) if web else None,
            hl7=tuple(self._front(part) for part in self._of("hl7")),
            own_addresses=True,
        )

    @property
    def ports(self) -> Mapping[str, int]:
        """Each node, with the port at which it stores."""
        return {node: ports[self._of("dicom")[0]] for node, ports in self._nodes.items()}

    def programs(self, node: str, places: Places) -> Mapping[str, Sequence[str]]:
        """Return an archive, a portal for each web service, and a receiver for each HL7 service."""
        ports = self._nodes[node]
        archive = archive_program(node, places.store, [ports[part] for part in self._of("dicom")])
        portals = {
            f"{node}-{part}": ["-m", "equipoise.sim.portal", "--name", node, "--port", str(ports[part]), "--any-path"]
            for part in self._of("http")
        }
        receivers = {
            f"{node}-{part}": receiver_program(f"{node}-{part}", places.ledgers, ports[part])
            for part in self._of("hl7")
        }
        return {f"{node}-archive": archive, **portals, **receivers}

    def document(self) -> str:
        """Return the balancer's configuration: the template, with the ports and the pace of this site."""
        left_out = [part for part in self._template.services if part not in self._parts]
        lines = [
            "site: demo",
            "drain_timeout: 3s",
            "use:",
            f"  - template: {self._template.name}",
            f"    name: {_NAME}",
            f"    vip: {_HOST}",
            f"    nodes: {{{', '.join(f'{node}: {_HOST}' for node in self._nodes)}}}",
            *(f"    {ask}: {answer}" for ask, answer in _ANSWERS.items() if ask in self._template.asks),
            *([f"    without: [{', '.join(left_out)}]"] if left_out else []),
            "    services:",
        ]
        for part in self._parts:
            lines += [f"      {part}:", f"        ports: [{self._fronts[part]}]", f"        health: {_HEALTH}"]
            lines += ["        nodes:"]
            lines += [f"          {node}: {{address: '{_HOST}:{of[part]}'}}" for node, of in self._nodes.items()]
        return "\n".join(lines) + "\n"

    def _of(self, protocol: str) -> list[str]:
        return [part for part, spoken in self._parts.items() if spoken == protocol]

    def _front(self, part: str) -> Peer:
        return Peer(AE_TITLE, _HOST, self._fronts[part])


def playable() -> list[str]:
    """Return the templates that a scene can be made of."""
    return [name for name in names() if "dicom" in _played(read(name)).values()]


def _played(template: Template) -> dict[str, str]:
    """Return the parts that are played, with their protocols; TLS is not, for it would need certificates."""
    return {
        part: str(service["protocol"])
        for part, service in template.services.items()
        if service["protocol"] in _PLAYED and "tls" not in service
    }

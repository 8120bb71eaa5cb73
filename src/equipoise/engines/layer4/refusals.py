"""What stands in the way of a plan at layer 4, found before anything is changed.  Blocks."""

from collections.abc import Collection, Iterator, Mapping

from equipoise.base.errors import EngineError
from equipoise.engines.base import Refusal
from equipoise.engines.layer4 import transaction
from equipoise.engines.layer4.artifact import Artifact
from equipoise.engines.layer4.kernel import Kernel
from equipoise.engines.layer4.transaction import Filling
from equipoise.engines.sockets import is_local

_FORWARD = {"ip": "net.ipv4.ip_forward", "ip6": "net.ipv6.conf.all.forwarding"}


def refusals(
    artifact: Artifact, kernel: Kernel, fillings: Mapping[str, Filling], running: Collection[str] = ()
) -> list[Refusal]:
    """Return why this plan cannot be carried; where it can, nothing.

    Args:
        artifact: The plan.
        kernel: Who would carry it.
        fillings: What each service would begin with.
        running: Interfaces that the rules in force name: one that is gone since stands in the way of nothing.
    """
    numbers = kernel.interfaces(artifact.interfaces)
    gone = [name for name, number in numbers.items() if number is None]
    found = [
        *(_absent(name) for name in gone if name not in running),
        *_behind_routers(artifact),
        *_doors(artifact),
        *_own_addresses(artifact),
        *_forwarding(artifact, kernel),
    ]
    return found or _by_kernel(artifact, kernel, fillings, gone)


def _absent(name: str) -> Refusal:
    return Refusal(f"there is no interface {name!r} here; see `ip link`", ("network", "interface"))


def _behind_routers(artifact: Artifact) -> Iterator[Refusal]:
    for service, node, router in artifact.routed:
        yield Refusal(
            f"direct routing reaches nodes of the same segment alone, and this one is behind the router {router}; "
            "give the balancer an interface in its network, or write `mode: l4_nat` or `l7_snat`",
            ("services", service, "nodes", node),
        )


def _doors(artifact: Artifact) -> Iterator[Refusal]:
    for service in artifact.unreached:
        yield Refusal(
            "no interface of this machine is in the network of this address, so nothing is known of where clients come "
            "in; write the interface's name as network.interface",
            ("services", service, "listen"),
        )


def _own_addresses(artifact: Artifact) -> Iterator[Refusal]:
    """Yield nodes that are this machine, which direct routing cannot send to, and sources that are not."""
    for service, node, host in artifact.direct:
        if is_local(host):
            yield Refusal(
                f"{host} is an address of this machine, and direct routing sends to other machines alone; write "
                "`mode: l7_snat`",
                ("services", service, "nodes", node),
            )
    for service, host in artifact.sources:
        if not is_local(host):
            yield Refusal(
                f"{host} is not an address of this machine, so nodes' answers would go elsewhere; write one that is, "
                "or leave it out",
                ("services", service, "source_address"),
            )


def _forwarding(artifact: Artifact, kernel: Kernel) -> Iterator[Refusal]:
    for family in artifact.forwards:
        if not kernel.forwards(family):
            said = (
                f"l4_nat needs a machine that hands packets on, and this one does not: sysctl -w {_FORWARD[family]}=1"
            )
            yield Refusal(f"{said}, and write it into a file in /etc/sysctl.d")


def _by_kernel(
    artifact: Artifact, kernel: Kernel, fillings: Mapping[str, Filling], gone: Collection[str]
) -> list[Refusal]:
    try:
        kernel.would_load(transaction.structure(artifact, fillings, kernel.found(), gone))
    except EngineError as error:
        return [Refusal(str(error))]
    return []

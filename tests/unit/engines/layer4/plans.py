"""Plans with services of layer 4, made from what a person writes, on a machine whose ways all lead out of `eth0`."""

from collections.abc import Callable, Mapping
from functools import cache

from equipoise.app import wiring
from equipoise.config.loading import load
from equipoise.config.models import Catalogue
from equipoise.engines.layer4.artifact import Artifact
from equipoise.engines.layer4.balance import Balance
from equipoise.engines.layer4.render import render
from equipoise.engines.layer4.transaction import Filling, structure
from equipoise.plan.compile import addresses_to_reach, compile_plan
from equipoise.plan.inputs import HostFacts, Way
from equipoise.plan.model import Plan

TABLE = "equipoise"
NAMES: Mapping[str, str | None] = {"pacs-b.example": "10.0.0.12", "old.example": None}
WayTo = Callable[[str], Way | None]


@cache
def _catalogue() -> Catalogue:
    return wiring.catalogue()


def by_eth0(address: str) -> Way | None:
    return Way("eth0")


@cache
def plan_of(services: str, way_to: WayTo = by_eth0) -> Plan:
    """Return the plan of these services, a mapping in YAML; reading it takes most of the time of a test."""
    indented = "".join(f"  {line}\n" for line in services.strip().splitlines())
    site = load(f"site: here\nservices:\n{indented}", "site.yaml", _catalogue()).site
    ways = {address: way_to(address) for address in addresses_to_reach(site, HostFacts(NAMES))}
    return compile_plan(site, HostFacts(NAMES, ways=ways))


def artifact_of(services: str, way_to: WayTo = by_eth0) -> Artifact:
    return render(plan_of(services, way_to), TABLE)


def fillings_of(artifact: Artifact) -> dict[str, Filling]:
    """Return what the kernel is to hold while every node takes work."""
    return {pool.service: Balance(pool).filling({}, 0, 0.0) for pool in artifact.pools}


def text_of(artifact: Artifact) -> str:
    """Return the transaction for a kernel that has nothing of ours yet."""
    return structure(artifact, fillings_of(artifact), {})

"""What must be asked before addresses are put on this machine, and again and again while they are there.  Blocks.

An interface must exist, the rights must be there, and nobody else on the segment may have the address.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from equipoise.base import rights
from equipoise.base.errors import EngineError
from equipoise.engines.addresses import interfaces
from equipoise.engines.addresses.render import Wanted
from equipoise.engines.addresses.segment import ask
from equipoise.engines.base import Refusal
from equipoise.plan.model import ManagedAddress

_INTERFACE = ("network", "interface")


def refusals(new: Collection[Wanted], acts: bool) -> list[Refusal]:
    """Return why these addresses cannot be put here.

    Args:
        new: Those that were not wanted before.
        acts: Whether there is something to do even where all of them are here: ours are to be looked after.
    """
    if not new and not acts:
        return []
    try:
        machine = interfaces.look()
    except EngineError as error:
        return [Refusal(str(error))]
    missing = [each for each in new if each.address not in machine.addresses]
    if (missing or acts) and (lacked := rights.missing()):
        lacking = f"addresses cannot be managed without {' and '.join(lacked)}; {interfaces.WAY_TO_RIGHTS}"
        return [Refusal(lacking, ("network", "manage_addresses"))]
    known = {each.name for each in machine.links}
    unknown = sorted({each.address.interface for each in missing} - known)
    return [_no_interface(machine, name) for name in unknown] or list(_taken(missing))


def conflicts(addresses: Collection[ManagedAddress]) -> Mapping[ManagedAddress, tuple[str, ...]]:
    """Return who else answers for each of these; empty for nobody.  Raises: EngineError."""
    hosts: dict[str, list[str]] = defaultdict(list)
    for each in addresses:
        hosts[each.interface].append(each.host)
    with ThreadPoolExecutor(max_workers=max(1, len(hosts))) as threads:  # configuration allows 8 interfaces
        answers = dict(zip(hosts, threads.map(ask, hosts, hosts.values()), strict=True))
    return {each: answers[each.interface][each.host] for each in addresses}


def _no_interface(machine: interfaces.Machine, name: str) -> Refusal:
    try:
        machine.link(name)
    except EngineError as error:
        return Refusal(str(error), _INTERFACE)
    raise AssertionError(f"{name} is there")


def _taken(missing: Collection[Wanted]) -> Iterator[Refusal]:
    try:
        answers = conflicts([each.address for each in missing])
    except EngineError as error:
        yield Refusal(str(error), _INTERFACE)
        return
    for each in missing:
        if macs := answers[each.address]:
            yield Refusal(_owner(each, macs), ("services", each.service, "listen") if each.service else ())


def _owner(wanted: Wanted, macs: tuple[str, ...]) -> str:
    address, interface = wanted.address.host, wanted.address.interface
    what = f"{address} is another machine's: {' and '.join(macs)} answers for it on {interface}"
    ways = "take it off that machine, or listen on another address"
    if wanted.is_direct:
        ways += "; or, where that is a node, prepare it for l4_dr: `equipoise layer4 prepare-node` there"
    return f"{what}; {ways}"

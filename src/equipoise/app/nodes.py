"""What is known of each node beside the plan: the verdict, the last check, the operator's override."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import msgspec

from equipoise.base.errors import EquipoiseError
from equipoise.base.paths import replace_file
from equipoise.health.asking import Outcome
from equipoise.health.verdict import Transition, Verdict
from equipoise.plan.model import Node, Plan, Service
from equipoise.plan.states import NodeState, NodeStates, Override, node_key, shown_state

ACTIONS = ("drain", "disable", "enable", "weight")
_MAX_WEIGHT = 256

Change = Transition | Literal["reachable", "unreachable"]


@dataclass(slots=True)
class Known:
    """One node.

    Attributes:
        connected: Whether the last check could connect; where there was none yet, what engines taken over knew.
    """

    service: Service
    node: str
    verdict: Verdict
    outcome: Outcome | None = None
    connected: bool = True

    @property
    def reachable(self) -> bool:
        """False where the node is down, and the last check could not even connect."""
        return self.verdict.up is not False or self.connected


class NodeBook:
    """All nodes of the plan.  Overrides outlive restarts in a file of their own."""

    def __init__(self, overrides_file: Path) -> None:
        self._file = overrides_file
        self._nodes: dict[str, Known] = {}
        self._overrides = _read_overrides(overrides_file)

    def configure(self, plan: Plan, adopted: Mapping[str, NodeState], *, forget: bool) -> str | None:
        """Take a plan's nodes.  Those that stay keep their verdict, so that no configuration brings one back.

        Args:
            plan: The plan that is, or is to be, in force.
            adopted: Node states that running engines had; they hold as if checked here: one lost check after a restart
                takes no node down.
            forget: Whether the plan is in force, so that nodes which left go with their overrides.  Before it is,
                they are kept: engines serve them still, and the plan may be refused.

        Returns: In words, why overrides that were forgotten are still on the disk; None where they are not.
        """
        before, self._nodes = self._nodes, {}
        for service in plan.services:
            for node in service.nodes:
                key = node_key(service.name, node.name)
                self._nodes[key] = _known(service, node, before.get(key), adopted.get(key))
        if not forget:
            self._nodes |= {key: known for key, known in before.items() if key not in self._nodes}
            return None
        return self._forget_overrides()

    def heard(self, key: str, outcome: Outcome) -> Change | None:
        """Take a check's outcome; return what changes with it for the engines, if anything does.

        Returns: `up` or `down` where the verdict changes; `unreachable` or `reachable` where a node that stays down
            can no longer, or can again, be connected to.
        """
        known = self._nodes.get(key)
        if known is None:
            return None
        was_reachable = known.reachable
        known.outcome, known.connected = outcome, outcome.connected
        if (transition := known.verdict.feed(ok=outcome.ok)) is not None:
            return transition
        if known.reachable == was_reachable:
            return None
        return "reachable" if known.reachable else "unreachable"

    def known(self, key: str) -> Known | None:
        """Return what is known of a node."""
        return self._nodes.get(key)

    def override(self, pattern: str, action: str, weight: int | None) -> list[str]:
        """Change nodes by an operator's word and return their names.  Raises: EquipoiseError, with nothing changed."""
        change = _change(action, weight)
        matching = [key for key in self._nodes if _matches(key, pattern)]
        if not matching:
            raise EquipoiseError(
                f"{pattern!r} matches no node; nodes are named SERVICE/NODE, and '*/NODE' is a machine in "
                f"all its services: "
                f"{', '.join(sorted(self._nodes)) or 'there are none'}"
            )
        changed = dict(self._overrides)
        for key in matching:
            changed[key] = change(changed.get(key, Override()))
        self._save(changed)
        return matching

    @property
    def overrides(self) -> Mapping[str, Override]:
        """Return the operators' overrides."""
        return self._overrides

    def take(self, overrides: Mapping[str, Override]) -> None:
        """Have these overrides, of nodes of the plan.  Raises: EquipoiseError, with nothing changed."""
        self._save({**self._overrides, **overrides})

    @property
    def answering(self) -> int:
        """How many nodes answered their last checks."""
        return sum(known.verdict.up is True for known in self._nodes.values())

    @property
    def all_down(self) -> bool:
        """Whether there are nodes, and every one is down."""
        return bool(self._nodes) and all(known.verdict.up is False for known in self._nodes.values())

    def states(self) -> NodeStates:
        """Return the state of every node, for the engines."""
        return {key: self._state(key, known) for key, known in self._nodes.items()}

    def _state(self, key: str, known: Known) -> NodeState:
        override = self._overrides.get(key)
        node = known.service.node(known.node)
        configured = node.weight if node else 0
        weight = override.weight if override is not None and override.weight is not None else configured
        return NodeState(shown_state(override, up=known.verdict.up is not False), weight, known.reachable)

    def _forget_overrides(self) -> str | None:
        stay = {key: override for key, override in self._overrides.items() if key in self._nodes}
        if stay == self._overrides:
            return None
        self._overrides = stay
        try:
            self._write(stay)
        except OSError as error:
            return (
                f"{self._file} cannot be written: {error.strerror}; it still holds overrides of nodes that left, which "
                "count again where such a node comes back after a restart; make room, or let the supervisor's user "
                "write there"
            )
        return None

    def _save(self, overrides: dict[str, Override]) -> None:
        kept = {key: override for key, override in overrides.items() if override != Override()}
        try:
            self._write(kept)
        except OSError as error:
            raise EquipoiseError(
                f"{self._file} cannot be written, so nothing was changed: {error.strerror}; make room, or let the "
                "supervisor's user write there"
            ) from None
        self._overrides = kept

    def _write(self, overrides: dict[str, Override]) -> None:
        content = {key: asdict(override) for key, override in sorted(overrides.items())}
        replace_file(self._file, json.dumps(content, indent=1).encode())


def _known(service: Service, node: Node, before: Known | None, adopted: NodeState | None) -> Known:
    """Return what is known of a node from now on: other limits keep the verdict, another check or address starts anew.

    A name that moved in the DNS is the same address: its checks go on at the new place.
    """
    health = service.health
    if before is None:
        up = {"up": True, "down": False}.get(adopted.state) if adopted is not None else None
        connected = adopted is None or adopted.reachable
        verdict = Verdict(health.rise, health.fall, up=up)
        return Known(service, node.name, verdict, connected=connected)
    old = before.service.node(node.name)
    if old is None or (before.service.check, old.address) != (service.check, node.address):
        up = False if before.verdict.up is False else None
        return Known(service, node.name, Verdict(health.rise, health.fall, up=up))
    before.verdict.adjust(health.rise, health.fall)
    before.service = service
    return before


def _change(action: str, weight: int | None) -> Callable[[Override], Override]:
    """Return what an action does to an override.  Raises: EquipoiseError."""
    match action:
        case "drain":
            return lambda override: replace(override, drain=True)
        case "disable":
            return lambda override: replace(override, disabled=True)
        case "enable":
            return lambda override: replace(override, drain=False, disabled=False)
        case "weight":
            if weight is not None and not 0 <= weight <= _MAX_WEIGHT:
                raise EquipoiseError(f"weight {weight} is not from 0 to {_MAX_WEIGHT}")
            return lambda override: replace(override, weight=weight)
    raise EquipoiseError(f"{action!r} is not one of {', '.join(ACTIONS)}")


def _matches(key: str, pattern: str) -> bool:
    parts = pattern.split("/")
    return len(parts) == 2 and all(fnmatchcase(name, part) for name, part in zip(key.split("/"), parts, strict=True))


def _read_overrides(path: Path) -> dict[str, Override]:
    """Read the overrides.  Raises: EquipoiseError: starting without them could send work to a machine in repair."""
    try:
        content = json.loads(path.read_text())
        overrides = {key: Override(**entry) for key, entry in content.items()}  # refuses fields that it does not know
        msgspec.convert(content, dict[str, Override])  # and this, values that are none
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, msgspec.ValidationError) as error:
        raise EquipoiseError(
            f"the operators' overrides in {path} cannot be read ({error}); "
            "mend the file, or remove it to start with none"
        ) from None
    return overrides

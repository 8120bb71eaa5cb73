"""A simulated site at work behind the balancer, while things happen to it.

`start`, then `step` a few times a second, then `finish`.  Leaves out how it is shown, and when it ends.
"""

import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from equipoise.base.clock import Clock
from equipoise.base.errors import EquipoiseError
from equipoise.sim.audit import Audit, audit
from equipoise.sim.hl7_audit import Key, audit_messages
from equipoise.sim.hl7_interfaces import MessageTally
from equipoise.sim.ledger import Ledger, Tally
from equipoise.sim.outcome import Done, MessageOutcome, Outcome, Phase
from equipoise.sim.site import Site
from equipoise.sim.story import Beat, Deed
from equipoise.sim.workload import Department, Workload

_UP_WITHIN_S = 30.0
_STATUS_EVERY_S = 0.4
_TIDY_EVERY_S = 15.0  # longer than any read of a study takes: what is removed was retired one round before
_KEPT_STUDIES = 40  # about 250 MB


class Control(Protocol):
    """The supervisor, as `equipoise.cli.client.Client` speaks with it."""

    def status(self) -> dict[str, Any]:
        """Return the status document.  Raises: EquipoiseError."""

    def override(self, pattern: str, action: str, weight: int | None = None) -> list[str]:
        """Drain or enable nodes.  Raises: EquipoiseError."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One line of the supervisor's status."""

    name: str
    state: str
    connections: int
    bytes_in: int
    bytes_out: int
    check: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The demonstration now.

    Attributes:
        elapsed_s: Since the work began.
        stored: Files in the archives' store, removed ones included.
        nodes: As the supervisor said last.
        told: What happened so far, each with its time; oldest first.
        messages: What was counted of HL7, where the site has it.
    """

    elapsed_s: float
    tally: Tally
    stored: int
    nodes: tuple[NodeView, ...]
    told: tuple[str, ...]
    messages: MessageTally | None = None


class Demonstration:
    """One run, on a site that somebody else closes."""

    def __init__(
        self,
        site: Site,
        control: Control,
        clock: Clock,
        *,
        story: Iterable[Beat],
        seed: int,
        department: Department | None = None,
    ) -> None:
        self._site = site
        self._clock = clock
        self._story = iter(story)
        self._next = next(self._story, None)
        self._control = control
        self._ledger = Ledger(clock)
        self._workload = Workload(site.scene.fronts, self._ledger, clock, seed, department)
        self._watch = _Watch(control, site.scene.services, self._tell)
        self._stagehand = ThreadPoolExecutor(1, thread_name_prefix="story")
        self._deeds: list[Future[None]] = []
        self._phase_starts: list[tuple[str, float]] = []
        self._done: list[Done] = []
        self._told: list[str] = []
        self._faults: list[str] = []
        self._began_s = 0.0
        self._tidied_s = 0.0
        self._retired: list[str] = []
        self._sent_again = 0
        self._removed = Audit()

    def start(self) -> None:
        """Start nodes and balancer, wait until every node is up, begin to work.  Raises: EquipoiseError, OSError."""
        self._site.start_nodes()
        self._site.start_balancer()
        self._wait_until_up()
        self._began_s = self._tidied_s = self._clock.monotonic()
        self._phase_starts.append(("at the beginning", self._began_s))
        self._tell("the work begins, all nodes are up")
        self._watch.start()
        self._workload.start()

    def step(self) -> None:
        """Do to the site what is due by now."""
        if self._next is not None and self.elapsed_s >= self._next.at_s:
            self._deeds.append(self._stagehand.submit(self._do, self._next))
            self._next = next(self._story, None)
        if self._clock.monotonic() - self._tidied_s >= _TIDY_EVERY_S:
            self._tidy()
        self._note_dead()
        self._note_messages()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the work began."""
        return self._clock.monotonic() - self._began_s

    @property
    def failed(self) -> bool:
        """Say whether it makes no sense to go on."""
        return bool(self._faults)

    def progress(self) -> Progress:
        """Return how it stands."""
        stored = len(self._site.store.paths()) + len(self._removed.unharmed)
        interfaces = self._workload.interfaces
        return Progress(
            self.elapsed_s,
            self._ledger.tally(),
            stored,
            self._watch.nodes,
            tuple(self._told),
            interfaces.tally() if interfaces is not None else None,
        )

    def stop(self) -> None:
        """End the devices and the watch; a second call does nothing."""
        self._faults += self._workload.stop()
        self._stagehand.shutdown(wait=True)
        self._watch.stop()

    def finish(self, *, expect_whole_story: bool) -> Outcome:
        """Stop, read back what was stored, and say what it came to."""
        ended_s = self._clock.monotonic()
        self.stop()
        self._note_dead()
        self._faults += [f"{failure}" for deed in self._deeds if (failure := deed.exception()) is not None]
        if not self._watch.answered_last:
            self._faults.append(f"the supervisor did not answer in the end: {self._watch.complaint}")
        return Outcome(
            tally=self._ledger.tally(),
            audit=self._removed.plus(audit(self._site.store, self._ledger.expected())),
            phases=self._phases(ended_s),
            done=tuple(self._done),
            left_undone=(self._next.text,) if self._next is not None and expect_whole_story else (),
            status_answers=self._watch.answers,
            faults=tuple(self._faults),
            messages=self._messages(),
        )

    def _wait_until_up(self) -> None:
        deadline_s = self._clock.monotonic() + _UP_WITHIN_S
        complaint = ""
        while self._clock.monotonic() < deadline_s:
            if dead := self._site.dead():
                raise EquipoiseError(dead[0])
            try:
                nodes = node_views(self._control.status(), self._site.scene.services)
                if nodes and all(node.state == "up" for node in nodes):
                    return
                complaint = ", ".join(f"{node.name} is {node.state} ({node.check})" for node in nodes)
            except EquipoiseError as error:
                complaint = str(error)
            time.sleep(0.1)
        raise EquipoiseError(f"the balancer was not ready within {_UP_WITHIN_S:g} s: {complaint}")

    def _do(self, beat: Beat) -> None:
        began_s = self._clock.monotonic()
        self._phase_starts.append((f"after {beat.text}", began_s))
        for node in sorted(beat.nodes, key=self._site.is_running, reverse=True):  # to start one takes seconds
            if beat.deed is Deed.KILL:
                self._site.kill_node(node)
            elif beat.deed is Deed.DRAIN:
                self._control.override(f"*/{node}", "drain")
            else:
                self._bring_back(node)
        self._done.append(Done(beat.deed, beat.nodes, began_s, self._clock.monotonic()))
        self._tell(beat.text)

    def _bring_back(self, node: str) -> None:
        if self._site.is_running(node):
            self._control.override(f"*/{node}", "enable")
        else:
            self._site.start_node(node)

    def _tidy(self) -> None:
        """Compare and remove the oldest studies, so that a long demonstration does not fill the disk."""
        self._tidied_s = self._clock.monotonic()
        for study_uid in self._retired:
            checked = audit(self._site.store, self._ledger.expected(), study_uid)
            self._removed = self._removed.plus(checked)
            self._ledger.forget([*checked.unharmed, *checked.missing, *checked.harmed])
            self._site.store.remove(study_uid)
        self._retired = self._ledger.take_oldest(keep_studies=_KEPT_STUDIES)

    def _note_dead(self) -> None:
        for text in self._site.dead():
            if text not in self._faults:
                self._faults.append(text)

    def _messages(self) -> MessageOutcome | None:
        interfaces = self._workload.interfaces
        if interfaces is None:
            return None
        # Whatever the service's key: each interface waits for its answer before it goes on.
        found = audit_messages(interfaces.sent(), self._site.taken(), key=Key.CONNECTION)
        return MessageOutcome(interfaces.tally(), found)

    def _note_messages(self) -> None:
        again = interfaces.tally().again if (interfaces := self._workload.interfaces) is not None else 0
        if more := again - self._sent_again:
            self._sent_again = again
            self._tell(f"HL7: {more} had no answer, and {'was' if more == 1 else 'were'} sent again by the sender")

    def _phases(self, ended_s: float) -> tuple[Phase, ...]:
        interfaces = self._workload.interfaces
        starts = [*self._phase_starts, ("", max(ended_s, self._phase_starts[-1][1]))]
        return tuple(
            Phase(
                title,
                end_s - start_s,
                self._ledger.acknowledged_between(start_s, end_s),
                self._ledger.failed_between(start_s, end_s),
                interfaces.accepted_between(start_s, end_s) if interfaces is not None else None,
            )
            for (title, start_s), (_, end_s) in pairwise(starts)
        )

    def _tell(self, text: str) -> None:
        self._told.append(f"{self.elapsed_s:5.1f} s  {text}")


class _Watch:
    """Asks the supervisor for its status again and again, in a thread, and tells what changed."""

    def __init__(self, control: Control, services: tuple[str, ...], tell: Any) -> None:
        self._control = control
        self._services = services
        self._tell = tell
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.nodes: tuple[NodeView, ...] = ()
        self.answers = 0
        self.answered_last = False
        self.complaint = "it was never asked"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._ask()
            if self._stop.wait(_STATUS_EVERY_S):
                return

    def _ask(self) -> None:
        try:
            nodes = node_views(self._control.status(), self._services)
        except EquipoiseError as error:
            if self.answered_last:
                self._tell(f"the supervisor does not answer: {error}")
            self.answered_last, self.complaint = False, str(error)
            return
        for text in changes(self.nodes, nodes):
            self._tell(f"the balancer says: {text}")
        self.nodes, self.answers, self.answered_last = nodes, self.answers + 1, True


def changes(before: tuple[NodeView, ...], now: tuple[NodeView, ...]) -> list[str]:
    """Return what became of each node since; what became of a machine in several of its services is told once."""
    states = {node.name: node.state for node in before}
    services: dict[str, list[str]] = {}
    for node in now:
        if (old := states.get(node.name, node.state)) != node.state:
            service, _, name = node.name.rpartition("/")
            services.setdefault(f"{name} {old} → {node.state}{_because(node)}", []).append(service)
    return [text + (f" in {', '.join(of)}" if of[0] else "") for text, of in services.items()]


def node_views(status: dict[str, Any], services: tuple[str, ...]) -> tuple[NodeView, ...]:
    """Return the nodes of a status document, by name; of several services with their service's name in front."""
    views = []
    for service in services:
        nodes = status["services"].get(service, {}).get("nodes", {})
        prefix = f"{service}/" if len(services) > 1 else ""
        views += [_view(prefix + name, node) for name, node in sorted(nodes.items())]
    return tuple(views)


def _view(name: str, node: dict[str, Any]) -> NodeView:
    check = node["check"]
    said = "not checked yet" if check is None else "ok" if check["ok"] else check["reason"]
    return NodeView(name, node["state"], node["connections"], node["bytes_in"], node["bytes_out"], said)


def _because(node: NodeView) -> str:
    return f" ({node.check})" if node.state == "down" else ""

"""The supervisor: the only loop that turns events into inputs, and inputs into what engines do.

It carries no traffic.  A plan comes from the document alone; node states come from checks and operators, and reach the
engines at once.  Leaves out the process around it (`daemon.py`).
"""

import asyncio
import os
import traceback
from collections.abc import AsyncIterator, Callable
from random import SystemRandom
from typing import Any

from equipoise import __version__
from equipoise.app.able import able
from equipoise.app.certificates import CertificateWatch, problems, spoiled
from equipoise.app.converge import checked, converge
from equipoise.app.document import DocumentStore, last_plan
from equipoise.app.engines import Engines
from equipoise.app.inputs import Inputs, look_again, own_facts, read, read_to_start
from equipoise.app.learned import LearnedFile
from equipoise.app.listeners import Listeners
from equipoise.app.nodes import NodeBook
from equipoise.app.offline import Preview
from equipoise.app.pair.pair import Pair, Serving, Wiring
from equipoise.app.remarks import remarks
from equipoise.app.snapshot import status_document
from equipoise.app.targets import targets
from equipoise.app.unresolved import unresolved_nodes
from equipoise.app.verdicts import Verdicts
from equipoise.app.wiring import catalogue
from equipoise.base.clock import Clock
from equipoise.base.errors import ConfigError, EngineError, EquipoiseError
from equipoise.base.paths import Directories
from equipoise.base.tasks import Tasks
from equipoise.engines.addresses.runner import AddressesEngine
from equipoise.engines.base import Observation
from equipoise.engines.gateway.runner import GatewayEngine
from equipoise.engines.haproxy.runner import HaproxyEngine
from equipoise.engines.keepalived.runner import KeepalivedEngine
from equipoise.engines.layer4.runner import Layer4Engine
from equipoise.health.asking import Outcome
from equipoise.health.catalogue import checks
from equipoise.health.runner import HealthRunner, Target
from equipoise.plan.diff import diff
from equipoise.plan.guard import guard, refusal
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Plan
from equipoise.state.events import (
    Event,
    NodeOverride,
    PlanApplied,
    PlanRefused,
    SupervisorStarted,
    SupervisorStopping,
    TaskFailed,
    TaskHindered,
)
from equipoise.state.journal import Journal

Announce = Callable[[dict[str, Any]], None]
_LOOK_AT_FACTS_EVERY_S = 30.0
_LOOK_AT_CERTIFICATES_EVERY_S = 60.0
_KEEP_LEARNED_EVERY_S = 60.0
_ADDRESSES_EVERY_S = 2.0
_WATCH_EVERY_S = 5.0
_AFTER_HANDOVER_S = 2.0  # for answers that nodes still owe; what clients send goes to the peer
_LEFT_OUT = "it is not served: its files of TLS cannot be used; it comes by itself once they are whole"
_NO_PLAN = Plan(site="", services=(), gateway_workers=1, drain_timeout_s=30.0, digest="")


class Supervisor:
    """One instance of the balancer.

    Args:
        store: The document.
        directories: Where sockets and state are.
        clock: Time.
        journal: Takes every event.
        announce: Takes the events that a person in front of the terminal wants to see.
        serving: Serves the other machine of a pair.
    """

    def __init__(
        self,
        store: DocumentStore,
        directories: Directories,
        clock: Clock,
        journal: Journal,
        announce: Announce,
        *,
        serving: Serving,
    ) -> None:
        self._store = store
        self._directories = directories
        self._clock = clock
        self._journal = journal
        self._announce = announce
        self._catalogue = catalogue()
        self._tasks = Tasks(self._task_failed)
        given = (directories, self._tasks, clock, self.emit)
        self._gateway, self._haproxy = GatewayEngine(*given, journal.write), HaproxyEngine(*given)
        keepalived = KeepalivedEngine(*given)
        self._engines = Engines(
            [self._gateway, self._haproxy, Layer4Engine(*given)], last=[keepalived, AddressesEngine(*given)]
        )
        self._nodes = NodeBook(directories.state / "overrides.json")
        wiring = Wiring(directories, clock, self._tasks, serving)
        self.pair = Pair(self, self._nodes, self._engines, keepalived, wiring)
        self._verdicts = Verdicts(self._nodes, self.emit)
        self._health = HealthRunner(checks(), self._tasks, clock, self._heard, random=SystemRandom())
        self._plan = self._served = _NO_PLAN
        self._inputs: Inputs | None = None
        self._certificates = CertificateWatch(self.emit)
        self._spoiled = ""  # what is wrong with files that changed, as it was told last
        self._learned = LearnedFile(directories.state / "learned.json")
        self._gateway.learned = self._learned.read()
        self._listeners = Listeners(self.emit)
        self._changing = asyncio.Lock()
        self._stopping = self._telling = False

    async def start(self) -> None:
        """Take over what serves, then serve the document.  Raises: EquipoiseError; engines stay as they are."""
        own = own_facts(self._directories)
        inputs, unusable = await read_to_start(self._store.read(), str(self._store.path), self._catalogue, own)
        plan = inputs.compiled()
        try:
            self._nodes.configure(plan, await self._engines.adopt(), forget=False)
            adopted = self._engines.adopted
            self._engines.prepare(self._nodes.states())
            served = plan
            if unusable is not None:
                has_run = last_plan(self._directories.state, self._catalogue) if self._haproxy.adopted else None
                served = await self._able(plan, inputs, has_run)
            await converge(served, None, self._engines, inputs.document)
        except EquipoiseError:
            await self.fail_to_start()
            raise
        self.emit(SupervisorStarted(pid=os.getpid(), version=__version__, adopted=adopted))
        if unusable is not None:  # ADR 0007: after a restart of the machine the other services must not be down too
            self.emit(TaskHindered(task="files of TLS", reason=f"{unusable}; what needs them waits for better ones"))
        await self._in_force(plan, served, inputs)
        for name, every_s, work in (
            ("watch", _WATCH_EVERY_S, self._engines.watch),
            ("facts", _LOOK_AT_FACTS_EVERY_S, self._look_at_facts),
            ("certificates", _LOOK_AT_CERTIFICATES_EVERY_S, self._look_at_certificates),
            ("learned", _KEEP_LEARNED_EVERY_S, self._keep_learned),
            ("addresses", _ADDRESSES_EVERY_S, self._look_for_addresses),
        ):
            self._tasks.repeat(name, every_s, work)

    async def fail_to_start(self) -> None:
        """Leave the engines as they were found: those taken over serve on, those started now end."""
        await self.pair.close()
        await self._tasks.cancel_all()
        await self._engines.undo_start()

    @property
    def drain_timeout_s(self) -> float:
        """How long a stop lets open work go on."""
        return self._plan.drain_timeout_s

    async def reload(self) -> None:
        """Read the document again; where it is refused the old plan goes on, and an event says why."""
        try:
            await self._change(self._store.read, force=False)
        except EquipoiseError as error:
            self.emit(PlanRefused(reason=str(error)))

    async def leave(self, reason: str) -> None:
        """End alone: the engines serve on."""
        self.emit(SupervisorStopping(how="alone", reason=reason))
        await self.pair.close()
        self._engines.leave()
        await self._tasks.cancel_all()
        await self._keep_learned()

    async def stop(self, reason: str, drain_s: float) -> None:
        """Drain and stop the engines."""
        self.emit(SupervisorStopping(how="drain", reason=reason))
        self._stopping = True
        self._health.stop()
        handed_over = await self.pair.stop()
        if hindered := await self._engines.stop(min(drain_s, _AFTER_HANDOVER_S) if handed_over else drain_s):
            self.emit(TaskHindered(task="stop", reason=hindered))
        await self._tasks.cancel_all()
        await self._keep_learned()

    def hurry(self) -> None:
        """Have a stop that is under way end at once."""
        self._engines.hurry()

    # What the API asks: see api/ports.py

    def identity(self) -> dict[str, Any]:
        """Return who this is."""
        return {"version": __version__, "pid": os.getpid(), "site": self._plan.site}

    async def status(self) -> dict[str, Any]:
        """Return how things stand."""
        observed = await self._engines.observe()
        left_out = {service.name for service in self._plan.services if self._served.service(service.name) is None}
        observed += Observation(unserved=dict.fromkeys(left_out, _LEFT_OUT))
        absent, files = self._listeners.absent, self._certificates.states
        standby = absent & self.pair.at_peer
        return status_document(self._plan, self._nodes, observed, absent, files, standby=standby)

    async def preview(self, document: str) -> Preview:
        """Say what `document` would change.  Raises: ConfigError."""
        inputs = await self._read(document)
        plan = inputs.compiled()
        warnings = (*await remarks(inputs, plan, self._clock.wall()), *refusal(self._plan, plan))
        return Preview(plan.digest, diff(self._plan, plan), warnings)

    async def apply(self, document: str, *, force: bool) -> Preview:
        """Put `document` into force and in place of the old one.  Raises: EquipoiseError, with nothing changed."""
        return await self.pair.apply(document, force=force)

    async def override(self, pattern: str, action: str, weight: int | None) -> list[str]:
        """Change nodes by an operator's word.  Raises: EquipoiseError."""
        changed = self._nodes.override(pattern, action, weight)
        word = action if action != "weight" else f"weight {'as configured' if weight is None else weight}"
        for key in changed:
            service, node = key.split("/")
            self.emit(NodeOverride(service=service, node=node, override=word))
        self.pair.overridden(changed)
        await self.tell_states()
        return changed

    def recent_events(self, limit: int) -> list[dict[str, Any]]:
        """Return the last events, newest last."""
        return self._journal.recent(limit)

    def follow(self) -> AsyncIterator[dict[str, Any]]:
        """Return what happens from now on."""
        return self._journal.follow()

    async def replace_gateways(self) -> list[int]:
        """Replace every gateway process without loss.  Raises: EngineError."""
        async with self._changing:
            if self._inputs is not None and (wrong := await asyncio.to_thread(problems, self._inputs.document)):
                raise EngineError(
                    f"a new gateway could not use these files, so the old one stays: {ConfigError(wrong)}"
                )
            return await self._gateway.replace("an operator asked for it")

    # What the pair asks: see pair/balancer.py

    @property
    def plan(self) -> Plan:
        """Return the plan in force."""
        return self._plan

    @property
    def document(self) -> str:
        """Return the text of the document in force."""
        return self._inputs.text if self._inputs is not None else ""

    def alone(self) -> Plan:
        """Return the plan that would be in force if this machine were not one of a pair."""
        return self._inputs.compiled_alone() if self._inputs is not None else self._plan

    async def would_change(self, document: str) -> None:
        """See whether `document` could be put into force here.  Raises: EquipoiseError."""
        async with self._changing:  # engines have one place each for what they are asked about
            inputs = await self._read(document)
            await checked(inputs.compiled(), self._engines, inputs.document)

    async def change(self, document: str, *, force: bool) -> Preview:
        """Put `document` into force here, in the place of the old one.  Raises: EquipoiseError, nothing changed."""
        return await self._change(lambda: document, force=force, replaces=True)

    async def read_again(self) -> None:
        """Put the same document into force with what this machine's files say now.  Raises: EquipoiseError."""
        await self._change(lambda: self.document, force=True, known=own_facts(self._directories))

    # Plans

    async def _read(self, text: str, known: HostFacts | None = None) -> Inputs:
        known = known or (self._inputs.facts if self._inputs else HostFacts())
        return await read(text, str(self._store.path), self._catalogue, known, self._clock.wall())

    async def _change(
        self, document: Callable[[], str], *, force: bool, replaces: bool = False, known: HostFacts | None = None
    ) -> Preview:
        async with self._changing:
            text = document()  # not before: another one may just be put into force, and this one would undo it
            inputs = await self._read(text, known)
            plan = guard(self._plan, inputs.compiled(), force)
            changes, running = diff(self._plan, plan), self._served
            await converge(plan, running, self._engines, inputs.document)
            try:
                if replaces:
                    self._store.replace(text)
            except EquipoiseError:
                await converge(running, plan, self._engines)
                raise
            await self._in_force(plan, plan, inputs)
            return Preview(plan.digest, changes, await remarks(inputs, plan, self._clock.wall()))

    async def _able(self, plan: Plan, inputs: Inputs, running: Plan | None) -> Plan:
        """Return the part of a plan that can be served while files of TLS cannot be used."""
        wrong = await asyncio.to_thread(spoiled, inputs.document)
        return able(plan, {each.service for each in wrong}, running)

    async def _in_force(self, plan: Plan, served: Plan, inputs: Inputs) -> None:
        """Follow up on a plan; every engine serves it, or what can be served of it."""
        changes, self._plan, self._inputs = diff(self._plan, plan), plan, inputs
        self._served = served
        if (problem := self._nodes.configure(plan, {}, forget=True)) is not None:
            self.emit(TaskHindered(task="overrides", reason=problem))
        self._health.set_targets(targets(plan))
        try:
            await self.tell_states()
        except EngineError as error:  # the plan is in force all the same
            self.emit(TaskHindered(task="node states", reason=str(error)))
        self._remember(plan)
        self.emit(PlanApplied(plan=plan.digest, engines=self._engines.names, changes=len(changes)))
        for warning in unresolved_nodes(plan):
            self.emit(warning)
        await self._look_for_addresses()
        await self._look_at_certificates()
        await self.pair.configure()

    def _remember(self, plan: Plan) -> None:
        try:
            self._store.keep_plan(plan)
        except OSError as error:
            reason = f"the plan runs, but could not be kept for `equipoise plan`: {error.strerror}"
            self.emit(TaskHindered(task="keep the plan", reason=reason))

    async def _look_at_facts(self) -> None:
        """Follow names that have moved and certificates that were renewed."""
        inputs = self._inputs
        if inputs is None or self._stopping:
            return
        now, unusable = await look_again(inputs, self._clock.wall())
        if unusable is not None and str(unusable) != self._spoiled:
            self.emit(TaskHindered(task="renewed files of TLS", reason=f"{unusable}; they are not taken up"))
            await self._look_at_certificates()
        self._spoiled = "" if unusable is None else str(unusable)
        if now.facts == inputs.facts and not await self._may_be_mended(inputs):
            return
        async with self._changing:
            if self._inputs is inputs:  # else another document came in the meantime, with its own facts
                plan = now.compiled()
                served = await self._able(plan, now, self._served) if self._served != self._plan else plan
                await converge(served, self._served, self._engines, now.document)
                await self._in_force(plan, served, now)

    async def _may_be_mended(self, inputs: Inputs) -> bool:
        """Say whether a gateway that read files while they could not be used may have them now."""
        lacking = self._served != self._plan or (await self._gateway.observe()).problems
        return bool(lacking) and not await asyncio.to_thread(problems, inputs.document)

    async def _look_at_certificates(self) -> None:
        await self._certificates.look(self._plan, self._clock.wall())

    async def _keep_learned(self) -> None:
        names = {service.name for service in self._plan.services}
        self._gateway.learned = {name: means for name, means in self._gateway.learned.items() if name in names}
        if (problem := self._learned.keep(self._gateway.learned)) is not None:
            self.emit(TaskHindered(task="learned", reason=problem))

    async def _look_for_addresses(self) -> None:
        self._listeners.look(self._plan)

    # Node states

    def _heard(self, target: Target, outcome: Outcome) -> None:
        """Take a check's outcome; what changes with it reaches the engines at once."""
        if self._verdicts.heard(target, outcome) and not self._telling:  # many nodes change when a network does
            self._telling = True
            self._tasks.spawn("node states", self.tell_states())

    async def tell_states(self) -> None:
        """Have every engine know the node states as they are now.  Raises: EngineError."""
        self._telling = False
        await self._engines.set_nodes(self._nodes.states())

    # Events

    def emit(self, event: Event) -> None:
        """Tell the journal, and whoever looks on."""
        self._journal.emit(event)
        self._announce(event.fields())

    def callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Report a bug that ended in the event loop."""
        failure = context.get("exception") or RuntimeError(context.get("message", "unknown"))
        self._task_failed(str(context.get("message")), failure)

    def _task_failed(self, name: str, failure: BaseException) -> None:
        if isinstance(failure, EquipoiseError):
            self.emit(TaskHindered(task=name, reason=str(failure)))
            return
        text = "".join(traceback.format_exception(failure))
        self.emit(TaskFailed(task=name, error=repr(failure), traceback=text))

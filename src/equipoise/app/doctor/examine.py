"""Look at everything, then judge it: what `equipoise doctor` does."""

from dataclasses import replace
from pathlib import Path

from equipoise.app.doctor.facts import Running
from equipoise.app.doctor.findings import Finding, fine, warning
from equipoise.app.doctor.gather_certificates import gather_certificates
from equipoise.app.doctor.gather_layer4 import gather_layer4
from equipoise.app.doctor.gather_machine import gather_machine
from equipoise.app.doctor.gather_pair import gather_pair
from equipoise.app.doctor.gather_site import gather_site
from equipoise.app.doctor.judge_certificates import judge_certificates
from equipoise.app.doctor.judge_layer4 import judge_layer4
from equipoise.app.doctor.judge_machine import judge_machine
from equipoise.app.doctor.judge_pair import judge_pair, judge_unfinished
from equipoise.app.doctor.judge_site import judge_site
from equipoise.app.document import last_plan, read_document
from equipoise.app.inputs import own_facts
from equipoise.app.ways import find_ways
from equipoise.app.wiring import catalogue
from equipoise.base.clock import Clock
from equipoise.base.errors import EquipoiseError
from equipoise.base.paths import Directories
from equipoise.config.loading import load
from equipoise.plan.compile import addresses_to_reach, compile_plan
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Plan


def examine(site: Path | None, running: Running | None, directories: Directories, clock: Clock) -> tuple[Finding, ...]:
    """Return what is found, in the order in which it was looked at.

    Args:
        site: The document, or None for what the running supervisor has applied.
        running: That supervisor, or None where none answers.
        directories: Those of this instance.
        clock: Time.

    Raises: EquipoiseError where the document cannot be used.
    """
    plan, first = _plan(site, running, directories)
    machine = gather_machine(directories, running)
    findings = [*first, *judge_machine(machine, running)]
    if plan is not None:
        orphaned = running is None and machine.engines > 0
        found = gather_site(plan, running, clock, orphaned=orphaned)
        findings += judge_site(plan, machine, found)
        kernel = gather_layer4(plan, running, machine.user, found.lookups, clock)
        findings += judge_layer4(plan, kernel, machine.kernel.conntrack) if kernel is not None else ()
        pair = gather_pair(plan, running, machine.user, directories)
        findings += judge_pair(plan, pair) if pair is not None else ()
        findings += judge_certificates(gather_certificates(plan), clock.wall())
    return tuple(findings)


def _plan(
    site: Path | None, running: Running | None, directories: Directories
) -> tuple[Plan | None, tuple[Finding, ...]]:
    if site is not None:
        return _planned(site, directories)
    plan, said = _applied(running, directories)
    return plan, (said,)


def _applied(running: Running | None, directories: Directories) -> tuple[Plan | None, Finding]:
    if running is None:
        return None, fine("site", "none given, and no supervisor runs: the machine alone is looked at")
    try:
        plan = last_plan(directories.state, catalogue())
    except EquipoiseError as error:
        return None, warning("site", str(error), "ask as the balancer's user or as root, or name the site's file")
    if plan is None:
        return None, warning("site", f"no applied plan is in {directories.state}", "name the site's file")
    return plan, fine("site", f"{plan.site}, as the running balancer serves it")


def _planned(site: Path, directories: Directories) -> tuple[Plan, tuple[Finding, ...]]:
    """Return the plan of a document on this machine, without its names: they are looked up with a deadline."""
    document = load(read_document(site), str(site), catalogue())
    of_pair, unread = _of_pair(directories)
    facts = replace(of_pair, ways=find_ways(addresses_to_reach(document.site, of_pair)))
    plan, said = compile_plan(document.site, facts), fine("site", f"{document.site.site}, from {site}")
    if unread is not None:
        return plan, (said, unread)
    if document.site.cluster is not None and plan.cluster is None:
        return plan, (said, judge_unfinished())
    return plan, (said,)


def _of_pair(directories: Directories) -> tuple[HostFacts, Finding | None]:
    """Return what this machine's own files say of its place in a pair."""
    try:
        return own_facts(directories), None
    except (EquipoiseError, OSError) as error:
        return HostFacts(), warning("pair", str(error), "ask as the balancer's user or as root")

"""How fast is layer 4, beside no balancer, HAProxy and nginx?  Run: python -m bench.layer4 [--quick].

Client, balancers and nodes are network namespaces on one machine and share its cores.  All contenders are there for the
whole time and are measured in turn, round after round; who comes first changes with the round, and ratios are taken
within a round.  Then a supervisor looks at 200 000 flows, and nodes go in and out.  Leaves out real network cards.
Seed: the objects' bytes and the order of the loads.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import layer4_page, report
from bench.contenders import Site
from bench.layer4_contenders import CONTENDERS, FULL, LEAST, LOADS, Load, Stage, Way, measure_way
from bench.layer4_network import WEB_PORT, Machines, ending, machines, missing
from bench.layer4_scenes import changes, fill, observing, overridden, still_there, unobserved
from bench.programs import BenchError, build
from bench.question import Measured, Question, answer
from equipoise.base.errors import EquipoiseError

QUESTION = "How fast is layer 4, beside no balancer, HAProxy and nginx?"
WARM_UP_S, SETTLE_S = 0.4, 0.1
Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: `seconds` for each contender and load in a round, `observe_s` with nothing but flows."""

    rounds: int
    seconds: float
    flows: int
    observe_s: float
    changes: int


THOROUGH = Effort(rounds=10, seconds=2.6, flows=200_000, observe_s=30.0, changes=20)
QUICK = Effort(rounds=2, seconds=0.6, flows=200_000, observe_s=5.0, changes=4)


@dataclass(frozen=True, slots=True)
class Run:
    """The contenders of one run, the network they are in, and what went wrong so far."""

    effort: Effort
    machines: Machines
    ways: Sequence[Way]
    errors: list[str]

    def measure(self, way: Way, load: Load, seconds: float) -> dict[str, Any]:
        """Return what one contender did with one load; what is wrong with it goes to `errors`."""
        row = measure_way(way, load, self.machines, seconds)
        if row["first_error"]:
            self.errors.append(f"{way.name}, {load.name}: {row['errors']} errors, the first: {row['first_error']}")
        time.sleep(SETTLE_S)
        return row

    def rounds(self, load: Load) -> Rows:
        """Measure every contender in each round, each time beginning with another one."""
        rows, ways = [], list(self.ways)
        for number in range(self.effort.rounds):
            first = number % len(ways)
            for way in ways[first:] + ways[:first]:
                rows.append(self.measure(way, load, self.effort.seconds) | {"round": number + 1})
        medians = [f"{way.name} {report.median_of(rows, load.name, way.name, load.key):.4g}" for way in ways]
        print(f"{load.name}: {', '.join(medians)} {load.unit}", flush=True)
        return rows

    def warm_up(self) -> None:
        """Load each contender once: a first run is never recorded, since memory is found then.  Raises: BenchError."""
        for way in self.ways:
            for load in LOADS:
                if wrong := measure_way(way, load, self.machines, WARM_UP_S)["first_error"]:
                    raise BenchError(f"{way.name} does not serve {load.name}: {wrong}")


def flows_of(stage: Stage, run: Run, *, are_new: bool) -> int:
    """Return how many flows the full balancer has; too few make the run invalid.  Raises: EquipoiseError."""
    full = next((way for way in run.ways if way.name == FULL), None)
    if full is None:
        return 0
    layer4, wanted = stage.layer4[FULL], run.effort.flows
    seen = fill(full, layer4, run.machines.client, wanted) if are_new else still_there(full, layer4, wanted)
    if seen < wanted:
        run.errors.append(f"{FULL} has {seen} flows {'at first' if are_new else 'at the end'}, {wanted} were opened")
    print(f"{FULL}: {seen} flows", flush=True)
    return seen


def full_changes(stage: Stage, run: Run) -> list[float]:
    """Return how long changes take by the API of the balancer that has many flows, in ms.  Raises: BenchError."""
    full = next((way for way in run.ways if way.name == FULL), None)
    if full is None:
        return []
    with full.awake():
        return overridden(stage.layer4[FULL], ["a", "b"], run.effort.changes)


def measured_on(stage: Stage, run: Run, options: argparse.Namespace) -> Measured:
    """Measure everything.  Raises: BenchError, EquipoiseError."""
    run.warm_up()
    flows = flows_of(stage, run, are_new=True)
    rows = [row for load in random.Random(options.seed).sample(LOADS, len(LOADS)) for row in run.rounds(load)]
    watched = [way for way in run.ways if way.name in (LEAST, FULL)]
    observed = observing(watched, stage.layer4, run.effort.observe_s)
    run.errors.extend(unobserved(observed))
    took_ms = changes(stage.site, run.machines, run.effort.changes) | {"full": full_changes(stage, run)}
    flows_of(stage, run, are_new=False)
    run.errors.extend(run.machines.wrong_at_nodes())
    return {
        "errors": run.errors,
        "effort": asdict(run.effort),
        "contenders": [way.name for way in run.ways],
        "loads": [load.name for load in LOADS],
        "rows": rows,
        "flows": flows,
        "observed": observed,
        "changes_ms": took_ms,
    }


def measure(options: argparse.Namespace) -> Measured:
    """Build the network, measure everything, remove the network.  Raises: BenchError."""
    effort = QUICK if options.quick else THOROUGH
    for program in ("web_load", "dicom_load", "dicom_sink", "layer4_flows"):
        build(program)
    with ending() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eq4-", dir="/tmp")))
        directory.chmod(0o755)
        site = Site(directory, [WEB_PORT])
        try:
            stage = Stage(site, machines(site, stack, random.Random(options.seed)), stack)
            ways = [CONTENDERS[name](stage) for name in CONTENDERS if name in options.contenders]
            print(f"{', '.join(way.name for way in ways)}: ready", flush=True)
            return measured_on(stage, Run(effort, stage.machines, ways, []), options)
        except EquipoiseError as error:
            raise BenchError(f"Equipoise did not do as told: {error}") from None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what is compared."""
    parser.add_argument("--contenders", nargs="*", choices=CONTENDERS, default=list(CONTENDERS))


ASKED = Question(
    "layer4",
    QUESTION,
    measure,
    layer4_page.verdicts,
    layer4_page.page,
    add_options,
    "one minute; too short to judge by",
)


def main(arguments: Sequence[str]) -> int:
    """Answer the question where it can be answered.  Exit 0 also where it cannot, with a line that says why."""
    if not {"-h", "--help"} & set(arguments) and (reason := missing()) is not None:
        print(f"bench.layer4: skipped: {reason}")
        return 0
    return answer(ASKED, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

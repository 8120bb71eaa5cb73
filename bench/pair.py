"""What do users see of a pair that fails over, beside keepalived by hand?  Run: python -m bench.pair [--quick].

A client behind the router connects every 10 ms, while the active machine loses its link or its power, or hands over.
Both pairs are on the same machines and lose them in the same moments.  All hosts are network namespaces on one machine
and share its cores.  Leaves out real switches and network cards, whose links come and go more slowly.
Seed: the moments at which it happens.
"""

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import pair_page
from bench.layer4_network import ending
from bench.pair_machines import Stage, missing, stage
from bench.pair_page import ADVERTS_MS
from bench.pair_scenes import LINK, POWER, handovers, losses
from bench.pair_soft import measure as measure_soft
from bench.programs import BenchError, build
from bench.question import Measured, Question, answer
from equipoise.base.errors import EquipoiseError

QUESTION = "What do users see of a pair that fails over, beside keepalived by hand?"
SCENES = (LINK, POWER, "handover", "soft")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: `called` are the runs in which a gateway learns of all clients by itself."""

    runs: int
    entries: int
    called: int


THOROUGH = Effort(runs=20, entries=10_000, called=2)
QUICK = Effort(runs=3, entries=10_000, called=1)


def measured_on(found: Stage, effort: Effort, scenes: Sequence[str]) -> dict[str, Any]:
    """Measure everything.  Raises: BenchError."""
    rows: list[dict[str, Any]] = []
    for advert_ms in ADVERTS_MS:
        if {LINK, POWER, "handover"} & set(scenes):
            found.set_advert(advert_ms)
        for kind in (LINK, POWER):
            if kind in scenes:
                rows += losses(found, kind, advert_ms, effort.runs)
                print(f"{kind}, {advert_ms} ms: {effort.runs} runs", flush=True)
    if "handover" in scenes:
        rows += handovers(found, ADVERTS_MS[-1], effort.runs)
        print(f"handover: {effort.runs} runs", flush=True)
    soft = []
    if "soft" in scenes:
        soft = measure_soft(found, effort.entries, effort.runs, effort.called)
        print(f"{effort.entries} clients: {effort.runs} runs", flush=True)
    return {"rows": rows, "soft": soft}


def measure(options: argparse.Namespace) -> Measured:
    """Build the laboratory, measure everything, remove it.  Raises: BenchError."""
    effort = QUICK if options.quick else THOROUGH
    build("dicom_sink")
    with ending() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eqp-", dir="/tmp")))
        folder.chmod(0o755)
        try:
            found = stack.enter_context(stage(folder, random.Random(options.seed)))
            print("both pairs: ready", flush=True)
            measured = measured_on(found, effort, options.scenes)
        except (AssertionError, EquipoiseError, subprocess.SubprocessError) as error:
            raise BenchError(f"the laboratory did not do as told: {error}") from None
    return {"errors": pair_page.errors(measured), "effort": asdict(effort), **measured}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what is measured."""
    parser.add_argument("--scenes", nargs="*", choices=SCENES, default=list(SCENES))


ASKED = Question(
    "pair",
    QUESTION,
    measure,
    pair_page.verdicts,
    pair_page.page,
    add_options,
    "two minutes; too short to judge by",
)


def main(arguments: Sequence[str]) -> int:
    """Answer the question where it can be answered.  Exit 0 also where it cannot, with a line that says why."""
    if not {"-h", "--help"} & set(arguments) and (reason := missing()) is not None:
        print(f"bench.pair: skipped: {reason}")
        return 0
    return answer(ASKED, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

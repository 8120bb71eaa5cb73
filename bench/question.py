"""One question asked on the command line: its options, its answer written down, its exit code.

Leaves out what is measured and how that reads as a page: each question has its own module.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import report
from bench.programs import BUILD, HERE, BenchError

Measured = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What `python -m bench.NAME` asks.

    Attributes:
        measure: Measures everything; returns what is written, with `errors`, and `effort` as it is told to a reader.
        verdicts: What of it meets which target.
        page: All of it as Markdown.
        add_options: Options of its own, beside --quick, --seed and --output.
    """

    name: str
    asks: str
    measure: Callable[[argparse.Namespace], Measured]
    verdicts: Callable[[Measured], Sequence[report.Verdict]]
    page: Callable[[Measured], str]
    add_options: Callable[[argparse.ArgumentParser], object] = lambda parser: None
    quick: str = "too short to judge by"


def answer(question: Question, arguments: Sequence[str]) -> int:
    """Measure, write the results.  Exit 0: valid, whatever was reached; 1: invalid, or it could not run."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = read_options(question, arguments)
    try:
        measured = _measured(question, options)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    directory: Path = options.output or (BUILD if options.quick else HERE / "results")
    report.save(question.name, measured, question.verdicts(measured), question.page(measured), directory)
    return 0 if measured["valid"] else 1


def read_options(question: Question, arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options that every question has, and its own."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{question.name}", description=question.asks)
    parser.add_argument("--quick", action="store_true", help=question.quick)
    parser.add_argument("--seed", type=int, default=1)
    question.add_options(parser)
    parser.add_argument("--output", type=Path, help=f"directory for {question.name}.json and {question.name}.md")
    return parser.parse_args(arguments)


def _measured(question: Question, options: argparse.Namespace) -> Measured:
    """Return what was measured and what every page says of itself.  Raises: BenchError."""
    begun = time.monotonic()
    found = question.measure(options)
    return {
        "question": question.asks,
        "valid": not found["errors"],
        "errors": found["errors"],
        "seed": options.seed,
        "effort": found["effort"] | {"quick": options.quick},
        "took_s": round(time.monotonic() - begun),
        "machine": report.machine(),
        **{key: value for key, value in found.items() if key not in ("errors", "effort")},
    }

"""How fast is TLS 1.3 ended at the relay, beside HAProxy that ends the same?  Run: python -m bench.tls [--quick].

One certificate and one cipher suite for both, plain connections to the nodes.  Contenders are measured in turn, ratios
taken within a round; the generator encrypts on the same cores, equally much for both.  Leaves out client certificates,
resumption, and TLS to nodes.  Seed: the order of the loads and the choice of ports.
"""

import argparse
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from bench import contenders, report
from bench.contenders import GATEWAY, TUNED, Contender, Site
from bench.programs import BenchError, find_program
from bench.question import Measured, Question, answer
from bench.relay import FULL, LOADS, QUICK, Run, associations, started, throughput, warm_up

QUESTION = "How fast is TLS 1.3 ended at the relay, beside HAProxy that ends the same?"


def certificate(directory: Path) -> Path:
    """Make a certificate and its key (RSA, 2048 bits), where there is none, and return it.  Raises: BenchError."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    if cert.exists():
        return cert
    command = [find_program("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"]
    command += ["-subj", "/CN=bench", "-keyout", str(key), "-out", str(cert)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"openssl made no certificate: {done.stderr}")
    (directory / "both.pem").write_text(cert.read_text() + key.read_text())  # as HAProxy wants it
    return cert


def haproxy(site: Site) -> Contender:
    """Start HAProxy, tuned, ending TLS.  Raises: BenchError."""
    return contenders.haproxy(TUNED, "tls.cfg", site, {"tls": str(certificate(site.directory))})


def equipoise(site: Site) -> Contender:
    """Start Equipoise, ending TLS.  Raises: BenchError."""
    return contenders.equipoise(site, template="sites/tls.yaml", options={"tls": str(certificate(site.directory))})


CONTENDERS = {GATEWAY: equipoise, TUNED: haproxy}


def another(name: str, command: str, site: Site) -> Contender:
    """Start any relay, which finds cert.pem and key.pem in its working directory.  Raises: BenchError."""
    return contenders.another(name, command, site, {"tls": str(certificate(site.directory))})


def verdicts(measured: dict[str, Any]) -> list[report.Verdict]:
    """Return the targets with what was measured."""
    speed = report.over_loads(measured, TUNED)
    per_s = report.ratio(measured["associations"], "16 at a time", "per_s", TUNED)
    return [
        report.Verdict("TLS 1.3 throughput over HAProxy tuned, median of the loads", speed, "x", 0.5, 1.0, False),
        report.Verdict("TLS associations a second over HAProxy tuned, 16 at a time", per_s, "x", 0.5, None, False),
    ]


def page(measured: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    effort, rows, shaken = measured["effort"], measured["throughput"], measured["associations"]
    how = (
        f"{effort['rounds']} rounds of {effort['seconds']:g} s for each contender and load, interleaved. Figures are "
        "medians over the rounds with their range; ratios are medians of the ratios within a round. TLS 1.3 from the "
        "generator to the relay, one RSA certificate of 2048 bits, no resumption; plain to the nodes. HAProxy has "
        "256 KiB buffers and two threads."
    )
    parts = {
        "Targets": report.verdict_table(verdicts(measured)),
        "Throughput, MB/s": report.contender_table(measured, rows, measured["loads"], "mb_per_s", 0),
        "CPU seconds of the relay a GB": report.cpu_table(measured),
        "Associations a second (handshake, associate and release, 16 at a time)": report.contender_table(
            measured, shaken, ["16 at a time"], "per_s", 0
        ),
        "Where the time goes: cores kept busy, median": report.share_table(rows, shaken),
    }
    head = report.opening("tls", "TLS 1.3 at the relay: speed", measured, how)
    return head + "\n".join(f"## {title}\n\n{body}" for title, body in parts.items())


def measure(options: argparse.Namespace) -> Measured:
    """Measure everything.  Raises: BenchError."""
    effort = QUICK if options.quick else FULL
    starts = {name: CONTENDERS[name] for name in options.contenders}
    for other in options.also:
        name, _, command = other.partition("=")
        starts[name] = partial(another, name, command)
    with started(starts) as (sink, running):
        run = Run(effort, sink, running)
        warm_up(running)
        rows = throughput(run, random.Random(options.seed).sample(LOADS, len(LOADS)))
        shaken = associations(run)
    return {
        "errors": run.errors,
        "effort": {"rounds": effort.rounds, "seconds": effort.seconds},
        "contenders": [contender.name for contender in running],
        "loads": [load.name for load in LOADS],
        "throughput": rows,
        "associations": shaken,
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add which relays are measured."""
    parser.add_argument("--contenders", nargs="*", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--also", action="append", default=[], metavar="NAME=COMMAND", help="as in bench.relay")


ASKED = Question("tls", QUESTION, measure, verdicts, page, add_options)

if __name__ == "__main__":
    sys.exit(answer(ASKED, sys.argv[1:]))

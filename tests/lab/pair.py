"""`make pair-lab`: the laboratory with two machines for a pair, on which nothing runs yet: that is for people to do.

It writes commands with which they sit down at a host, pull its cable or put it back: their place is always the same, so
that docs/tutorial/pair.md can name them.  Leaves out the pair itself.
"""

import fcntl
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.lab.lab import FLOATING, VIPS, Lab
from tests.lab.machines import write_pages

MACHINES = ("balancer", "standby")
_ROOT = Path(__file__).parents[2]
PLACE = _ROOT / "build/lab"
SITE = f"""# A service for each way that traffic can travel, all at one address.
site: laboratory
drain_timeout: 5s
services:
  web:                 # HAProxy carries it
    protocol: http
    listen: ['{VIPS[0]}:80']
    persistence: {{by: source_ip}}
    health: &check {{check: tcp, interval: 1s, timeout: 1s, rise: 1, fall: 2}}
    nodes: &web {{a: {{address: '10.77.1.11:8000'}}, b: {{address: '10.77.1.12:8000'}}}}
  store:               # the gateway carries it
    protocol: dicom
    listen: ['{VIPS[0]}:104']
    health: *check
    nodes: {{a: {{address: 10.77.1.11}}, b: {{address: 10.77.1.12}}}}
  web-direct:          # answers go from node to client, past the balancer
    protocol: http
    mode: l4_dr
    listen: ['{VIPS[0]}:8000']
    persistence: {{by: none}}
    health: *check
    nodes: *web
  web-nat:             # answers come back through the machine that has the nodes' default gateway
    protocol: http
    mode: l4_nat
    listen: ['{VIPS[0]}:8080']
    persistence: {{by: none}}
    health: *check
    nodes: {{x: {{address: '10.77.2.11:8000'}}, y: {{address: '10.77.2.12:8000'}}}}
cluster:
  more_addresses: ['{FLOATING[0]}', '{FLOATING[1]}']   # that default gateway moves with the service's address
"""
DRAWING = """
  far  10.77.0.50                       near 10.77.1.50
   |                                     |
   |  clients 10.77.0.0/24               |        servers 10.77.1.0/24
   +------------- router ----------------+----------+----------+----------+----------+
              .0.1 | .1.1                |          |          |          |          |
                                     balancer    standby       a          b          c
                                   10.77.1.2    10.77.1.3    .1.11      .1.12      .1.13
                                         |          |
                             .1.100 is on one of the two, and so is .2.1
                                         |          |
                                         |          |        inner 10.77.2.0/24
                                         +----------+----------+----------+
                                       .2.2       .2.3         x          y
                                                             .2.11      .2.12   their default gateway is .2.1
"""
_ON = """#!/bin/sh
# Sit down at a host of the laboratory, or run one command there:  on HOST [COMMAND...]
[ -n "$1" ] && [ -e "/run/netns/{token}-$1" ] || {{ echo "usage: $0 HOST [COMMAND...]; hosts: {hosts}" >&2; exit 1; }}
host=$1
shift
export EQUIPOISE_RUNTIME_DIR="{folder}/$host/run" EQUIPOISE_STATE_DIR="{folder}/$host/state"
export PATH="{folder}/bin:$PATH" LAB_HOST="$host"
mkdir -p "{folder}/$host"
cd "{folder}/$host" || exit 1
[ $# -gt 0 ] || set -- env PS1="$host# " bash --norc
exec nsenter --net="/run/netns/{token}-$host" -- "$@"
"""
_CABLE = """#!/bin/sh
# {what} of a host of the laboratory:  {name} HOST
case "$1" in
{cases}
*) echo "usage: $0 HOST; hosts: {hosts}" >&2; exit 1 ;;
esac
"""


def show_pair(folder: Path, ended: threading.Event, for_s: float | None) -> None:
    """Have the laboratory until it is to end."""
    write_pages(folder / "www")
    with claimed(), Lab(folder, pair=True) as lab:
        for node in lab.all_nodes.values():
            node.serve_web(folder / "www")
            node.serve_store()
        write_commands(lab, folder)
        print(DRAWING)
        print(commands(folder), flush=True)
        ended.wait(for_s)
        print("Removing everything ...", flush=True)


@contextmanager
def claimed() -> Iterator[None]:
    """Have the place of the commands for this laboratory alone.  Raises: SystemExit where there is another one."""
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / ".claimed").open("w") as claim:
        _claim(claim)
        try:
            yield
        finally:
            shutil.rmtree(PLACE, ignore_errors=True)


def _claim(claim: IO[str]) -> None:
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"There is a laboratory already, whose commands are in {PLACE}; end that one first, with Ctrl-C.")


def write_commands(lab: Lab, folder: Path) -> None:
    """Write `on`, `pull` and `put-back`, and a site for each of the two machines."""
    hosts = " ".join(lab.hosts)
    (folder / "bin").mkdir()
    # Equipoise alone: .venv/bin has a storescu of its own, which would hide DCMTK's.
    (folder / "bin/equipoise").symlink_to(Path(sys.executable).parent / "equipoise")
    for machine in MACHINES:
        (folder / machine).mkdir()
        (folder / machine / "site.yaml").write_text(SITE)
    _write("on", _ON.format(token=lab.token, hosts=hosts, folder=folder))
    for name, what, state in (("pull", "Pull the cables", "down"), ("put-back", "Put back the cables", "up")):
        cases = "\n".join(_case(lab, host, state) for host in lab.hosts)
        _write(name, _CABLE.format(what=what, name=name, cases=cases, hosts=hosts))


def _case(lab: Lab, name: str, state: str) -> str:
    host = lab.hosts[name]
    lines = [" ".join(("ip", *host.cable(device), state)) for device in host.devices]
    return f"{name}) {' && '.join(lines)} ;;"


def _write(name: str, text: str) -> None:
    (PLACE / name).write_text(text)
    (PLACE / name).chmod(0o755)


def commands(folder: Path) -> str:
    """Return what to do, in other terminals."""
    place = PLACE.relative_to(_ROOT)
    first, second = MACHINES
    return f"""Nothing runs on the two machines yet.  In other terminals, as root, in the folder of this project:

  sit down at the first machine     {place}/on {first}
  and at the second one             {place}/on {second}
  there, in each                    equipoise run site.yaml
  make them a pair: at the first    {place}/on {first} equipoise cluster join 10.77.1.3
                    at the second   {place}/on {second} COMMAND, the one that was printed
  how they are                      {place}/on {first} equipoise cluster status
  who has the address               {place}/on {second} ip -brief address show eth0

  a client                          {place}/on far curl -s http://{VIPS[0]}/who
  one that goes on and on           {place}/on far sh -c 'while sleep 0.1; do curl -m 2 http://{VIPS[0]}/who; done'
  DICOM                             {place}/on far /usr/bin/echoscu -v -aec PACS {VIPS[0]} 104
  a download at 400 kB/s            {place}/on far curl -o /dev/null http://{VIPS[0]}:8000/slow/big

  pull the cables of a machine      {place}/pull {first}
  put them back                     {place}/put-back {first}
  give the address to the other     {place}/on {first} equipoise cluster handover

Files of the two: {folder}/{first} and {folder}/{second}; each has its own site.yaml, state and runtime directory.
Ctrl-C ends it, and removes everything.
"""

"""`make lab`: the laboratory for people, with servers on its nodes and the balancer in the middle, until Ctrl-C.

It prints where everything is and what to try.  Leaves out what to make of it: docs/howto/laboratory.md; and the one
with two machines: `pair.py`.
"""

import argparse
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

from tests.lab.lab import VIPS, VIPS6, Lab, missing
from tests.lab.machines import write_pages
from tests.lab.pair import show_pair
from tests.system.balancer import Balancer

SITE = f"""# One service for each way that packets can travel.
site: laboratory
drain_timeout: 5s
services:
  web-direct:          # answers go from node to client, past the balancer
    protocol: http
    mode: l4_dr
    listen: ['{VIPS[0]}:8000']
    balance: round_robin
    persistence: {{by: none}}
    health: &check {{check: tcp, interval: 1s, timeout: 1s, rise: 1, fall: 2}}
    nodes: &servers {{a: {{address: 10.77.1.11}}, b: {{address: 10.77.1.12}}, c: {{address: 10.77.1.13}}}}
  web-direct-6:
    protocol: http
    mode: l4_dr
    listen: ['[{VIPS6[0]}]:8000']
    persistence: {{by: none}}
    health: *check
    nodes: {{a: {{address: 'fd77:0:0:1::11'}}, b: {{address: 'fd77:0:0:1::12'}}}}
  store-direct:
    protocol: dicom
    mode: l4_dr
    listen: ['{VIPS[0]}:104']
    health: *check
    nodes: *servers
  web-nat:             # answers come back through the balancer, ports may differ
    protocol: http
    mode: l4_nat
    listen: ['{VIPS[1]}:80']
    persistence: {{by: none}}
    health: *check
    nodes: {{x: {{address: '10.77.2.11:8000'}}, y: {{address: '10.77.2.12:8000'}}}}
  web-masquerade:      # for nodes whose default gateway is another one; they see the balancer's address
    protocol: http
    mode: l4_nat
    masquerade: true
    listen: ['{VIPS[2]}:80']
    persistence: {{by: none}}
    health: *check
    nodes: {{a: {{address: '10.77.1.11:8000'}}, b: {{address: '10.77.1.12:8000'}}}}
"""
DRAWING = """
  far  10.77.0.50                       near 10.77.1.50
   |                                     |
   |  clients 10.77.0.0/24               |        servers 10.77.1.0/24
   +------------- router ----------------+----------+----------+----------+
              .0.1 | .1.1                |          |          |          |
                                     balancer       a          b          c      direct routing: each has
                                   10.77.1.2      .1.11      .1.12      .1.13    the VIPs on lo, and is silent
                              VIPs .1.100-.1.102                                 when somebody asks for them
                                         |
                                         |        inner 10.77.2.0/24
                                         +----------+----------+
                                       .2.2         x          y                 NAT: their default gateway
                                                  .2.11      .2.12               is the balancer, 10.77.2.2
  The same in IPv6: fd77:0:0:0::/64, fd77:0:0:1::/64, fd77:0:0:2::/64, with the same last number.
"""


def commands(lab: Lab, balancer: Balancer) -> str:
    """Return what to try, in another terminal."""
    pull = " ".join(("ip", *lab.nodes["b"].host.cable()))
    far, near, box = (" ".join(host.prefix) for host in (lab.far.host, lab.near.host, lab.balancer))
    equipoise = f"EQUIPOISE_RUNTIME_DIR={balancer.home / 'run'} {sys.executable} -m equipoise"
    return f"""Try, in another terminal, as root:

  a shell at the client             {far} bash
  which node answers                {far} curl -s http://{VIPS[0]}:8000/who
  each in turn, from the segment    {near} curl -s -H 'Connection: close' 'http://{VIPS[0]}:8000/who?[1-6]'
  IPv6                              {far} curl -s 'http://[{VIPS6[0]}]:8000/who'
  NAT                               {far} curl -s http://{VIPS[1]}:80/who
  NAT, nodes see the balancer       {far} curl -s http://{VIPS[2]}:80/who
  DICOM                             {far} /usr/bin/echoscu -v -aec PACS {VIPS[0]} 104
  a download at 400 kB/s            {far} curl -o /dev/null http://{VIPS[0]}:8000/slow/big
  what passes the balancer          {box} tcpdump -n -i eth0 host {VIPS[0]}
  its rules                         {box} nft --terse list ruleset

  status                            {equipoise} status --watch
  take a node out                   {equipoise} node drain '*/a'
  bring it back                     {equipoise} node enable '*/a'
  pull the cable of b               {pull} down
  put it back                       {pull} up
  the site that runs                {balancer.site}

Hosts: {", ".join(f"{name}: {host.namespace}" for name, host in lab.hosts.items())}
Ctrl-C ends it, and removes everything.
"""


def main() -> int:
    """Build, print, wait, remove."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description="A laboratory of network namespaces.")
    parser.add_argument("--for", dest="for_s", type=float, default=None, help="seconds; without it until Ctrl-C")
    parser.add_argument("--pair", action="store_true", help="two machines for a pair, on which nothing runs yet")
    wanted = parser.parse_args()
    if reason := missing():
        print(f"There can be no laboratory here: {reason}.", file=sys.stderr)
        return 1
    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    with tempfile.TemporaryDirectory(prefix="equipoise-lab-") as name:
        (show_pair if wanted.pair else show)(Path(name), ended, wanted.for_s)
    print("Everything is removed.")
    return 0


def show(folder: Path, ended: threading.Event, for_s: float | None) -> None:
    """Run it until it is to end."""
    write_pages(folder / "www")
    with Lab(folder, vips=len(VIPS)) as lab:
        for node in lab.all_nodes.values():
            node.serve_web(folder / "www")
            node.serve_store()
        with Balancer(SITE, prefix=lab.balancer.prefix) as balancer:
            print(DRAWING)
            print(commands(lab, balancer), flush=True)
            ended.wait(for_s)
            print("Removing everything ...", flush=True)


if __name__ == "__main__":
    sys.exit(main())

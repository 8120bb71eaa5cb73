"""What a Linux node needs for direct routing: settings, addresses, and the files that keep both over a restart.  Pure.

- The address is on `lo`, as one host (/32, /128): packets for it are taken, and no route follows from it.
- ARP: by default Linux answers for every address that it has, whichever interface is asked.  `arp_ignore` 1 has it
  answer only for those of the asked interface, `arp_announce` 2 keeps the address out of its own questions.  Of the
  settings of `all` and of the interface the larger holds, so that `all` suffices.
- IPv6 needs no setting: a neighbour solicitation is answered only for addresses of the interface it came in on, and
  `lo` looks for no duplicate.  The address is deprecated, so that the node calls nobody from it.
- `tcp_mtu_probing` 1: "packet too big" goes to the sender's address, which is the balancer's, so the node never hears
  of a narrow path; with probing it finds out by itself when large segments are not acknowledged.

Source: the kernel's ip-sysctl (arp_ignore, arp_announce, tcp_mtu_probing), ndisc_recv_ns in net/ipv6/ndisc.c,
sysctl.d(5), systemd.service(5); LVS-HOWTO, "The ARP Problem".
"""

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address

from equipoise.app.prepare_node.wanted import Wanted

SETTINGS_FILE = "/etc/sysctl.d/90-equipoise-direct-routing.conf"
UNIT = "equipoise-direct-routing.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
EVERY_INTERFACE = "all"

_UNIT = """\
# Of `equipoise layer4 prepare-node`: this machine takes packets for these addresses, and answers for them to nobody.
[Unit]
Description=Virtual addresses for direct routing
After=systemd-sysctl.service
Before=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
{commands}

[Install]
WantedBy=multi-user.target
"""
_ADDED = re.compile(r"^ExecStart=.* ip address replace ([0-9a-fA-F:.]+)/\d+ dev lo\b", re.MULTILINE)

_SCRIPT = """\
#!/bin/sh
# Prepares this Linux machine as a node for direct routing{services}.
# Run it as root; a second time changes nothing.
set -eu

# First the settings: an address that is answered for draws its clients here, past the balancer.
cat >{settings_file} <<'END'
{settings}END
sysctl -q -p {settings_file}

# The address itself, on the interface that nobody asks.
{addresses}

# The same at every start of the machine.  Without systemd, put the lines above where the network is brought up.
if [ -d /run/systemd/system ]; then
cat >{unit_file} <<'END'
{unit}END
systemctl daemon-reload
systemctl enable -q {unit_name}
fi

# To look at: the addresses are here and on no other interface, and no filter asks for the way back to be the same.
ip -brief address show
sysctl net.ipv4.conf.all.rp_filter
"""


def settings(wanted: Wanted, interface: str | None) -> dict[str, str]:
    """Return the kernel's settings, by their names with `/`: an interface's name may have dots."""
    of_arp = f"net/ipv4/conf/{interface or EVERY_INTERFACE}"
    arp = {f"{of_arp}/arp_ignore": "1", f"{of_arp}/arp_announce": "2"} if wanted.of_version(4) else {}
    return {**arp, "net/ipv4/tcp_mtu_probing": "1"}


def settings_file(values: Mapping[str, str]) -> str:
    """Return the file for /etc/sysctl.d."""
    lines = [f"{name} = {value}\n" for name, value in values.items()]
    return "# Of `equipoise layer4 prepare-node`\n" + "".join(lines)


def address_command(address: str) -> tuple[str, ...]:
    """Return the command that brings an address up, or leaves it as it is."""
    if ip_address(address).version == 4:
        return ("ip", "address", "replace", f"{address}/32", "dev", "lo")
    return ("ip", "address", "replace", f"{address}/128", "dev", "lo", "preferred_lft", "0", "nodad")


def unit_file(addresses: Sequence[str]) -> str:
    """Return the unit that brings the addresses up when the machine starts."""
    commands = (f"ExecStart=/usr/bin/env {' '.join(address_command(address))}" for address in addresses)
    return _UNIT.format(commands="\n".join(commands))


def addresses_in(unit: str) -> tuple[str, ...]:
    """Return the addresses that such a unit brings up."""
    return tuple(_ADDED.findall(unit))


def script(wanted: Wanted, interface: str | None) -> str:
    """Return a script that does it all on a machine without Equipoise."""
    return _SCRIPT.format(
        services=f", for {', '.join(wanted.services)}" if wanted.services else "",
        settings_file=SETTINGS_FILE,
        settings=settings_file(settings(wanted, interface)),
        addresses="\n".join(" ".join(address_command(address)) for address in wanted.addresses),
        unit_file=UNIT_FILE,
        unit=unit_file(wanted.addresses),
        unit_name=UNIT,
    )

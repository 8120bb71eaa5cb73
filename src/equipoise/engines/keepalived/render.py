"""The text of `keepalived.conf` for a plan.  Pure.

One VRRP instance for each group of addresses, unicast to the peer.  What is advertised is an anchor alone, an address
on the loopback interface that never changes: keepalived drops advertisements that list other addresses than its own,
and both machines would hold the addresses while their documents differ.  The real ones stand in
`virtual_ipaddress_excluded`, where both families may be side by side.

Files with a number say what keepalived cannot see: `fault`, that this machine cannot carry traffic, and one for each
group, that it is handed over.  Weight 0 makes either a fault of the instance, which says so to the peer at once; a
weight of any size would move nothing under `nopreempt`.  The scripts see a dead gateway or HAProxy while there is no
supervisor that would; they are left out where keepalived could not run them, which it would take for a success.

Source: RFC 5798; keepalived.conf(5) of 2.2.7.
"""

import re
from collections.abc import Iterator

from equipoise.engines.keepalived.artifact import Artifact, Place, Rules
from equipoise.plan.model import Cluster, Plan, VipGroup

FAULT_FILE = "fault"
FIFO = "notices"
PGREP = "/usr/bin/pgrep"
_HOME, _AWAY = 250, 240  # high, since the wait of a peer that takes over has (256 - priority) / 256 of an advert in it
_SILENT_ADVERTS = 3  # RFC 5798, section 6.1: Master_Down_Interval, without the skew
_SPECIAL = re.compile(r"[^\w/,-]")  # to pgrep, or to keepalived, which splits a command at its spaces


def render(plan: Plan, place: Place) -> Artifact:
    """Say what the plan means for keepalived."""
    cluster = plan.cluster
    if cluster is None or not cluster.groups:
        return Artifact()
    scripts = _scripts(plan, place) if place.runs_scripts else {}
    doors = {cluster.interface, *(each.interface for group in cluster.groups for each in group.addresses)}
    return Artifact(
        groups=cluster.groups,
        configuration="".join(f"{line}\n" for line in _lines(cluster, place, scripts)),
        rules=Rules(
            table=place.table,
            doors=tuple(sorted(doors)),
            peer=cluster.peer,
            router_ids=tuple(sorted(group.router_id for group in cluster.groups)),
        ),
        interface=cluster.interface,
        peer=cluster.peer,
        silence_ms=round(_SILENT_ADVERTS * cluster.advert_s * 1000),
        helpers=(PGREP,) if scripts else (),
        anchors={group.name: _anchor(group, cluster.address) for group in cluster.groups},
    )


def give_file(group: str) -> str:
    """Return the name of the file that says whether a group is handed over."""
    return f"give-{group}"


def _anchor(group: VipGroup, address: str) -> str:
    """Return what is advertised for a group in place of its addresses, of the family of this machine's own."""
    if ":" in address:
        return f"fe80::112:{group.router_id}"  # RFC 5798, section 5.2.9: the first one must be link-local
    return f"169.254.112.{group.router_id}"


def _scripts(plan: Plan, place: Place) -> dict[str, str]:
    """Return the command that finds each process without which no traffic is carried, by the engine's name."""
    engines = {service.engine for service in plan.services}
    patterns = {
        "gateway": f"equipoise.engines.gateway.process --socket {place.gateway_sockets}",
        "haproxy": f"{place.haproxy_socket},mode",
    }
    return {
        name: f"{PGREP} --full {_SPECIAL.sub('.', pattern)}" for name, pattern in patterns.items() if name in engines
    }


def _lines(cluster: Cluster, place: Place, scripts: dict[str, str]) -> Iterator[str]:
    yield "# Written by Equipoise, and written anew with each change of the configuration."
    yield from _global(place)
    for name in (FAULT_FILE, *(give_file(group.name) for group in cluster.groups)):
        yield from ("", f"track_file {name} {{", f'  file "{place.directory / name}"', "  weight 0", "}")
    for name, command in scripts.items():
        yield from ("", f"vrrp_script {name} {{", f'  script "{command}"', "  interval 1", "  timeout 2", "  weight 0")
        yield from ("  fall 2", "  rise 1", "}")
    for group in cluster.groups:
        yield ""
        yield from _instance(cluster, group, tuple(scripts))


def _global(place: Place) -> Iterator[str]:
    yield "global_defs {"
    if place.user:
        yield f"  script_user {place.user}"
    yield "  enable_script_security"
    yield "  vrrp_version 3"
    yield "  vrrp_check_unicast_src"
    yield "  dynamic_interfaces"  # one that is gone is a fault of its instance, and not the end of keepalived
    yield "  max_auto_priority -1"  # ours is not a user that may have its processes run before all others
    # After a partition it tells the neighbours once more: the last word that they heard may have been the other's.
    yield "  vrrp_higher_prio_send_advert true"
    yield "  fifo_write_vrrp_states_on_reload"
    yield f'  vrrp_notify_fifo "{place.directory / FIFO}"'
    yield "}"


def _instance(cluster: Cluster, group: VipGroup, scripts: tuple[str, ...]) -> Iterator[str]:
    yield f"vrrp_instance {group.name} {{"
    yield "  state BACKUP"
    yield f"  interface {cluster.interface}"
    yield f"  virtual_router_id {group.router_id}"
    yield f"  priority {_HOME if group.at_home else _AWAY}"
    yield f"  advert_int {cluster.advert_s:g}"
    if not cluster.preempt:
        yield "  nopreempt"
    yield "  garp_master_delay 1"
    yield f"  unicast_src_ip {cluster.address}"
    yield "  unicast_ttl 255"  # what the peer's rules let in; by IPv6 it would be 64
    yield from ("  unicast_peer {", f"    {cluster.peer}", "  }")
    yield from ("  virtual_ipaddress {", f"    {_with_length(_anchor(group, cluster.address))} dev lo", "  }")
    yield "  virtual_ipaddress_excluded {"
    yield from (f"    {_with_length(each.host)} dev {each.interface}" for each in group.addresses)
    yield "  }"
    yield from ("  track_file {", f"    {FAULT_FILE}", f"    {give_file(group.name)}", "  }")
    if scripts:
        yield from ("  track_script {", *(f"    {name}" for name in scripts), "  }")
    yield "}"


def _with_length(host: str) -> str:
    return f"{host}/{128 if ':' in host else 32}"

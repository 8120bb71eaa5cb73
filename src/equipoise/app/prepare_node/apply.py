"""Prepare the Linux machine that this runs on, or take that back; what is so already is left alone.

Leaves out the settings when it takes back: what they were is not known, and they harm nobody.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from equipoise.app.prepare_node.linux import (
    SETTINGS_FILE,
    UNIT,
    UNIT_FILE,
    address_command,
    addresses_in,
    settings,
    settings_file,
    unit_file,
)
from equipoise.app.prepare_node.wanted import Wanted
from equipoise.base.errors import EquipoiseError
from equipoise.base.paths import replace_file
from equipoise.base.processes import run_to_end

_PROC = Path("/proc/sys")
_SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)
_COMMAND_S = 30.0
_STRICT = "1"


@dataclass(frozen=True, slots=True)
class Done:
    """What was done, a line each; `remarks` are for the administrator to act on."""

    changed: tuple[str, ...]
    unchanged: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def apply(wanted: Wanted, interface: str | None) -> Done:
    """Prepare this machine.  Raises: EquipoiseError."""
    _need_root()
    held = _held()
    _refuse_elsewhere(wanted.addresses, held)
    if interface is not None and not (_PROC / "net/ipv4/conf" / interface).is_dir():
        raise EquipoiseError(f"this machine has no interface {interface!r}; `ip -brief link` shows them")
    steps = _Steps()
    values = settings(wanted, interface)
    steps.note(_write(SETTINGS_FILE, settings_file(values)), f"{SETTINGS_FILE}")
    for name, value in values.items():  # before the addresses: see linux.py
        steps.note(_set(name, value), f"{name.replace('/', '.')} = {value}")
    here = {address for address, device in held if device == "lo"}
    for address in wanted.addresses:
        steps.note(address not in here, f"{address} on lo")
        _run(address_command(address))
    for address in addresses_in(_text(Path(UNIT_FILE))):
        if address in here and address not in wanted.addresses:
            _remove(address)
            steps.note(True, f"{address} no longer on lo")
    steps.note(_write(UNIT_FILE, unit_file(wanted.addresses)), UNIT_FILE)
    _enable()
    return Done(tuple(steps.changed), tuple(steps.unchanged), _remarks())


def undo() -> Done:
    """Take back what `apply` did on this machine.  Raises: EquipoiseError."""
    _need_root()
    changed = []
    here = {address for address, device in _held() if device == "lo"}
    for address in addresses_in(_text(Path(UNIT_FILE))):
        if address in here:
            _remove(address)
            changed.append(f"{address} no longer on lo")
    if _SYSTEMD.is_dir() and Path(UNIT_FILE).exists():
        _run(("systemctl", "disable", "--quiet", UNIT))
    for path in (UNIT_FILE, SETTINGS_FILE):
        if Path(path).exists():
            Path(path).unlink()
            changed.append(f"{path} removed")
    if _SYSTEMD.is_dir():
        _run(("systemctl", "daemon-reload"))
    return Done((*changed, "the kernel's settings stay until the next start of the machine") if changed else ())


class _Steps:
    def __init__(self) -> None:
        self.changed: list[str] = []
        self.unchanged: list[str] = []

    def note(self, changed: bool, what: str) -> None:
        (self.changed if changed else self.unchanged).append(what)


def _need_root() -> None:
    if os.geteuid() != 0:
        raise EquipoiseError("only root may change addresses and settings; use sudo, or hand the script to who may")


class _AddressInfo(msgspec.Struct):
    local: str = ""


class _Link(msgspec.Struct):
    ifname: str = ""
    addr_info: tuple[_AddressInfo, ...] = ()


def _held() -> list[tuple[str, str]]:
    """Return the addresses of this machine, each with its interface."""
    links = msgspec.json.decode(_run(("ip", "-json", "address", "show")), type=list[_Link])
    return [(each.local, link.ifname) for link in links for each in link.addr_info]


def _refuse_elsewhere(addresses: Sequence[str], held: Sequence[tuple[str, str]]) -> None:
    for address, device in held:
        if address in addresses and device != "lo":
            raise EquipoiseError(
                f"{address} is on {device} here, where this machine answers for it, as the balancer does; run this on "
                f"the node, and if this is one, `ip address del` it from {device} first"
            )


def _remarks() -> tuple[str, ...]:
    """Return what stands in the way of packets that come in by one interface, and whose answers leave by another."""
    conf = _PROC / "net/ipv4/conf"
    links = sorted(each.name for each in conf.iterdir() if each.name not in ("all", "default", "lo"))
    general = _text(conf / "all/rp_filter")
    strict = [name for name in links if max(general, _text(conf / name / "rp_filter")) == _STRICT]
    if len(links) < 2 or not strict:
        return ()
    said = f"rp_filter is strict (1) on {', '.join(strict)}: packets of clients whose way back is by another interface"
    return (f"{said} are dropped; set net.ipv4.conf.*.rp_filter to 2 where there are such clients",)


def _enable() -> None:
    if _SYSTEMD.is_dir():
        _run(("systemctl", "daemon-reload"))
        _run(("systemctl", "enable", "--quiet", UNIT))


def _remove(address: str) -> None:
    prefix = address_command(address)[3]
    _run(("ip", "address", "del", prefix, "dev", "lo"))


def _set(name: str, value: str) -> bool:
    path = _PROC / name
    if _text(path) == value:
        return False
    try:
        path.write_text(value)
    except OSError as error:
        raise EquipoiseError(f"cannot set {name.replace('/', '.')}: {error.strerror}") from None
    return True


def _write(path: str, content: str) -> bool:
    if _text(Path(path)) == content.strip():
        return False
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        replace_file(Path(path), content.encode(), mode=0o644)
    except OSError as error:
        raise EquipoiseError(f"cannot write {path}: {error.strerror}") from None
    return True


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _run(command: Sequence[str]) -> str:
    try:
        ended = run_to_end(command, _COMMAND_S, os.environ)
    except OSError as error:
        raise EquipoiseError(f"cannot start {command[0]}: {error.strerror}; install iproute2") from None
    if ended.code != 0:
        raise EquipoiseError(f"`{' '.join(command)}` failed: {ended.output.strip()}")
    return ended.output

"""Judge a machine: facts in, findings out.  Pure.

Leaves out what only a site can want (`judge_site.py`); limits here are those that hold for every site.
Source: IHE ITI TF-1 section 7, Consistent Time (1 s); tcp(7) and the kernel's ip-sysctl for the defaults.
"""

from collections.abc import Iterator

from equipoise.app.doctor.facts import ClockState, Conntrack, Directory, Kernel, Machine, Running, Software
from equipoise.app.doctor.findings import Finding, fine, problem, warning
from equipoise.base.paths import SOCKET_PATH_LIMIT_BYTES
from equipoise.base.units import format_duration, format_size
from equipoise.engines.gateway.sockets import BACKLOG

_CLOCK_ERROR_S = 1.0  # IHE Consistent Time: the median error of a site's clocks stays below it
_BUFFER_BYTES = 4 << 20  # 1 Gbit/s over a line of 30 ms; the kernel's own default for sending
_FEW_LOCAL_PORTS = 10_000
_CONNTRACK_SHARE = 0.8
# Our keepalive speaks every 60 s, and three may be lost on the way; below this a firewall may forget what is open.
_SHORTEST_CONNTRACK_S = 240
# The journal takes 160 MiB, fifty revisions and a log the rest; below the first of these it soon cannot be written.
_TIGHT_BYTES, _LITTLE_BYTES = 64 << 20, 512 << 20
_FEW_FILES = 1000
_OLDEST_PYTHON = (3, 11)
_OLDEST_OPENSSL = (1, 1, 1)  # the first with TLS 1.3


def judge_machine(machine: Machine, running: Running | None) -> Iterator[Finding]:
    """Yield what is to be said of a machine, whatever it serves."""
    yield _supervisor(machine, running)
    yield _clock(machine.clock)
    yield from _software(machine.software)
    for what, directory in (("runtime directory", machine.runtime), ("state directory", machine.state)):
        yield _directory(what, directory, machine.user, running)
    yield _room(machine.state)
    if machine.longest_socket_path > SOCKET_PATH_LIMIT_BYTES:
        yield _long_path(machine)
    yield from _kernel(machine.kernel)


def _supervisor(machine: Machine, running: Running | None) -> Finding:
    item = "supervisor"
    if running is not None:
        return fine(item, f"process {running.pid}, version {running.version}, serves {running.site}")
    if machine.runtime.exists and not machine.runtime.writable:
        seen = f"{machine.user} may not look into {machine.runtime.path}, where one may run"
        return warning(item, seen, "ask as the user that runs the balancer, or as root")
    if machine.engines:
        seen = f"none answers; traffic goes on through {machine.engines} engine(s), but nobody checks the nodes"
        return problem(item, seen, "`systemctl status equipoise`; start it, and it takes the engines over")
    return fine(item, f"none runs in {machine.runtime.path}")


def _clock(clock: ClockState) -> Finding:
    kept = f" by {clock.keeper}" if clock.keeper else ""
    why = "imaging needs it: times in studies and audit trails, and the validity of certificates"
    if clock.synchronised is None:
        return warning("clock", "the kernel does not say whether it is synchronised", "look at `timedatectl` yourself")
    if not clock.synchronised and not clock.keeper:
        return problem("clock", "not synchronised, and no program that would do it is seen", f"start chrony; {why}")
    if not clock.synchronised:
        do = f"`chronyc tracking` or `timedatectl timesync-status` says why; chrony also needs `rtcsync`; {why}"
        return warning("clock", f"not synchronised, although {clock.keeper} runs", do)
    error = f"wrong by at most {clock.max_error_s:.3f} s"
    if clock.max_error_s > _CLOCK_ERROR_S:
        do = f"its server is far or was lost; a site's clocks agree within {_CLOCK_ERROR_S:g} s; {why}"
        return warning("clock", f"synchronised{kept}, but {error}", do)
    return fine("clock", f"synchronised{kept}, {error}")


def _software(software: Software) -> Iterator[Finding]:
    python = ".".join(map(str, software.python))
    if software.python < _OLDEST_PYTHON:
        yield problem("python", python, "install Python 3.11 or later")
    else:
        yield fine("python", python)
    if software.openssl_version < _OLDEST_OPENSSL or not software.tls_1_3:
        do = "use a Python that is built with OpenSSL 3, or with 1.1.1"
        yield problem("openssl", f"{software.openssl}, without TLS 1.3", do)
    else:
        yield fine("openssl", f"{software.openssl}, with TLS 1.3")


def _directory(what: str, directory: Directory, user: str, running: Running | None) -> Finding:
    if directory.writable:
        return fine(what, f"{directory.path}{'' if directory.exists else ', is made at the start'}")
    if running is not None:
        return fine(what, f"{directory.path}, which {user} may not write and the running balancer may")
    seen = f"{directory.path} {'is not writable' if directory.exists else 'cannot be made'} for {user}"
    do = f"ask as the user that runs the balancer, or set {directory.variable} to a directory of {user}"
    return warning(what, seen, do)


def _room(state: Directory) -> Finding:
    seen = f"{format_size(state.free_bytes)} free at {state.path}"
    do = "make room: the journal takes up to 160 MiB there, and without room events are lost"
    if state.free_files is not None and state.free_files < _FEW_FILES:
        return problem("disk", f"room for {state.free_files} files at {state.path}", do)
    if state.free_bytes < _TIGHT_BYTES:
        return problem("disk", seen, do)
    return warning("disk", seen, do) if state.free_bytes < _LITTLE_BYTES else fine("disk", seen)


def _long_path(machine: Machine) -> Finding:
    seen = f"sockets in {machine.runtime.path} have names of {machine.longest_socket_path} bytes"
    do = f"Linux takes {SOCKET_PATH_LIMIT_BYTES}; set EQUIPOISE_RUNTIME_DIR to a shorter directory, such as one in /run"
    return problem("runtime directory", seen, do)


def _kernel(kernel: Kernel) -> Iterator[Finding]:
    yield _buffers(kernel)
    yield _backlog(kernel)
    if kernel.abort_on_overflow:
        do = "set it to 0: callers are to wait while a gateway is replaced"
        yield warning("kernel", "net.ipv4.tcp_abort_on_overflow is on", do)
    if kernel.window_scaling is False:
        do = "set it to 1: without it a connection has 64 KiB on its way, which is slow beyond a local network"
        yield warning("kernel", "net.ipv4.tcp_window_scaling is off", do)
    yield _local_ports(kernel)
    if kernel.keepalive_s is not None:
        unused = f"the kernel's default of {kernel.keepalive_s} s is not used"
        yield fine("keepalive", f"Equipoise sends keepalive after 60 s of silence; {unused}")
    if kernel.conntrack is not None:
        yield _conntrack(kernel.conntrack)
    if kernel.missing:
        do = "outside of the container, or as root, the doctor sees more"
        yield warning("kernel", f"could not read {', '.join(kernel.missing)}", do)


def _buffers(kernel: Kernel) -> Finding:
    found = {"tcp_rmem": kernel.receive_max_bytes, "tcp_wmem": kernel.send_max_bytes}
    seen = ", ".join(f"{name} up to {format_size(size)}" for name, size in found.items() if size is not None)
    small = [name for name, size in found.items() if size is not None and size < _BUFFER_BYTES]
    if small:
        do = f"on a distant line it is slow; set the third number of {' and '.join(small)} to {_BUFFER_BYTES} or more"
        return warning("tcp buffers", seen, do)
    return fine("tcp buffers", seen or "not seen")


def _backlog(kernel: Kernel) -> Finding:
    if kernel.somaxconn is not None and kernel.somaxconn < BACKLOG:
        do = f"`sysctl -w net.core.somaxconn={BACKLOG}` or more, or callers are lost while a gateway is restarted"
        return warning("backlog", f"net.core.somaxconn lets {kernel.somaxconn} callers wait", do)
    return fine("backlog", f"{BACKLOG} callers may wait at each listener")


def _local_ports(kernel: Kernel) -> Finding:
    if kernel.local_ports is None:
        return fine("outgoing ports", "not seen")
    first, last = kernel.local_ports
    count = last - first + 1
    if count < _FEW_LOCAL_PORTS:
        do = "widen net.ipv4.ip_local_port_range: each association takes one of them towards its node"
        return warning("outgoing ports", f"only {count}, {first} to {last}", do)
    return fine("outgoing ports", f"{first} to {last}, enough for {count} associations at each node")


def _conntrack(table: Conntrack) -> Finding:
    seen = f"{table.used} of {table.maximum} connections in the firewall's table"
    if table.used > _CONNTRACK_SHARE * table.maximum:
        do = "raise net.netfilter.nf_conntrack_max: once it is full new connections are dropped without a word"
        return problem("conntrack", seen, do)
    timeout_s = table.established_timeout_s
    if timeout_s is not None and timeout_s < _SHORTEST_CONNTRACK_S:
        seen = f"silent connections are forgotten after {format_duration(timeout_s)}"
        do = f"raise net.netfilter.nf_conntrack_tcp_timeout_established to {_SHORTEST_CONNTRACK_S} or more"
        return warning("conntrack", seen, do)
    return fine("conntrack", seen)

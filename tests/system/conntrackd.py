"""conntrackd on a host of the laboratory, as its operator would run it, with what Equipoise writes for it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

from tests.system.balancer import eventually
from tests.system.netns import Host

PROGRAM = which("conntrackd", path="/usr/local/sbin:/usr/sbin:/sbin:/usr/bin")
_STARTS_WITHIN_S = 40  # this machine may be a slow and busy one


@contextmanager
def conntrackd(host: Host, written: Path) -> Iterator[None]:
    """Have it run meanwhile with what the engine wrote, but for two paths: all hosts have one file system here."""
    home = written.parent
    lock, control, log = home / "conntrackd.lock", home / "conntrackd.ctl", home / "conntrackd.log"
    text = written.read_text()
    for usual, ours in (("/var/lock/conntrack.lock", lock), ("/var/run/conntrackd.ctl", control)):
        ours.unlink(missing_ok=True)  # one that was killed leaves both, and no other starts then
        assert usual in text
        text = text.replace(usual, str(ours))
    configuration = home / "conntrackd-here.conf"
    configuration.write_text(text)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*host.prefix, str(PROGRAM), "-C", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        eventually(control.exists, _STARTS_WITHIN_S, "conntrackd")
        assert process.poll() is None
        yield
    finally:
        process.kill()
        process.wait()

"""tools/debian_packages.sh, with an apt-get that installs nothing: no service starts, and no policy stays behind."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "debian_packages.sh"
# Notes each call and what invoke-rc.d would be told at that moment; fails as $APT_GET_FAILS says.
APT_GET = """#!/bin/sh
"{policy}"; echo "$1 $?" >>"{log}"
case "$APT_GET_FAILS" in always) exit 100;; once) [ "$(wc -l <"{log}")" -gt 1 ] || exit 100;; esac
"""
DPKG_QUERY = """#!/bin/sh
case "$*" in *installed-already*) printf installed;; *) exit 1;; esac
"""


class Machine:
    """A machine's commands and its policy-rc.d, in a directory."""

    def __init__(self, directory: Path) -> None:
        self.policy, self.log = directory / "policy-rc.d", directory / "log"
        self._commands = directory / "bin"
        self._commands.mkdir()
        self.add("apt-get", APT_GET.format(policy=self.policy, log=self.log))
        self.add("dpkg-query", DPKG_QUERY)
        text = SCRIPT.read_text()
        for real, here in (("/usr/sbin/policy-rc.d", self.policy), ("/run/equipoise", directory / "equipoise")):
            assert real in text
            text = text.replace(real, str(here))
        self.add("debian_packages.sh", text)

    def add(self, name: str, text: str) -> None:
        (self._commands / name).write_text(text)
        (self._commands / name).chmod(0o755)

    def run(self, *packages: str, fails: str = "never", user: int | None = None) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self._commands}:{os.environ['PATH']}", "APT_GET_FAILS": fails}
        command = ["bash", str(self._commands / "debian_packages.sh"), *packages]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, user=user)

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="it installs as root only")


def test_nothing_is_done_when_all_is_there(machine: Machine) -> None:
    assert machine.run("installed-already").returncode == 0
    assert machine.calls() == []


@needs_root
def test_services_may_not_start_while_it_installs(machine: Machine) -> None:
    assert machine.run("installed-already", "missing").returncode == 0
    assert machine.calls() == ["install 101"]
    assert not machine.policy.exists()


@needs_root
def test_package_lists_are_fetched_only_when_needed(machine: Machine) -> None:
    assert machine.run("missing", fails="once").returncode == 0
    assert machine.calls() == ["install 101", "update 101", "install 101"]
    assert not machine.policy.exists()


@needs_root
def test_the_policy_goes_after_a_failure_too(machine: Machine) -> None:
    assert machine.run("missing", fails="always").returncode != 0
    assert not machine.policy.exists()


@needs_root
def test_a_policy_of_the_machine_stays(machine: Machine) -> None:
    machine.policy.write_text("#!/bin/sh\nexit 104\n")
    machine.policy.chmod(0o755)
    assert machine.run("missing").returncode == 0
    assert machine.calls() == ["install 104"]
    assert machine.policy.read_text() == "#!/bin/sh\nexit 104\n"


@needs_root
def test_our_own_leftover_is_taken_away(machine: Machine) -> None:
    """SIGKILL leaves no time to clean up; the next run does."""
    machine.policy.write_text("#!/bin/sh\n# of equipoise, tools/debian_packages.sh\nexit 101\n")
    machine.policy.chmod(0o755)
    assert machine.run("missing").returncode == 0
    assert not machine.policy.exists()


@needs_root
def test_another_user_than_root_is_told_what_to_run(machine: Machine, tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents[:3]):
        if directory.stat().st_mode & 0o005 != 0o005 and directory.is_relative_to("/tmp"):
            directory.chmod(0o755)
    done = machine.run("missing", user=65534)
    assert done.returncode == 1
    assert "sudo " in done.stderr
    assert "debian_packages.sh missing" in done.stderr
    assert machine.calls() == []

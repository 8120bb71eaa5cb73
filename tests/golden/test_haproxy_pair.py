"""The golden case of a pair that has joined: `pair-web/haproxy.cfg` is what its `site.yaml` means with certificates.

Apart from `test_golden.py`, whose cases know of no joining.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from equipoise.config.loading import load
from equipoise.config.models import Catalogue
from equipoise.engines.haproxy.render import render
from equipoise.plan.compile import compile_plan
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Plan, Secured
from tests.golden.test_golden import HERE, REWRITE, for_haproxy
from tests.golden.test_haproxy_takes_it import BINARIES, asked, put
from tests.system.certificates import Authority

CASE = HERE / "pair-web"


@pytest.fixture
def plan(catalogue: Catalogue) -> Plan:
    site = load((CASE / "site.yaml").read_text(), "site.yaml", catalogue).site
    secured = Secured("/var/lib/equipoise/pair/own.pem", "/var/lib/equipoise/pair/peer.pem", "0123456789abcdef")
    return compile_plan(site, replace(HostFacts(), secured=secured))


def test_golden(plan: Plan) -> None:
    given = for_haproxy(plan)["haproxy.cfg"]
    if REWRITE:
        (CASE / "haproxy.cfg").write_text(given)
    assert given == (CASE / "haproxy.cfg").read_text()


@pytest.mark.parametrize("binary", BINARIES)
def test_haproxy_takes_it_without_a_word_where_the_addresses_are_not(binary: Path, plan: Plan, tmp_path: Path) -> None:
    put(render(plan), tmp_path, Authority(tmp_path / "authority"))
    code, said = asked(binary, tmp_path, (CASE / "haproxy.cfg").read_text())
    assert code == 0, said
    assert "WARNING" not in said

"""What the doctor sees of layer 4 without rights; among machines: tests/system/test_doctor_layer4.py."""

from pathlib import Path

from equipoise.app.doctor.facts import Lookup
from equipoise.app.doctor.gather_layer4 import gather_layer4
from equipoise.base.clock import SystemClock
from equipoise.base.rights import effective
from tests.unit.app.doctor.healthy import SITE as WITHOUT
from tests.unit.app.doctor.healthy import plan

SITE = """\
site: here
services:
  ct: {protocol: dicom, mode: l4_dr, listen: 192.0.2.100, nodes: {a: {address: 192.0.2.11}, b: {address: b.invalid}}}
"""


def test_a_site_without_such_services_is_not_asked() -> None:
    assert gather_layer4(plan(WITHOUT), None, "me", (), SystemClock()) is None


def test_somebody_without_rights_looks_at_what_may_be_seen(tmp_path: Path) -> None:
    process = tmp_path / "self"
    process.mkdir()
    (process / "status").write_text("Name:\tdoctor\nCapEff:\t0000000000000400\n")
    assert (effective(tmp_path / "self/status"), effective(tmp_path / "12/status")) == (0x400, 0)
    names = (Lookup("b.invalid", ("2001:db8::1", "192.0.2.12"), 0.1, ""),)
    found = gather_layer4(plan(SITE), None, "me", names, SystemClock(), proc=tmp_path)
    assert found is not None
    assert (found.may_change, found.may_ask, found.refused) == (False, False, None)
    assert found.forwarding == {4: None, 6: None}
    assert [node.macs for node in found.nodes] == [None, None]
    assert [node.host for node in found.nodes] == ["192.0.2.11", "192.0.2.12"], "of the service's own version"
    assert found.absent == ("192.0.2.100",)

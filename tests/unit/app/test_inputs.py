"""Facts of the machine that change while a document stays: renewed and spoiled files, and what follows from them."""

import asyncio
import time
from pathlib import Path

import pytest

from equipoise.app.inputs import Inputs, look_again, read, read_to_start
from equipoise.app.wiring import catalogue
from equipoise.base.errors import ConfigError
from equipoise.plan.inputs import HostFacts
from tests.system.certificates import Authority, Issued


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def own(authority: Authority) -> Issued:
    return authority.issue("balancer")


def site(own: Issued, authority: Authority, node: str = "127.0.0.2:104") -> str:
    return f"""site: general
services:
  pacs:
    protocol: dicom
    listen: 127.0.0.1
    tls: {{cert: {own.cert}, key: {own.key}}}
    node_tls: {{ca: {authority.ca_file}}}
    nodes:
      a: {{address: '{node}'}}
  plain:
    protocol: dicom
    listen: 127.0.0.3
    nodes:
      a: {{address: '{node}'}}
"""


def taken(text: str, known: HostFacts | None = None) -> Inputs:
    return asyncio.run(read(text, "site.yaml", catalogue(), known or HostFacts(), time.time()))


def again(inputs: Inputs) -> tuple[Inputs, ConfigError | None]:
    return asyncio.run(look_again(inputs, time.time()))


def test_what_has_not_changed_is_the_same_plan(own: Issued, authority: Authority) -> None:
    inputs = taken(site(own, authority))
    now, spoiled = again(inputs)
    assert spoiled is None
    assert now == inputs
    assert now.compiled().digest == inputs.compiled().digest


def test_a_renewed_certificate_is_another_plan_and_only_for_its_service(own: Issued, authority: Authority) -> None:
    inputs = taken(site(own, authority))
    authority.issue("balancer")
    now, spoiled = again(inputs)
    assert spoiled is None
    before, after = inputs.compiled(), now.compiled()
    assert after.digest != before.digest
    assert [service.name for service in after.services if service != before.service(service.name)] == ["pacs"]
    old, new = before.service("pacs"), after.service("pacs")
    assert old is not None
    assert new is not None
    assert old.tls != new.tls
    assert old.node_tls == new.node_tls


@pytest.mark.parametrize("spoil", ["empty", "rubbish", "missing", "another key"])
def test_a_spoiled_file_counts_as_unchanged_and_is_named(spoil: str, own: Issued, authority: Authority) -> None:
    inputs = taken(site(own, authority))
    good = own.key.read_bytes()
    if spoil == "missing":
        own.key.unlink()
    else:
        stranger = authority.issue("stranger").key.read_text()
        own.key.write_text({"empty": "", "rubbish": "rubbish", "another key": stranger}[spoil])
    now, spoiled = again(inputs)
    assert now.facts == inputs.facts
    assert now.compiled() == inputs.compiled()
    assert spoiled is not None
    assert "services.pacs.tls.key" in str(spoiled)
    assert str(own.key) in str(spoiled)
    assert str(again(now)[1]) == str(spoiled), "what is told once is known by its words"
    own.key.write_bytes(good)
    assert again(now) == (inputs, None)


def test_a_spoiled_file_does_not_hold_up_the_renewal_of_another_service(own: Issued, authority: Authority) -> None:
    other = authority.issue("other")
    text = site(own, authority).replace("listen: 127.0.0.3", f"listen: 127.0.0.3\n    tls: {{cert: {other.both}}}")
    inputs = taken(text)
    own.key.write_text("rubbish")
    authority.issue("other")
    now, spoiled = again(inputs)
    assert spoiled is not None
    assert "services.pacs.tls.key" in str(spoiled)
    assert "plain" not in str(spoiled)
    before, after = inputs.compiled(), now.compiled()
    assert after.service("pacs") == before.service("pacs")
    assert after.service("plain") != before.service("plain")


def test_half_of_a_renewal_waits_for_the_other_half(own: Issued, authority: Authority) -> None:
    """The certificate is copied first, its key a moment later."""
    inputs = taken(site(own, authority))
    old_key = own.key.read_bytes()
    authority.issue("balancer")
    new_key = own.key.read_bytes()
    own.key.write_bytes(old_key)
    half, spoiled = again(inputs)
    assert spoiled is not None
    assert "does not belong to the certificate" in str(spoiled)
    assert half.compiled() == inputs.compiled()
    own.key.write_bytes(new_key)
    whole, spoiled = again(half)
    assert spoiled is None
    assert whole.compiled().digest != inputs.compiled().digest


def test_a_name_that_moved_is_followed_while_a_file_is_spoiled(own: Issued, authority: Authority) -> None:
    inputs = taken(site(own, authority, node="localhost:104"))
    moved = Inputs(inputs.document, HostFacts({"localhost": "192.0.2.9"}, inputs.facts.files), inputs.text)
    own.key.write_text("rubbish")
    now, spoiled = again(moved)
    assert spoiled is not None
    assert now.facts.files == inputs.facts.files
    assert now.facts.resolved == inputs.facts.resolved != moved.facts.resolved


def test_a_document_with_a_spoiled_file_is_refused_except_at_a_start(own: Issued, authority: Authority) -> None:
    own.cert.write_text("rubbish")
    with pytest.raises(ConfigError, match=r"services\.pacs\.tls\.cert"):
        taken(site(own, authority))
    inputs, unusable = asyncio.run(read_to_start(site(own, authority), "site.yaml", catalogue(), HostFacts()))
    assert "services.pacs.tls.cert" in str(unusable)
    assert [service.name for service in inputs.compiled().services] == ["pacs", "plain"]
    authority.issue("balancer")
    now, spoiled = again(inputs)
    assert spoiled is None
    assert now.compiled().service("pacs") != inputs.compiled().service("pacs"), "better files are taken"


def test_a_renewal_that_has_ended_already_is_not_taken_up(own: Issued, authority: Authority) -> None:
    inputs = taken(site(own, authority))
    authority.issue("balancer", days=-1)
    now, wrong = again(inputs)
    assert now.facts.files == inputs.facts.files
    assert "ended on" in str(wrong)
    with pytest.raises(ConfigError, match="ended on"):
        taken(site(own, authority), inputs.facts)

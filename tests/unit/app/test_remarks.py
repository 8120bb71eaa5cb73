"""Documents that are taken, and of which somebody should know something all the same."""

import asyncio
import time
from dataclasses import replace

import pytest

from equipoise.app.inputs import Inputs, read
from equipoise.app.remarks import remarks
from equipoise.app.wiring import catalogue
from equipoise.config.cluster import Here
from equipoise.plan.inputs import HostFacts

DOCUMENT = """site: general
cluster: {peer: 127.0.0.3, role: primary, router_id: 7}
services:
  pacs:
    protocol: dicom
    listen: 192.0.2.100
    nodes:
      a: {address: '127.0.0.2:104'}
"""


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return asyncio.run(read(DOCUMENT, "site.yaml", catalogue(), HostFacts(), time.time()))


def said(inputs: Inputs, here: Here | None) -> list[str]:
    known = replace(inputs, facts=replace(inputs.facts, here=here))
    return list(asyncio.run(remarks(known, known.compiled(), time.time())))


def test_a_key_that_the_file_of_the_machine_overrules_is_named_with_both_values_and_a_way_out(inputs: Inputs) -> None:
    (peer,) = said(inputs, Here(peer="127.0.0.4", role="primary", interface="lo"))
    assert "site.yaml:2" in peer
    assert "'127.0.0.3' is not followed" in peer
    assert "says '127.0.0.4'; take the key out" in peer
    assert ["role" in each for each in said(inputs, Here(peer="127.0.0.3", role="secondary"))] == [True]


@pytest.mark.parametrize("here", [None, Here(), Here(peer="127.0.0.3", role="primary", address="127.0.0.1")])
def test_what_is_followed_is_not_remarked_on(inputs: Inputs, here: Here | None) -> None:
    assert said(inputs, here) == []

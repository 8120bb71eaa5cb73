"""Names of nodes are looked up in the family that their service needs, and stay with the address that they had."""

import asyncio
import socket

import pytest

from equipoise.app.names import resolve
from equipoise.plan.inputs import HostFacts

BOTH = ("192.0.2.12", "2001:db8::12")


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the answers of the resolver, to be changed; which ones a machine's own has cannot be known."""
    answers = list(BOTH)

    def look_up(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_UNSPEC, socket.SOCK_STREAM, 6, "", (address, 0)) for address in answers]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return answers


def resolved(known: str | None = None, version: int | None = None) -> str | None:
    facts = HostFacts({"pacs": known} if known else {})
    return asyncio.run(resolve(["pacs"], facts, {"pacs": version} if version else {})).resolved["pacs"]


def test_a_name_has_an_address_of_the_family_that_is_wanted(dns: list[str]) -> None:
    assert [resolved(version=version) for version in (None, 4, 6)] == [BOTH[0], *BOTH]
    dns.reverse()
    assert [resolved(version=version) for version in (None, 4, 6)] == [BOTH[1], *BOTH]


def test_it_stays_with_the_address_that_it_had_within_that_family(dns: list[str]) -> None:
    dns.insert(0, "192.0.2.11")
    assert resolved("192.0.2.12", 4) == "192.0.2.12"
    assert resolved("192.0.2.12", 6) == "2001:db8::12"
    assert resolved("2001:db8::12") == "2001:db8::12"
    assert resolved("192.0.2.99", 4) == "192.0.2.11"


def test_a_name_without_an_address_of_that_family_has_the_one_that_there_is(dns: list[str]) -> None:
    """Services that are not at layer 4 may name it too; the plan leaves it out where it does not fit."""
    del dns[1]
    assert resolved(version=6) == "192.0.2.12"

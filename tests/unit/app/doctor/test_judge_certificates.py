"""Certificates that peers will refuse, today or soon, and keys that too many may read."""

from dataclasses import replace

import pytest

from equipoise.app.doctor.facts import PemFile
from equipoise.app.doctor.findings import Level
from equipoise.app.doctor.judge_certificates import judge_certificates
from equipoise.base.certificates import Certificate

DAY_S = 86400
NOW_S = 1_930_000_000.0
GOOD = Certificate(
    subject="CN=pacs",
    names=("pacs.example", "10.0.0.100"),
    issuer="CN=Hospital CA",
    not_before_s=NOW_S - DAY_S,
    not_after_s=NOW_S + 31 * DAY_S,
    is_ca=False,
)
FILE = PemFile("/etc/equipoise/pacs.pem", "services.ct.tls.cert", "certificate", "", (GOOD,))
KEY = PemFile("/etc/equipoise/pacs.key", "services.ct.tls.key", "key", "", (), private=True, mode=0o600, owner=999)


def said(file: PemFile) -> list[tuple[str, Level, str]]:
    findings = judge_certificates((file,), NOW_S)
    return [(each.item, each.level, f"{each.seen}; {each.do}") for each in findings if each.level is not Level.OK]


def test_what_is_good_is_named() -> None:
    (certificate,) = judge_certificates((FILE,), NOW_S)
    assert certificate.seen == "/etc/equipoise/pacs.pem: pacs.example, 10.0.0.100, until 2031-03-30"
    assert [each.level for each in judge_certificates((KEY,), NOW_S)] == [Level.OK]


@pytest.mark.parametrize(
    ("certificate", "level", "words"),
    [
        (replace(GOOD, not_after_s=NOW_S + 30 * DAY_S), Level.WARNING, "expires in 30 days"),
        (replace(GOOD, not_after_s=NOW_S), Level.PROBLEM, "expired"),
        (replace(GOOD, not_before_s=NOW_S + 1), Level.PROBLEM, "valid only from"),
    ],
)
def test_a_certificate_that_peers_refuse(certificate: Certificate, level: Level, words: str) -> None:
    (one,) = said(replace(FILE, certificates=(certificate,)))
    assert one[:2] == ("certificate", level)
    assert words in one[2]


def test_what_stands_behind_ours_expires_too() -> None:
    old = replace(GOOD, subject="CN=Hospital CA", names=(), not_after_s=NOW_S - DAY_S)
    assert "Hospital CA" in said(replace(FILE, certificates=(GOOD, old)))[0][2]


def test_authorities() -> None:
    old, soon = replace(GOOD, not_after_s=NOW_S - DAY_S), replace(GOOD, not_after_s=NOW_S + DAY_S)

    def trusted(*certificates: Certificate) -> list[tuple[str, Level]]:
        return [each[:2] for each in said(replace(FILE, holds="authorities", certificates=certificates))]

    assert trusted(GOOD, old) == [], "an old one may stand beside its successor"
    assert trusted(old, old) == [("authorities", Level.PROBLEM)]
    assert trusted(soon, old) == [("authorities", Level.WARNING)]
    assert trusted(*[GOOD] * 30, soon) == [], "a system's list, in which roots come and go"


def test_a_file_that_cannot_be_read() -> None:
    (one,) = said(replace(FILE, certificates=(), unusable="pacs.pem is a directory; name the PEM file in it"))
    assert one == ("certificate", Level.PROBLEM, "pacs.pem is a directory; name the PEM file in it")
    (one,) = said(replace(FILE, certificates=(), unusable="pacs.pem is odd"))
    assert "services.ct.tls.cert" in one[2]


@pytest.mark.parametrize(
    ("mode", "owner", "level"),
    [(0o604, 999, Level.PROBLEM), (0o644, 0, Level.PROBLEM), (0o640, 999, Level.WARNING)],
)
def test_a_key_that_too_many_may_read(mode: int, owner: int, level: Level) -> None:
    (one,) = said(replace(KEY, mode=mode, owner=owner))
    assert one[:2] == ("key", level)


def test_a_key_of_root_for_the_balancers_group_is_usual() -> None:
    assert said(replace(KEY, mode=0o640, owner=0)) == []

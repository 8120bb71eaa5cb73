"""The document is replaced whole or not at all, and what it replaces is kept."""

import os
import stat
from pathlib import Path

import pytest

from equipoise.app.document import DocumentStore
from equipoise.base.errors import ConfigError, EquipoiseError


class SettableClock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1_930_367_107.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text("site: one\n")
    return path


def revisions(state: Path) -> list[str]:
    return [path.read_text() for path in sorted((state / "revisions").iterdir())]


@pytest.mark.parametrize("mode", [0o664, 0o600])
def test_what_is_replaced_is_kept_and_the_mode_stays(site: Path, state: Path, clock: SettableClock, mode: int) -> None:
    site.chmod(mode)
    store = DocumentStore(site, state, clock)
    store.replace("site: two\n")
    assert (store.read(), revisions(state)) == ("site: two\n", ["site: one\n"])
    assert stat.S_IMODE(site.stat().st_mode) == mode


def test_a_symlink_is_followed_and_stays(site: Path, state: Path, clock: SettableClock, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    link = tmp_path / "etc" / "site.yaml"
    link.symlink_to(site)
    DocumentStore(link, state, clock).replace("site: two\n")
    assert link.is_symlink()
    assert site.read_text() == "site: two\n"


def test_fifty_revisions_are_kept_the_newest(site: Path, state: Path, clock: SettableClock) -> None:
    store = DocumentStore(site, state, clock)
    for number in range(60):
        clock.now_s += 0.4
        store.replace(f"site: s{number}\n")
    assert revisions(state) == [f"site: s{number}\n" for number in range(9, 59)]


def test_two_changes_at_the_same_time_are_two_revisions(site: Path, state: Path, clock: SettableClock) -> None:
    store = DocumentStore(site, state, clock)
    for number in range(4):
        store.replace(f"site: s{number}\n")
    assert revisions(state) == ["site: one\n", "site: s0\n", "site: s1\n", "site: s2\n"]


def test_a_directory_that_cannot_be_written_is_said_with_a_way_out(
    state: Path, clock: SettableClock, tmp_path: Path
) -> None:
    link = tmp_path / "site.yaml"
    link.symlink_to("/proc/version")  # in a directory that not even root may write
    with pytest.raises(EquipoiseError, match=r"site\.yaml cannot be replaced: .*; .* write the file and its directory"):
        DocumentStore(link, state, clock).replace("site: two\n")


def test_where_no_revision_can_be_kept_nothing_is_changed(site: Path, state: Path, clock: SettableClock) -> None:
    (state / "revisions").write_text("a file")
    with pytest.raises(EquipoiseError, match=r"kept in .*/revisions: File exists; make room, or let"):
        DocumentStore(site, state, clock).replace("site: two\n")
    assert site.read_text() == "site: one\n"
    assert sorted(os.listdir(site.parent)) == ["site.yaml", "state"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"x" * ((1 << 20) + 1), "more than 1 MiB"),
        (b"site: caf\xe9\n", "not UTF-8 at byte 9"),
        (None, "cannot be read"),
    ],
    ids=["large", "latin-1", "absent"],
)
def test_what_is_no_document_is_refused(
    site: Path, state: Path, clock: SettableClock, content: bytes | None, reason: str
) -> None:
    site.unlink()
    if content is not None:
        site.write_bytes(content)
    with pytest.raises(ConfigError, match=reason):
        DocumentStore(site, state, clock).read()

"""Which document came after which, kept in a file."""

from pathlib import Path

import pytest

from equipoise.base.errors import EquipoiseError
from equipoise.cluster.messages import Revision
from equipoise.cluster.revisions import History, Revisions, digest_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cluster" / "revision.json"


def seen(file: Path, *texts: str) -> Revisions:
    revisions = Revisions(file)
    for text in texts:
        assert revisions.see(text) is None
    return revisions


def test_each_change_has_the_next_number_and_outlives_a_restart(file: Path) -> None:
    history = seen(file, "a", "b", "b", "c").history
    assert history.revision == Revision(number=3, digest=digest_of("c"))
    assert seen(file, "c").history == history
    assert seen(file, "edited while nobody ran").history.revision.number == 4


def test_a_document_that_comes_back_is_a_new_revision(file: Path) -> None:
    old, now = seen(file, "a", "b").history, seen(file, "a").history
    assert now.revision.number == 3
    assert (now.relation(old), old.relation(now)) == ("ahead", "behind")


def test_documents_that_part_are_a_conflict_until_one_supersedes_the_other(tmp_path: Path) -> None:
    ours, theirs = seen(tmp_path / "ours", "a", "b"), seen(tmp_path / "theirs", "a", "x", "y")
    assert ours.history.relation(theirs.history) == "conflict"
    assert ours.supersede(theirs.history.revision) is None
    assert (ours.history.relation(theirs.history), theirs.history.relation(ours.history)) == ("ahead", "behind")
    assert ours.history.revision == Revision(number=4, digest=digest_of("b"))
    assert theirs.adopt(ours.history) is None
    assert Revisions(tmp_path / "theirs").history == ours.history


@pytest.mark.parametrize(("missed", "relation"), [(100, "behind"), (101, "conflict")])
def test_a_peer_may_have_missed_a_hundred_changes(tmp_path: Path, missed: int, relation: str) -> None:
    old = now = History(revision=Revision(number=1, digest=digest_of("start")))
    for number in range(missed):
        now = now.after(str(number))
    assert old.relation(now) == relation
    assert len(now.ancestors) == 100


def test_what_cannot_be_kept_is_said_and_tried_again(file: Path) -> None:
    revisions = seen(file, "a")
    file.unlink()
    (file / "in the way").mkdir(parents=True)
    for text in ("b", "b"):
        problem = revisions.see(text)
        assert problem is not None
        assert str(file) in problem
    assert revisions.history.revision.number == 2
    (file / "in the way").rmdir()
    file.rmdir()
    assert revisions.see("b") is None
    assert Revisions(file).history == revisions.history


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"revision": {"number": "x", "digest": 1}}', b"\xff"])
def test_a_file_that_cannot_be_read_is_refused_at_once(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(EquipoiseError, match=rf"{file} cannot be read.*mend the file, or remove it"):
        Revisions(file)

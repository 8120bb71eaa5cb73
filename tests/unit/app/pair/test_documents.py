"""One document on both machines: it reaches the other, or it is said that it did not, and nothing is merged."""

import asyncio
import socket
from functools import partial
from pathlib import Path

import pytest

from equipoise.app.pair import documents
from equipoise.base.errors import EquipoiseError
from equipoise.cluster.link import Link
from equipoise.cluster.messages import Document, Revision
from equipoise.cluster.revisions import digest_of
from equipoise.sim.ports import free_port
from tests.unit.app.pair.halves import FIRST, SECOND, Half, Two, document, joined, until_status
from tests.unit.engines.running import eventually


async def apart(two: Two, first: str, second: str) -> None:
    """Give each machine a document of its own while they cannot talk."""
    await two.second.end()
    two.second.file.write_text(second)
    assert (await two.first.apply(first)).peer_said
    again = Half(two.second.directories.state, "", two.segment)
    two.second = again
    await again.start()
    for half in two.both:
        await until_status(half, lambda now: now["revision"]["relation"] == "conflict")


def test_what_is_applied_on_either_reaches_the_other_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            for half, site in ((two.first, "one"), (two.second, "two")):
                text = document(site, two.port)
                preview = await half.apply(text)
                assert preview.peer_said == ""
                assert all(each.document == text for each in two.both)
                await two.agree(text)
                shown = [(await each.pair.status())["revision"] for each in two.both]
                assert shown[0] == shown[1]
                assert preview.revision == shown[0]["ours"]
            await asyncio.sleep(0.3)  # some greetings more, which change nothing
            assert [each.changes for each in two.both] == [2, 2]
            assert [event["revision"] for event in two.second.said("cluster.revision")] == [2]

    asyncio.run(scene())


def test_what_the_peer_would_refuse_changes_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            before = two.first.document
            two.second.refuses = "special"
            with pytest.raises(EquipoiseError, match="special cannot be served here"):
                await two.first.apply(document("special", two.port))
            assert [each.document for each in two.both] == [before, before]
            assert [each.changes for each in two.both] == [0, 0]
            two.first.refuses = "special"
            with pytest.raises(EquipoiseError, match=r"^special cannot be served here$"):  # our own words are nearer
                await two.first.apply(document("special", two.port))

    asyncio.run(scene())


def test_by_force_it_is_here_alone_until_the_peer_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_LOOKS_UNTIL_AGAIN", 3)
    text = ""

    async def scene() -> None:
        nonlocal text
        async with joined(tmp_path) as two:
            await two.meet()
            text = document("special", two.port)
            two.second.refuses = "special"
            preview = await two.first.apply(text, force=True)
            assert "special cannot be served here" in str(preview.peer_said)
            now = await until_status(two.first, lambda now: now["revision"]["relation"] == "ahead")
            assert "special cannot be served" in now["peer"]["problem"]
            now = await until_status(two.second, lambda now: now["revision"]["relation"] == "behind")
            assert "special cannot be served" in now["peer"]["problem"]
            await asyncio.sleep(0.5)  # it is tried again, and not said again
            assert [len(each.said("cluster.revision_refused")) for each in two.both] == [1, 1]
            two.second.refuses = ""
            await two.agree(text)
            assert [(await each.pair.status())["peer"]["problem"] for each in two.both] == [None, None]

    asyncio.run(scene())


def test_a_peer_that_was_away_gets_what_it_missed(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            await two.second.end()
            for site in ("one", "two", "three"):
                preview = await two.first.apply(document(site, two.port))
                assert "by itself" in str(preview.peer_said)
            two.second = Half(two.second.directories.state, "", two.segment)
            await two.second.start()
            await two.agree(document("three", two.port))
            assert two.second.changes == 1

    asyncio.run(scene())


def test_a_file_that_was_edited_while_nobody_ran_counts_as_newer(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            await two.second.end()
            text = document("edited", two.port)
            two.second.file.write_text(text)
            two.second = Half(two.second.directories.state, "", two.segment)
            await two.second.start()
            await two.agree(text)

    asyncio.run(scene())


def test_a_machine_that_is_silent_is_not_waited_for(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            await two.second.end()
            with socket.create_server((SECOND, two.port), backlog=64):  # it takes connections, and says nothing
                await until_status(
                    two.first,
                    lambda now: not now["peer"]["connected"] and "did not answer within" in now["peer"]["problem"],
                )
                async with asyncio.timeout(20):
                    preview = await two.first.apply(document("one", two.port))
                assert "did not answer within" in str(preview.peer_said)
            two.second = Half(two.second.directories.state, "", two.segment)
            await two.second.start()

    asyncio.run(scene())


@pytest.mark.parametrize("take", ["ours", "theirs"])
def test_two_documents_are_a_conflict_that_a_person_ends(tmp_path: Path, take: str) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            ours, theirs = document("ours", two.port), document("theirs", two.port, nodes="ab")
            await apart(two, ours, theirs)
            for half in two.both:
                await eventually(partial(half.said, "cluster.conflict"), "the conflict")
            shown = await two.first.pair.sync(None)
            assert shown["result"] == "conflict"
            assert {each["path"] for each in shown["difference"]} == {"site", "services.ct.nodes.b"}
            assert [each.document for each in two.both] == [ours, theirs]
            assert "could not talk" in str((await two.first.pair.take(await two.second.pair.document())).refused)
            done = await two.first.pair.sync(take)
            assert done["result"] == {"ours": "sent", "theirs": "taken"}[take]
            await two.agree({"ours": ours, "theirs": theirs}[take])
            assert [len(each.said("cluster.conflict")) for each in two.both] == [1, 1]
            assert (await two.second.pair.sync(None))["result"] == "same"
            kept = [each.read_text() for half in two.both for each in half.directories.state.glob("revisions/*.yaml")]
            assert {"ours": theirs, "theirs": ours}[take] in kept

    asyncio.run(scene())


def test_in_a_conflict_a_new_document_stays_where_it_is_given(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            await apart(two, document("ours", two.port), document("theirs", two.port))
            preview = await two.first.apply(document("again", two.port))
            assert "cluster sync" in str(preview.peer_said)
            assert two.second.document == document("theirs", two.port)
            await two.first.pair.sync("ours")
            await two.agree(document("again", two.port))

    asyncio.run(scene())


def test_two_documents_at_the_same_moment_are_a_conflict(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            for half in two.both:
                half.takes_s = 0.1
            ours, theirs = document("ours", two.port), document("theirs", two.port)
            async with asyncio.timeout(20):
                previews = await asyncio.gather(two.first.apply(ours), two.second.apply(theirs))
            assert [each.document for each in two.both] == [ours, theirs]
            assert all(each.peer_said for each in previews)
            for half in two.both:
                await until_status(half, lambda now: now["revision"]["relation"] == "conflict")
            await two.second.pair.sync("ours")
            await two.agree(theirs)

    asyncio.run(scene())


def test_a_peer_that_was_busy_gets_it_a_little_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_BUSY_S", 0.1)
    monkeypatch.setattr(documents, "_LOOKS_UNTIL_AGAIN", 3)

    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            two.second.takes_s = 0.5
            same = asyncio.ensure_future(two.second.apply(two.second.document))  # nothing new, but it takes long
            await asyncio.sleep(0.05)
            text = document("one", two.port)
            assert "at the moment" in str((await two.first.apply(text)).peer_said)
            await same
            await two.agree(text)

    asyncio.run(scene())


def test_another_port_is_followed_by_both(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            for half in two.both:
                await two.meet()
                for each in two.both:  # each reaches the other, and not just is reached
                    await until_status(each, lambda now: now["peer"]["connected"] and now["peer"]["problem"] is None)
                text = document("moved", free_port(FIRST, SECOND))
                said = (await half.apply(text)).peer_said
                assert said == "" or "gets it by itself" in str(said)  # the way there may be just being made
                for each in two.both:
                    each.events.clear()
                await two.meet()
                await two.agree(text)

    asyncio.run(scene())


def test_a_document_that_is_not_what_its_number_says_is_refused(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            ours = two.first.document
            older = await two.first.pair.document()
            await two.first.apply(document("one", two.port))
            wrong = Document(revision=Revision(number=9, digest=digest_of("other")), ancestors=(), text=ours)
            assert "another text" in str((await two.first.pair.take(wrong)).refused)
            assert (await two.first.pair.take(older)).refused is None  # and nothing changes
            await two.agree(document("one", two.port))

    asyncio.run(scene())


def test_a_state_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            before = two.first.document
            kept = two.second.directories.state / "cluster" / "revision.json"
            kept.unlink()
            (kept / "in the way").mkdir(parents=True)
            assert (await two.first.apply(document("one", two.port))).peer_said == ""
            said = [event["reason"] for event in two.second.said("task.hindered")]
            assert any(str(kept) in reason and "let the supervisor's user write" in reason for reason in said)
            revisions = two.second.directories.state / "revisions"
            for each in revisions.glob("*"):
                each.unlink()
            revisions.rmdir()
            revisions.write_text("in the way")
            preview = await two.first.apply(document("two", two.port))
            assert str(revisions) in str(preview.peer_said)
            with pytest.raises(EquipoiseError, match=str(revisions)):
                await two.second.apply(before)
            (kept / "in the way").rmdir()
            kept.rmdir()

    asyncio.run(scene())


def test_a_machine_alone_says_nothing_of_a_peer(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path, document("x"), document("y")) as two:
            two.first.directories.state.joinpath("cluster", "here.yaml").unlink()
            await two.first.read_again()
            preview = await two.first.apply(document("z"))
            assert (preview.revision, preview.peer_said) == (None, None)

    asyncio.run(scene())


def test_what_is_applied_while_the_document_of_the_peer_is_on_its_way_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        is_asked, may_answer = asyncio.Event(), asyncio.Event()

        async def slowly(link: Link) -> Document:
            said = await fetched(link)
            is_asked.set()
            await may_answer.wait()
            return said

        async with joined(tmp_path) as two:
            await two.meet()
            await apart(two, *(document(site, two.port) for site in ("one", "two")))
            fetched = Link.document
            monkeypatch.setattr(Link, "document", slowly)
            taking = asyncio.ensure_future(two.first.pair.sync("theirs"))
            await is_asked.wait()
            newest = document("newest", two.port)
            await two.first.apply(newest, force=True)
            may_answer.set()
            with pytest.raises(EquipoiseError, match="another document was put into force here meanwhile"):
                await taking
            assert two.first.document == newest
            assert (await two.first.pair.sync("theirs"))["result"] == "taken"
            await two.agree(document("two", two.port))

    asyncio.run(scene())

"""Two machines become a pair by a token, and stop being one; what cannot be is said, and leaves nothing behind."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from equipoise.base.errors import EquipoiseError
from equipoise.cluster.here import read_here
from equipoise.cluster.identity import peer_file
from equipoise.cluster.invitation import MAX_WRONG, read_token
from equipoise.cluster.wanted import WantedPair
from equipoise.plan.model import ManagedAddress
from equipoise.sim.ports import free_port
from tests.unit.app.pair.halves import FIRST, SECOND, Two, alone, document, joined, until_status
from tests.unit.engines.running import eventually


async def invited(two: Two, role: str | None = None) -> str:
    answer = await two.first.pair.join(WantedPair(f"{SECOND}:{two.port}", role, FIRST, "lo"), None)
    assert f"cluster join {FIRST}:{two.port} --token {answer['token']}" in answer["command"]
    return str(answer["token"])


async def accepted(two: Two, token: str, role: str | None = None) -> dict[str, Any]:
    return await two.second.pair.join(WantedPair(f"{FIRST}:{two.port}", role, SECOND, "lo"), token)


def test_by_a_token_two_machines_become_a_pair_with_the_document_of_the_first(tmp_path: Path) -> None:
    port = free_port(FIRST, SECOND)

    async def scene() -> None:
        async with alone(tmp_path, document("first", port), document("second")) as two:  # which knows no port
            two.port = port
            token = await invited(two)
            assert (await two.first.pair.status())["invitation"]["peer"] == SECOND
            done = await accepted(two, token)
            assert (done["state"], done["peer"], done["role"]) == ("joined", FIRST, "secondary")
            await two.agree(document("first", port))
            now = await until_status(two.first, lambda now: now["joined"] and now["peer"]["connected"])
            assert (now["role"], now["peer"]["role"], now["invitation"]) == ("primary", "secondary", None)
            await eventually(lambda: all(half.said("cluster.joined") for half in two.both))
            kept = [each.read_text() for each in two.second.directories.state.glob("revisions/*.yaml")]
            assert document("second") in kept
            with pytest.raises(EquipoiseError):  # it works once
                await accepted(two, token)

    asyncio.run(scene())


@pytest.mark.parametrize("by_first", [True, False])
def test_either_may_leave_and_both_may_join_again(tmp_path: Path, by_first: bool) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            one, other = two.both if by_first else two.both[::-1]
            assert await one.pair.leave() == {"peer": SECOND if by_first else FIRST, "peer_knows": True}
            assert not (await one.pair.status())["configured"]
            await until_status(other, lambda now: now["configured"] and not now["joined"])  # and has the addresses
            await eventually(lambda: other.said("cluster.left"))
            assert [each.said("cluster.left")[0]["by"] for each in (one, other)] == ["here", "peer"]
            with pytest.raises(EquipoiseError, match="nothing to leave"):
                await one.pair.leave()
            await two.second.apply(document("later", two.port))  # the first one's document holds all the same
            before = two.first.document
            for half in two.both:
                half.events.clear()
            assert (await accepted(two, await invited(two)))["state"] == "joined"
            await two.agree(before)
            await two.meet()

    asyncio.run(scene())


def test_a_machine_that_could_not_serve_alone_stays_one_of_the_pair(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            state = two.second.directories.state
            before = read_here(state), peer_file(state).read_text()
            two.second.refuses = "site"
            with pytest.raises(EquipoiseError, match="stays one of the pair: site cannot be served here"):
                await two.second.pair.leave()
            assert (read_here(state), peer_file(state).read_text()) == before
            assert two.first.said("cluster.left") == []
            two.second.refuses = ""
            assert (await two.second.pair.leave())["peer_knows"]

    asyncio.run(scene())


def test_nobody_leaves_to_claim_what_a_peer_has_that_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            alone_it_claims = replace(two.first.plan, addresses=(ManagedAddress("192.0.2.100", "lo"),))
            monkeypatch.setattr(two.first, "alone", lambda: alone_it_claims)
            with pytest.raises(EquipoiseError, match=f"bring up 192.0.2.100 by .*, and {SECOND}, which stays"):
                await two.first.pair.leave()
            assert (await two.first.pair.status())["joined"]
            assert two.second.said("cluster.left") == []
            await two.second.end()
            two.first.clock.ahead_s += 60  # so that it was last heard long ago
            assert await two.first.pair.leave() == {"peer": SECOND, "peer_knows": False}

    asyncio.run(scene())


def test_leaving_a_peer_that_is_away_is_said(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            await two.second.end()
            assert await two.first.pair.leave() == {"peer": SECOND, "peer_knows": False}
            assert not peer_file(two.first.directories.state).exists()
            assert read_here(two.first.directories.state) is None

    asyncio.run(scene())


def test_roles_are_agreed_on(tmp_path: Path) -> None:
    port = free_port(FIRST, SECOND)

    async def scene() -> None:
        async with alone(tmp_path, document(port=port), document(port=port)) as two:
            two.port = port
            token = await invited(two, "primary")
            with pytest.raises(EquipoiseError, match="both machines were told to be the primary"):
                await accepted(two, token, "primary")
            assert read_here(two.second.directories.state) is None
            assert (await accepted(two, token))["role"] == "secondary"  # the token was not used up
            await two.agree(document(port=port))  # the same text on both from the beginning
            await two.first.pair.leave()
            await eventually(lambda: two.second.said("cluster.left"))
            assert (await accepted(two, await invited(two), "primary"))["role"] == "primary"
            await until_status(two.first, lambda now: now["role"] == "secondary")

    asyncio.run(scene())


def test_a_token_that_is_over_or_another_lets_nobody_in(tmp_path: Path) -> None:
    port = free_port(FIRST, SECOND)

    async def scene() -> None:
        async with alone(tmp_path, document(port=port), document(port=port)) as two:
            two.port = port
            token = await invited(two)
            with pytest.raises(EquipoiseError, match="mistyped"):
                await accepted(two, token[:-1] + ("A" if token[-1] != "A" else "C"))
            wanted = WantedPair(f"{FIRST}:{free_port(FIRST, SECOND)}", None, SECOND, "lo")
            other = await two.second.pair.join(wanted, None)
            with pytest.raises(EquipoiseError, match="not the one that made the token"):
                await accepted(two, str(other["token"]))
            assert await two.second.pair.leave() == {"peer": "", "peer_knows": False}  # the invitation is withdrawn
            two.first.clock.ahead_s = 3600.0
            assert (await two.first.pair.status())["invitation"] is None
            with pytest.raises(EquipoiseError, match="this token is over"):
                await accepted(two, token)
            for half in two.both:
                assert read_here(half.directories.state) is None
                assert not (await half.pair.status())["configured"]

    asyncio.run(scene())


def test_after_too_many_wrong_secrets_the_pair_goes_on(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            wrong = str(replace(read_token(await invited(two)), secret="A" * 16))
            for _ in range(MAX_WRONG):
                with pytest.raises(EquipoiseError, match="does not know this token"):
                    await accepted(two, wrong)
            assert (await two.first.pair.status())["invitation"] is None
            await until_status(two.second, lambda now: now["peer"]["connected"] and now["peer"]["problem"] is None)

    asyncio.run(scene())


def test_inviting_in_a_pair_lets_it_go_on_once_nobody_came(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as two:
            await two.meet()
            await invited(two)
            await invited(two)  # again, as the first token was lost
            assert (await two.first.pair.status())["invitation"]["peer"] == SECOND
            await two.first.pair.leave()  # withdraws it, and no more
            assert (await two.first.pair.status())["joined"]
            assert two.first.said("cluster.left") == []
            await until_status(two.second, lambda now: now["peer"]["connected"] and now["peer"]["problem"] is None)

    asyncio.run(scene())


@pytest.mark.parametrize("is_first", [True, False])
def test_a_machine_that_cannot_be_one_of_a_pair_is_as_it_was(tmp_path: Path, is_first: bool) -> None:
    port = free_port(FIRST, SECOND)

    async def scene() -> None:
        async with alone(tmp_path, document(port=port), document("second")) as two:
            two.port = port
            unable = two.first if is_first else two.second
            token = await invited(two)
            unable.refuses = "site"
            if is_first:
                joining = asyncio.ensure_future(accepted(two, token))
                await eventually(lambda: two.first.hindered)
                assert "cannot be one of a pair: site cannot be served" in two.first.hindered[0]
                joining.cancel()
                await asyncio.gather(joining, return_exceptions=True)
            else:
                with pytest.raises(EquipoiseError, match="cannot be one of a pair: site cannot be served"):
                    await accepted(two, token)
            assert read_here(unable.directories.state) is None
            assert not peer_file(unable.directories.state).exists()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("peer", "address", "said"),
    [
        ("pacs", FIRST, "not an IP address"),
        ("10.0.0.3:x", FIRST, "not the address"),
        (SECOND, "192.0.2.9", "does not have the address 192.0.2.9"),
        (SECOND, "::1", "not of one family"),
        ("192.0.2.100", FIRST, "services listen on 192.0.2.100"),
    ],
)
def test_what_cannot_be_invited_is_said(tmp_path: Path, peer: str, address: str, said: str) -> None:
    async def scene() -> None:
        async with alone(tmp_path, document(), document()) as two:
            if said:
                with pytest.raises(EquipoiseError, match=said):
                    await two.first.pair.join(WantedPair(peer, None, address), None)
            for token in ("", "eqp1-X", "x" * 500):
                with pytest.raises(EquipoiseError):
                    await two.first.pair.join(WantedPair(SECOND, None, address), token)
            for ask in (two.first.pair.leave(), two.first.pair.sync(None), two.first.pair.handover([], True)):
                with pytest.raises(EquipoiseError):
                    await ask
            with pytest.raises(EquipoiseError, match="in no pair"):
                await two.first.pair.handover([], here=False)

    asyncio.run(scene())

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from equipoise.base.errors import EngineError
from equipoise.engines.haproxy.master import Family, parse_family
from equipoise.engines.haproxy.runtime import NoAnswerError, NobodyError, ask, refusals, tell, who

INFO = "Name: HAProxy\nVersion: 2.6.12\nPid: 7\ndescription: a site, {}\nStopping: 0\n\n"


def play(path: Path, answer: Callable[[str], str | None], scene: Callable[[Path], Awaitable[None]]) -> None:
    """Run a scene with somebody who answers on the socket; None says nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = answer((await reader.read()).decode())
        if said is None:
            await asyncio.sleep(10)
        else:
            writer.write(said.encode())
        writer.close()

    async def run() -> None:
        server = await asyncio.start_unix_server(serve, path)
        await scene(path)
        server.close()

    uvloop.run(run())


def test_several_commands_share_a_line_and_long_ones_are_cut(tmp_path: Path) -> None:
    heard: list[str] = []

    def answer(line: str) -> str:
        heard.append(line)
        return INFO.format("d1") + "\n" * line.count(";")

    async def scene(path: Path) -> None:
        await tell(path, "d1", [f"set table t key 10.0.{n // 250}.{n % 250} data.server_id 1" for n in range(1000)])

    play(tmp_path / "s", answer, scene)
    assert 3 < len(heard) < 20
    assert all(line.startswith("show info;set table t key") and line.endswith("\n") for line in heard)
    assert max(map(len, heard)) < 8300
    assert sum(line.count("set table") for line in heard) == 1000


def test_a_command_that_is_not_taken_is_named_and_the_rest_is_sent(tmp_path: Path) -> None:
    async def scene(path: Path) -> None:
        with pytest.raises(EngineError, match=r"did not take `two`: No such server\. \(and 1 more\)"):
            await tell(path, "d1", ["one", "two", "three"])

    play(tmp_path / "s", lambda line: INFO.format("d1") + "\nNo such server.\n\nUnknown command\n  help\n\n", scene)


def test_commands_wait_for_the_worker_that_they_are_for(tmp_path: Path) -> None:
    heard: list[str] = []

    def answer(line: str) -> str:
        heard.append(line)
        return INFO.format("old" if len(heard) < 3 else "new") + "\n"

    async def scene(path: Path) -> None:
        await tell(path, "new", ["one"])

    play(tmp_path / "s", answer, scene)
    assert len(heard) == 3


def test_another_worker_for_too_long_is_an_error(tmp_path: Path) -> None:
    async def scene(path: Path) -> None:
        with pytest.raises(EngineError, match="worker 7 runs 'a site, old', which is not new"):
            await tell(path, "new", ["one"], timeout_s=0.2)

    play(tmp_path / "s", lambda line: INFO.format("old") + "\n", scene)


def test_silence_nobody_and_strangers_are_told_apart(tmp_path: Path) -> None:
    async def silent(path: Path) -> None:
        with pytest.raises(NoAnswerError, match=r"did not answer on .* within 0\.2 s"):
            await ask(path, "show info", 0.2)

    async def stranger(path: Path) -> None:
        with pytest.raises(EngineError, match="is no HAProxy: 'hello'"):
            await who(path)
        with pytest.raises(NobodyError, match="no HAProxy answers on"):
            await ask(path.with_name("none"), "show info")

    play(tmp_path / "s", lambda line: None, silent)
    play(tmp_path / "t", lambda line: "hello\n", stranger)


def test_refusals_belong_to_their_commands() -> None:
    assert list(refusals(["a", "b"], ["", ""])) == []
    assert list(refusals(["a", "b"], ["bad", "more of it", "", ""])) == ["`a`: bad"]


def test_a_family_is_read() -> None:
    lines = [
        "#<PID>          <type>          <reloads>       <uptime>        <version>      ",
        "2840            master          2 [failed: 1]   0d00h00m06s     2.6.12-1+deb12u4",
        "# workers",
        "3072            worker          1               0d00h00m04s     2.6.12-1+deb12u4",
        "# old workers",
        "2865            worker          3               0d00h00m09s     2.6.12-1+deb12u4",
        "# programs",
        "",
    ]
    assert parse_family(lines) == Family(2840, 1, (3072,), (2865,))
    with pytest.raises(NobodyError):
        parse_family([""])

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from equipoise.base.errors import EngineError
from equipoise.engines.gateway.channel import Channel
from equipoise.engines.gateway.messages import (
    VERSION,
    Body,
    Done,
    Hello,
    Message,
    Observe,
    SetNodes,
    Stop,
    Welcome,
    encode,
)
from equipoise.plan.states import NodeState

Answer = Callable[[Channel, Message], None]
MANY = 600  # descriptors: more than one message to the kernel can carry


class End:
    """One end of a connection that remembers what it heard."""

    def __init__(self, sock: socket.socket, answer: Answer | None = None) -> None:
        self._answer = answer
        self.heard: list[tuple[Body, list[socket.socket]]] = []
        self.news = asyncio.Event()
        self.ends: list[str] = []
        self.channel = Channel(sock, self._message, self._closed)

    def _message(self, channel: Channel, message: Message, sockets: list[socket.socket]) -> None:
        self.heard.append((message.body, sockets))
        self.news.set()
        if self._answer is not None:
            self._answer(channel, message)

    def _closed(self, channel: Channel, reason: str) -> None:
        self.ends.append(reason)
        self.news.set()

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not done():
                self.news.clear()
                await self.news.wait()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    yield one, other
    one.close()
    other.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    uvloop.run(work)


def test_messages_arrive_in_their_order(pair: tuple[socket.socket, socket.socket]) -> None:
    async def work() -> None:
        left, right = End(pair[0]), End(pair[1])
        for number in range(100):
            left.channel.send(Stop(drain_s=number))
        await right.until(lambda: len(right.heard) == 100)
        assert [body for body, _ in right.heard] == [Stop(drain_s=number) for number in range(100)]
        left.channel.close()
        await right.until(lambda: bool(right.ends))
        right.channel.close()

    run(work())


def test_more_descriptors_than_the_kernel_takes_at_once_arrive_with_their_message(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    async def work() -> None:
        left, right = End(pair[0]), End(pair[1])
        ours = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(MANY)]
        inodes = [os.fstat(sock.fileno()).st_ino for sock in ours]
        left.channel.send(Observe())
        left.channel.send(Hello(version=VERSION), ours[:1])
        left.channel.send(Observe())
        left.channel.send(Hello(version=VERSION), ours)
        for sock in ours:
            sock.close()  # ours may be gone before they have left
        await right.until(lambda: len(right.heard) == 4)
        assert [len(sockets) for _, sockets in right.heard] == [0, 1, 0, MANY]
        assert [os.fstat(sock.fileno()).st_ino for sock in right.heard[3][1]] == inodes
        for _, sockets in right.heard:
            for sock in sockets:
                sock.close()
        left.channel.close()
        right.channel.close()

    run(work())


def test_a_slow_reader_gets_everything(pair: tuple[socket.socket, socket.socket]) -> None:
    """The kernel takes a part; the rest, descriptors included, goes when there is room."""
    states = {f"pacs/{number}": NodeState("up", number) for number in range(40_000)}

    async def work() -> None:
        left = End(pair[0])
        with socket.socket() as ours:
            for _ in range(3):
                left.channel.send(SetNodes(states=states, at_s=0.0), [ours])
        await asyncio.sleep(0.05)  # nobody reads
        right = End(pair[1])
        await right.until(lambda: len(right.heard) == 3)
        for body, sockets in right.heard:
            assert body == SetNodes(states=states, at_s=0.0)
            assert len(sockets) == 1
            sockets[0].close()
        left.channel.close()
        right.channel.close()

    run(work())


def test_a_reader_that_stopped_costs_no_more_than_the_bound(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("equipoise.engines.gateway.channel.MAX_UNSENT_BYTES", 1 << 20)
    states = {f"pacs/{number}": NodeState("up", number) for number in range(1000)}

    async def work() -> None:
        left = End(pair[0])
        before = len(os.listdir("/proc/self/fd"))
        with socket.socket() as ours:
            while not left.channel.closed:
                left.channel.send(SetNodes(states=states, at_s=0.0), [ours])
        assert len(left.ends) == 1
        assert "the other end took none" in left.ends[0]
        assert len(os.listdir("/proc/self/fd")) == before - 1  # the channel's own; none waits for ever
        left.channel.send(Observe())

    run(work())


def test_a_long_line_without_end_is_refused(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("equipoise.engines.gateway.channel.MAX_LINE_BYTES", 1 << 16)

    async def work() -> None:
        right = End(pair[1])
        pair[0].sendall(b"x" * ((1 << 16) + 1))
        await right.until(lambda: bool(right.ends))
        assert right.ends == ["a line of more than 65536 bytes"]

    run(work())


@pytest.mark.parametrize("line", [b"{}\n", b"\xff\xfe\n", b'{"body":{"type":"dance"}}\n', b"\n"])
def test_what_another_version_says_is_not_guessed_at(pair: tuple[socket.socket, socket.socket], line: bytes) -> None:
    async def work() -> None:
        right = End(pair[1])
        pair[0].sendall(line)
        await right.until(lambda: bool(right.ends))
        assert right.ends[0].startswith("not understood")
        assert right.heard == []

    run(work())


def test_descriptors_that_were_announced_and_did_not_come_end_the_channel(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """The kernel drops descriptors that a process has no room for (its file limit): MSG_CTRUNC."""

    async def work() -> None:
        right = End(pair[1])
        pair[0].sendall(encode(Message(body=Observe(), fds=2)))
        await right.until(lambda: bool(right.ends))
        assert "2 descriptors were announced, 0 came" in right.ends[0]
        assert right.heard == []

    run(work())


def echo(channel: Channel, message: Message) -> None:
    match message.body:
        case Stop(drain_s=drain_s):
            channel.send(Done(problem=f"{drain_s:g}"), answers=message.number)
        case Hello():
            with socket.socket() as ours:
                welcome = Welcome(version=1, software="x", pid=1, worker=0, retiring=False)
                channel.send(welcome, [ours], answers=message.number)


def test_each_question_gets_its_own_answer(pair: tuple[socket.socket, socket.socket]) -> None:
    async def work() -> None:
        held: list[Message] = []
        left, right = End(pair[0]), End(pair[1], lambda channel, message: held.append(message))
        asked = [asyncio.create_task(left.channel.ask(Stop(drain_s=number))) for number in range(5)]
        await right.until(lambda: len(held) == 5)
        left.channel.send(Observe())  # no question
        for message in reversed(held):
            echo(right.channel, message)
        answers = [body for body, _ in await asyncio.gather(*asked)]
        assert answers == [Done(problem=str(number)) for number in range(5)]
        assert left.heard == []
        left.channel.close()
        right.channel.close()

    run(work())


def test_an_answer_may_bring_sockets(pair: tuple[socket.socket, socket.socket]) -> None:
    async def work() -> None:
        left, right = End(pair[0]), End(pair[1], echo)
        body, sockets = await left.channel.ask(Hello(version=VERSION))
        assert isinstance(body, Welcome)
        assert len(sockets) == 1
        sockets[0].close()
        left.channel.close()
        right.channel.close()

    run(work())


def test_an_answer_that_comes_too_late_is_dropped_with_its_sockets(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    async def work() -> None:
        left, right = End(pair[0]), End(pair[1])
        with pytest.raises(EngineError, match=r"did not answer within 0\.01 s"):
            await left.channel.ask(Hello(version=VERSION), timeout_s=0.01)
        await right.until(lambda: len(right.heard) == 1)
        before = len(os.listdir("/proc/self/fd"))
        echo(right.channel, Message(body=Hello(version=VERSION), number=1))
        right.channel.send(Observe())
        await left.until(lambda: bool(left.heard))
        assert [body for body, _ in left.heard] == [Observe()]
        assert len(os.listdir("/proc/self/fd")) == before
        left.channel.close()
        right.channel.close()

    run(work())


def test_who_waits_for_an_answer_is_told_that_none_will_come(pair: tuple[socket.socket, socket.socket]) -> None:
    async def work() -> None:
        left, right = End(pair[0]), End(pair[1])
        asked = asyncio.create_task(left.channel.ask(Observe()))
        await right.until(lambda: bool(right.heard))
        right.channel.close()
        with pytest.raises(EngineError, match="ended: the other end closed it"):
            await asked
        assert left.ends == ["the other end closed it"]
        with pytest.raises(EngineError, match="is closed"):
            await left.channel.ask(Observe())
        left.channel.close("again")
        assert len(left.ends) == 1

    run(work())


def test_an_end_that_closes_in_a_callback_hears_no_more(pair: tuple[socket.socket, socket.socket]) -> None:
    async def work() -> None:
        left = End(pair[0])
        right = End(pair[1], lambda channel, _: channel.close("enough"))
        for _ in range(3):
            left.channel.send(Observe())
        await left.until(lambda: bool(left.ends))
        assert len(right.heard) == 1
        assert right.ends == ["enough"]

    run(work())


def test_a_line_may_come_a_byte_at_a_time(pair: tuple[socket.socket, socket.socket]) -> None:
    async def work() -> None:
        right = End(pair[1])
        for byte in encode(Message(body=Stop(drain_s=1.5), number=3)):
            pair[0].send(bytes([byte]))
            await asyncio.sleep(0)
        await right.until(lambda: bool(right.heard))
        assert right.heard[0][0] == Stop(drain_s=1.5)
        right.channel.close()

    run(work())

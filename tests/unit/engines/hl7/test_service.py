"""Senders' and receivers' connections on real sockets: cuts, crowds, slow readers, half-closed ones, TLS, leaving."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from equipoise.base.tls import client_context, server_context
from equipoise.engines.gateway.hl7.large import LARGE_BYTES
from equipoise.plan.model import NodeTls, Tls
from equipoise.proto.hl7 import read_header
from equipoise.proto.mllp import Framing
from tests.system.certificates import Authority
from tests.unit.engines.hl7.running import Receiver, Running, Wire, dial, eventually, play
from tests.unit.engines.hl7.scene import LATER, NEVER, acknowledgement, batch, message

MIB = 1 << 20
LONG_ANSWER = acknowledgement() + b"OBX|" + b"x" * (5 * MIB)


async def silent(wire: Wire, content: bytes) -> None:
    """Take a message and say nothing."""


async def deaf(wire: Wire, content: bytes) -> None:
    """Read nothing more."""
    await asyncio.sleep(50)


async def long(wire: Wire, content: bytes) -> None:
    """Answer with five megabytes."""
    wire.send(LONG_ANSWER.replace(b"|1\r", b"|" + read_header(content).control_id + b"\r", 1))


def grown(control_id: str, size: int) -> bytes:
    return message(control_id) + b"OBX|" + b"x" * size


def test_one_byte_a_segment() -> None:
    async def scene(running: Running) -> None:
        sender = await dial(await running.serve(Receiver()))
        for byte in Framing().wrap(message()):
            sender.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert await sender.frame() == acknowledgement()
        sender.close()

    play(scene)


def test_a_pause_within_a_message() -> None:
    async def scene(running: Running) -> None:
        sender = await dial(await running.serve(Receiver()))
        data = Framing().wrap(message())
        for piece in (data[:10], data[10:40], data[40:]):
            sender.writer.write(piece)
            await asyncio.sleep(0.4)
        assert await sender.frame() == acknowledgement()
        sender.close()

    play(scene)


def test_junk_between_and_a_last_cr_that_is_missing() -> None:
    async def scene(running: Running) -> None:
        sender = await dial(await running.serve(Receiver()))
        sender.writer.write(b"\r\n\0" + Framing().wrap(message("1"))[:-1] + b"")
        assert await sender.frame() == acknowledgement("1")
        sender.writer.write(b"\r\r\n" + Framing().wrap(message("2")))
        assert await sender.frame() == acknowledgement("2")
        sender.close()

    play(scene)


def test_several_in_a_segment_are_answered_in_their_order() -> None:
    async def scene(running: Running) -> None:
        receiver = Receiver()
        sender = await dial(await running.serve(receiver))
        sender.send(*(message(str(number)) for number in range(100)))
        assert [await sender.frame() for _ in range(100)] == [acknowledgement(str(number)) for number in range(100)]
        assert receiver.taken == [message(str(number)) for number in range(100)]
        sender.close()

    play(scene)


def test_thousands_that_need_no_answer_in_one_write() -> None:
    async def scene(running: Running) -> None:
        receiver = Receiver()
        sender = await dial(await running.serve(receiver))
        sender.send(*(message(str(number), NEVER) for number in range(5000)))
        await eventually(lambda: len(receiver.taken) == 5000, "5000 messages")
        assert receiver.taken == [message(str(number), NEVER) for number in range(5000)]
        sender.close()

    play(scene)


def test_the_next_message_hurries_one_that_was_not_written_when_it_came() -> None:
    async def scene(running: Running) -> None:
        receiver = Receiver(silent)
        sender = await dial(await running.serve(receiver, ack_timeout_s=6))
        started_s = asyncio.get_running_loop().time()
        sender.send(message("1", LATER), message("2", LATER))
        await eventually(lambda: len(receiver.taken) == 2)
        took_s = asyncio.get_running_loop().time() - started_s
        sender.close()
        assert took_s < 5

    play(scene)


def test_a_sender_that_sends_no_more_gets_its_answers() -> None:
    async def scene(running: Running) -> None:
        sender = await dial(await running.serve(Receiver()))
        sender.send(message("1"), message("2"))
        sender.writer.write_eof()
        assert [await sender.frame() for _ in range(3)] == [acknowledgement("1"), acknowledgement("2"), None]
        assert (await running.one_ended()).ended == "closed"

    play(scene)


def test_a_sender_that_sends_no_more_gets_a_long_answer_whole() -> None:
    async def scene(running: Running) -> None:
        sender = await dial(await running.serve(Receiver(long)), window=4096)
        sender.send(message("1"))
        sender.writer.write_eof()
        await asyncio.sleep(0.5)
        got = await sender.frame()
        sender.close()
        assert got == LONG_ANSWER

    play(scene)


def test_who_leaves_is_told_with_its_last_answer() -> None:
    async def scene(running: Running) -> None:
        receiver = Receiver(silent)
        sender = await dial(await running.serve(receiver))
        idle = await dial(running.place.port)
        sender.send(message("1"), message("2"))
        await eventually(lambda: receiver.taken)
        running.service.leave()
        assert await idle.frame() is None
        receiver.wires[0].send(acknowledgement("1"))
        assert [await sender.frame(), await sender.frame()] == [acknowledgement("1"), None]
        assert receiver.taken == [message("1")], "the second one is the sender's to send again"
        assert [event.ended for event in running.ended()] == ["drained", "drained"]
        sender.close()
        idle.close()

    play(scene)


def test_who_leaves_is_told_with_its_last_answer_also_if_that_is_long() -> None:
    async def scene(running: Running) -> None:
        receiver = Receiver(silent)
        sender = await dial(await running.serve(receiver), window=4096)
        sender.send(message("1"))
        await eventually(lambda: receiver.taken)
        running.service.leave()
        receiver.wires[0].send(LONG_ANSWER)
        await asyncio.sleep(0.5)
        got = await sender.frame()
        sender.close()
        assert got == LONG_ANSWER

    play(scene)


def test_a_sender_that_reads_slowly_gets_a_long_answer_whole() -> None:
    async def scene(running: Running) -> None:
        sender = await dial(await running.serve(Receiver(long)), window=4096)
        sender.send(message("1"), message("2"))
        await asyncio.sleep(0.5)
        assert await sender.frame() == LONG_ANSWER
        assert await sender.frame() == LONG_ANSWER.replace(b"|1\r", b"|2\r", 1)
        sender.close()

    play(scene)


def test_a_sender_that_does_not_take_its_answer_has_stalled() -> None:
    async def scene(running: Running) -> None:
        sender = await dial(await running.serve(Receiver(long), stall_timeout_s=1), window=4096)
        sender.send(message("1"))
        assert (await running.one_ended()).ended == "stalled"
        sender.close()

    play(scene)


def test_the_answers_of_a_sender_that_takes_none_do_not_fill_memory() -> None:
    async def scene(running: Running) -> None:
        receiver = Receiver(long)
        sender = await dial(await running.serve(receiver), window=4096)
        sender.send(*(message(str(number)) for number in range(12)))
        await asyncio.sleep(1)
        taken = len(receiver.taken)
        sender.writer.transport.abort()
        assert taken <= 4, "each answer has 5 MB"

    play(scene)


def test_a_receiver_that_takes_no_message_has_stalled() -> None:
    async def scene(running: Running) -> None:
        receiver = Receiver(deaf)
        sender = await dial(await running.serve(receiver, stall_timeout_s=1))
        sender.send(message("0", NEVER), grown("1", 20 * MIB))
        assert await sender.frame() is None
        ended = await running.one_ended()
        assert (ended.ended, "took nothing of ADT^A01 1 for 1 s" in ended.reason) == ("unacknowledged", True)
        assert running.service.dispatch.delivery.counting.receivers_closed == {"stalled": 1}
        sender.close()

    play(scene)


def test_long_messages_of_two_senders_arrive_whole() -> None:
    async def scene(running: Running) -> None:
        receiver = Receiver()
        port = await running.serve(receiver)
        contents = [grown(str(number), 30 * MIB) for number in range(2)]
        senders = [await dial(port) for _ in contents]
        for sender, content in zip(senders, contents, strict=True):
            sender.send(content)
        for number, sender in enumerate(senders):
            assert await sender.frame() == acknowledgement(str(number))
            sender.close()
        assert sorted(receiver.taken) == contents

    play(scene)


def test_only_four_long_messages_are_read_at_a_time_and_small_ones_pass_them() -> None:
    async def scene(running: Running) -> None:
        port = await running.serve(Receiver())
        crowd = [await dial(port) for _ in range(6)]
        for number, sender in enumerate(crowd):
            sender.writer.write(Framing().wrap(grown(str(number), 4 * MIB))[:-1000])
        await asyncio.sleep(0.3)
        assert running.ended() == []
        senders = running.service._senders
        await eventually(lambda: sum(each.bytes_in > 3.9 * MIB for each in senders) == 4, "four long ones read")
        await asyncio.sleep(0.3)
        assert sorted(each.bytes_in > 2 * MIB for each in senders) == [False] * 2 + [True] * 4
        small = await dial(port)
        small.send(message("small"))
        assert await small.frame() == acknowledgement("small")
        for number, sender in enumerate(crowd):
            sender.writer.write(Framing().wrap(grown(str(number), 4 * MIB))[-1000:])
        for number, sender in enumerate(crowd):
            assert await sender.frame() == acknowledgement(str(number))
        for sender in (*crowd, small):
            sender.close()

    play(scene)


def test_behind_a_message_under_way_only_a_little_is_read() -> None:
    async def scene(running: Running) -> None:
        receiver = Receiver(silent)
        sender = await dial(await running.serve(receiver))
        sender.send(message("1"))
        await eventually(lambda: receiver.taken)
        sender.writer.write(Framing().wrap(grown("2", 20 * MIB))[:-1000])
        await asyncio.sleep(1)
        (connection,) = running.service._senders
        read = connection.bytes_in
        sender.writer.transport.abort()
        receiver.wires[0].send(acknowledgement("1"))
        assert read < LARGE_BYTES + MIB

    play(scene)


@pytest.mark.parametrize(
    ("said", "ended"),
    [
        (Framing().wrap(b"GET / HTTP/1.1"), "malformed"),
        (Framing().wrap(message().decode().encode("utf-16")), "malformed"),
        (Framing().wrap(message()[:3]), "malformed"),
        (b"\x0b" + bytes(70_000), "too_long"),
    ],
    ids=["not HL7", "UTF-16", "short MSH", "too long"],
)
def test_what_no_sender_should_say_ends_its_connection(said: bytes, ended: str) -> None:
    async def scene(running: Running) -> None:
        receiver = Receiver()
        sender = await dial(await running.serve(receiver, max_message_bytes=65536))
        sender.writer.write(said)
        assert await sender.frame() is None
        assert (await running.one_ended()).ended == ended
        assert receiver.taken == []
        sender.close()

    play(scene)


def test_a_sender_that_leaves_a_message_unfinished_has_stalled() -> None:
    async def scene(running: Running) -> None:
        sender = await dial(await running.serve(Receiver(), stall_timeout_s=1))
        sender.writer.write(b"\x0bMSH|")
        assert await sender.frame() is None
        ended = await running.one_ended()
        assert ended.ended == "stalled"
        assert ended.duration_s > 0.9
        sender.close()

    play(scene)


def test_a_held_message_goes_with_a_sender_that_is_closed_for_what_follows_it() -> None:
    async def scene(running: Running) -> None:
        sender = await dial(await running.serve(max_message_bytes=65536, hold_s=30))
        sender.send(message())
        await eventually(lambda: running.service.dispatch.held)
        sender.writer.write(b"\x0b" + bytes(70_000))
        assert await sender.frame() is None
        assert running.service.dispatch.held == 0
        assert [(count.type, count.answer) for count in (await running.one_ended()).messages] == []
        sender.close()

    play(scene)


def test_a_batch_passes_both_ways() -> None:
    async def scene(running: Running) -> None:
        receiver = Receiver(lambda wire, content: _sent(wire, acknowledgement("other")))
        sender = await dial(await running.serve(receiver))
        sender.send(batch())
        assert await sender.frame() == acknowledgement("other")
        assert receiver.taken == [batch()]
        sender.close()

    play(scene)


async def _sent(wire: Wire, content: bytes) -> None:
    wire.send(content)


async def in_release_2(wire: Wire, content: bytes) -> None:
    if len(content) > 1:
        wire.send(b"\x06", acknowledgement(read_header(content).control_id.decode()))


def test_release_2() -> None:
    async def scene(running: Running) -> None:
        receiver = Receiver(in_release_2)
        sender = await dial(await running.serve(receiver, mllp_release=2))
        for number in "12":
            sender.send(message(number))
            assert [await sender.frame(), await sender.frame()] == [b"\x06", acknowledgement(number)]
            sender.send(b"\x06")
        await eventually(lambda: len(receiver.taken) == 4)
        assert receiver.taken == [message("1"), b"\x06", message("2"), b"\x06"]
        assert len(receiver.wires) == 1
        sender.close()

    play(scene)


def test_release_2_messages_are_told_with_the_end_of_their_sender() -> None:
    async def scene(running: Running) -> None:
        sender = await dial(await running.serve(Receiver(in_release_2), mllp_release=2))
        sender.send(message())
        assert [await sender.frame(), await sender.frame()] == [b"\x06", acknowledgement()]
        sender.send(b"\x06")
        sender.close()
        told = (await running.one_ended()).messages
        assert [(count.type, count.answer, count.count) for count in told] == [("ADT^A01", "AA", 1)]

    play(scene)


def test_release_2_a_sender_that_goes_on_without_committing_is_not_kept_waiting() -> None:
    async def scene(running: Running) -> None:
        sender = await dial(await running.serve(Receiver(in_release_2), mllp_release=2, ack_timeout_s=6))
        started_s = asyncio.get_running_loop().time()
        sender.send(message("1"), message("2"))
        got = [await sender.frame() for _ in range(4)]
        took_s = asyncio.get_running_loop().time() - started_s
        sender.close()
        assert got == [b"\x06", acknowledgement("1"), b"\x06", acknowledgement("2")]
        assert took_s < 5

    play(scene)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    good, ca = authority.issue("good"), str(authority.ca_file)
    return {
        "tls": Tls(str(good.cert), str(good.key), None, "1.2", (), "x"),
        "node_tls": NodeTls(ca, "authority", None, None, None, "1.2", "x"),
        "receiver": server_context(cert=str(good.cert), key=str(good.key), client_ca=None, min_version="1.2"),
        "sender": client_context(ca=ca, verify="name", cert=None, key=None, min_version="1.2"),
        "directory": Path(ca).parent,
    }


def test_tls_on_both_sides(tls: dict[str, Any]) -> None:
    async def scene(running: Running) -> None:
        receiver = Receiver(tls=tls["receiver"])
        port = await running.serve(receiver, tls=tls["tls"], node_tls=tls["node_tls"])
        sender = await dial(port, tls["sender"])
        contents = [message("1"), grown("2", 5 * MIB), message("3")]
        for number, content in enumerate(contents, start=1):
            sender.send(content)
            assert await sender.frame() == acknowledgement(str(number))
        assert receiver.taken == contents
        assert len(receiver.wires) == 1
        sender.close()
        assert (await running.one_ended()).tls == "TLSv1.3"

    play(scene)


def test_tls_and_a_kept_connection_that_its_receiver_has_closed(tls: dict[str, Any]) -> None:
    async def scene(running: Running) -> None:
        receiver = Receiver(tls=tls["receiver"])
        port = await running.serve(receiver, tls=tls["tls"], node_tls=tls["node_tls"])
        sender = await dial(port, tls["sender"])
        for number in "123":
            sender.send(message(number))
            assert await sender.frame() == acknowledgement(number)
            receiver.wires[-1].close()
            await eventually(lambda: not running.service.dispatch.delivery.connections.links)
        assert len(receiver.wires) == 3
        sender.close()

    play(scene)


def test_acknowledgements_by_a_connection_of_their_own_are_messages() -> None:
    async def scene(running: Running) -> None:
        receiver = Receiver(silent)
        sender = await dial(await running.serve(receiver))
        for number in range(3):
            sender.send(acknowledgement(f"A{number}"))
        await eventually(lambda: len(receiver.taken) == 3)
        assert receiver.taken == [acknowledgement(f"A{number}") for number in range(3)]
        await eventually(lambda: not running.service.dispatch.in_flight, "none is awaited")
        sender.close()

    play(scene)


def test_a_receiver_that_forgets_the_last_cr_and_closes_has_answered() -> None:
    async def forgets(wire: Wire, content: bytes) -> None:
        wire.writer.write(b"\x0b" + acknowledgement("1") + b"\x1c")
        wire.writer.close()

    async def scene(running: Running) -> None:
        receiver = Receiver(forgets)
        sender = await dial(await running.serve(receiver))
        sender.send(message("1"))
        assert await sender.frame() == acknowledgement("1")
        sender.close()

    play(scene)


def test_who_was_entering_when_the_service_leaves_is_let_go() -> None:
    async def scene(running: Running) -> None:
        receiver = Receiver()
        port = await running.serve(receiver)
        running.service.is_leaving = True
        sender = await dial(port)
        assert await sender.frame() is None
        assert (await running.one_ended()).ended == "drained"

    play(scene)


def test_line_ends_between_messages_add_up_to_nothing() -> None:
    async def scene(running: Running) -> None:
        sender = await dial(await running.serve(Receiver()))
        for number in range(20):
            sender.writer.write(b"\r\n" * 2048)
            sender.send(message(f"{number}"))
            assert await sender.frame() == acknowledgement(f"{number}")
        sender.close()
        assert (await running.one_ended()).ended == "closed"

    play(scene)


def test_bytes_in_no_frame_end_a_connection() -> None:
    async def scene(running: Running) -> None:
        sender = await dial(await running.serve(Receiver()))
        sender.writer.write(b"GET / HTTP/1.1\r\n" * 6000)
        assert await sender.frame() is None
        ended = await running.one_ended()
        assert (ended.ended, "bytes came in no frame" in ended.reason) == ("malformed", True)
        sender.close()

    play(scene)

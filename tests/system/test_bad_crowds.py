"""Many bad peers: what they cost in memory and descriptors is bounded, and given back.

Bounds are stated beside what they are held against.  A peer that does not read costs one read of 1 MiB at the most; a
peer that does not read keeps at most two, a peer that stops keeps none.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from equipoise.engines.gateway.side import READ_BUFFER_BYTES
from equipoise.proto.dicom.pdu import RELEASE_RP, PduType
from tests.system.balancer import eventually
from tests.system.hostile import HostileSite
from tests.system.rawpeer import (
    ECHO_RQ,
    STORE_COMMAND,
    STORE_DATA,
    NodeSide,
    RawClient,
    reject,
)

MIB = 1 << 20


def floods(side: NodeSide) -> None:
    side.accept()
    side.pdu()
    side.send(STORE_COMMAND)
    while True:
        side.send(STORE_DATA * 16)
        time.sleep(0.005)  # a hundred of these share one interpreter with the association that is timed


def floods_a_while(side: NodeSide) -> None:
    side.accept()
    side.pdu()
    side.send(STORE_COMMAND + STORE_DATA * 256)  # 4 MiB: more than sockets hold
    side.serve()


def answers_garbage(side: NodeSide) -> None:
    side.send(b"\0 no AC")
    side.serve()


def closes(side: NodeSide) -> None:
    side.accept()
    side.pdu()


MANNERS = {"FLOOD": floods, "BURST": floods_a_while, "GARBAGE": answers_garbage, "CLOSES": closes}


# What one bad association may be


def bare(client: RawClient) -> None:
    client.half_close()


def wrong_type(client: RawClient) -> None:
    client.send(b"GET / HTTP/1.1\r\n\r\n")


def too_long(client: RawClient) -> None:
    client.send(b"\1\0\xff\xff\xff\xff" + bytes(1000))


def cut_request(client: RawClient) -> None:
    client.send(client.request()[:100])
    client.half_close()


def long_cut_request(client: RawClient) -> None:
    client.send(b"\1\0\0\1\xff\xff" + bytes(130_000))  # 128 KiB but one byte are announced
    client.half_close()


def wrong_within(client: RawClient) -> None:
    client.associate().send(RELEASE_RP)


def cut_object(client: RawClient) -> None:
    client.associate().send(STORE_COMMAND + STORE_DATA[:9000])
    client.half_close()


def cut_by_the_node(client: RawClient) -> None:
    client.called = "CLOSES"
    client.associate().send(ECHO_RQ)


def garbage_from_the_node(client: RawClient) -> None:
    client.called = "GARBAGE"
    client.send(client.request())


def deaf_and_gone(client: RawClient) -> None:
    client.called = "BURST"
    client.associate().send(ECHO_RQ)
    client.pdu()


KINDS: list[Callable[[RawClient], None]] = [
    bare,
    wrong_type,
    too_long,
    cut_request,
    long_cut_request,
    wrong_within,
    cut_object,
    cut_by_the_node,
    garbage_from_the_node,
    deaf_and_gone,
]


def misbehave(site: HostileSite, number: int) -> None:
    client = site.caller()
    kind = KINDS[number % len(KINDS)]
    kind(client)
    if kind is deaf_and_gone:
        client.reset()
    else:
        client.farewell()
        client.close()


def test_two_thousand_bad_associations_leave_nothing_behind() -> None:
    with HostileSite(MANNERS) as site, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: misbehave(site, number), range(400)))  # caches and spare buffers fill up
        before = site.resident_bytes()
        with site.unharmed():
            list(pool.map(lambda number: misbehave(site, number), range(2000)))
        # 4 MiB are 2 KiB for each: far less than the smallest thing that could be forgotten with its request
        assert site.resident_bytes() - before < 4 * MIB
        site.settled()
        kinds = {event["ended"] for event in site.log.ended}
        assert kinds == {"no_request", "client_error", "client_closed", "node_closed", "no_node", "released"}


def hold(site: HostileSite, count: int) -> list[RawClient]:
    """Open `count` associations that stop within a PDU and as many that do not read what their node floods."""
    stopped = [site.caller().associate() for _ in range(count)]
    for client in stopped:
        client.send(STORE_COMMAND + STORE_DATA[: len(STORE_DATA) // 2])
    deaf = [site.caller("FLOOD", receive_bytes=4096).associate() for _ in range(count)]
    for client in deaf:
        client.send(ECHO_RQ)
        time.sleep(0.02)  # the first burst of each fills the sockets' buffers, megabytes that this machine must copy
    return stopped + deaf


def steady(site: HostileSite) -> int:
    """Return the gateway's memory once it has stopped growing."""
    sizes = [0]

    def look() -> bool:
        time.sleep(0.5)
        sizes.append(site.resident_bytes())
        return sizes[-1] - sizes[-2] < MIB // 4

    eventually(look, 40, "memory that does not grow any more")
    return sizes[-1]


def test_two_hundred_that_stop_or_do_not_read_cost_what_their_buffers_cost() -> None:
    with HostileSite(MANNERS, stall_timeout="60s", artim="5s") as site:
        before = site.resident_bytes()
        with site.unharmed():
            held = hold(site, 100)
            first = steady(site)
            # one read for each of the 100 that do not read, 40 KiB for each of the 200 associations
            assert first - before < 100 * READ_BUFFER_BYTES + 200 * 40 * 1024
            time.sleep(1.0)
            assert site.resident_bytes() - first < 2 * MIB, "it grows while the nodes go on sending"
            status = site.balancer.status("raw")
            assert status["connections"] == status["nodes"]["bad"]["connections"] == 201
        for client in held:
            client.reset()
        eventually(lambda: site.count_open_files() <= site.open_files + 2, 20, "the descriptors given back")
        with site.unharmed():
            again = hold(site, 100)
            assert steady(site) - first < 4 * MIB, "the same again costs more than the first time"
        for client in again:
            client.reset()
        site.settled()


def test_five_hundred_connects_at_once() -> None:
    with HostileSite(artim="8s") as site:  # those that close do so before
        before = site.resident_bytes()
        for leave, ended in (("close", "no_request"), ("stay", "timed_out")):
            with site.unharmed(), ThreadPoolExecutor(50) as pool:
                clients = list(pool.map(lambda _: site.caller(), range(500)))
                eventually(lambda: site.balancer.status("raw")["connections"] == 501, 7, "500 connections")
                assert site.resident_bytes() - before < 500 * 16 * 1024  # half the 40 kB of an idle association
                if leave == "close":
                    for client in clients:
                        client.close()
                assert {site.ended(client, 30)["ended"] for client in clients} == {ended}
        site.settled()


def test_more_clients_than_descriptors() -> None:
    """Past the file limit a client hears "local limit exceeded", one event says so, and those inside go on."""
    with HostileSite(prefix=["prlimit", "--nofile=300:300"]) as site:
        with site.unharmed():
            clients = []
            for _ in range(120):
                clients.append(site.caller())
                clients[-1].send(clients[-1].request())
            answers = [client.pdu() for client in clients]
            taken = [client for client, got in zip(clients, answers, strict=True) if got and got.type is PduType(2)]
            refused = [client for client, got in zip(clients, answers, strict=True) if got == reject(2, 3, 2)]
            assert 50 < len(taken) < 120
            assert len(taken) + len(refused) == 120, "some got neither an answer nor a reject"
            for client in taken:
                client.release()
            for client in refused:
                assert site.ended(client)["reason"]
        site.settled()

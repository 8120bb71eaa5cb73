import pytest

from equipoise.engines.haproxy.cutting import sessions_at
from equipoise.engines.haproxy.servers import servers
from equipoise.engines.haproxy.statistics import Row, Tally, refused, rows
from equipoise.engines.haproxy.tables import entries

HEAD = "# pxname,svname,scur,bin,bout,status,check_status,check_code,last_chk,check_desc,"


def stat(*lines: str) -> list[str]:
    return [HEAD, *lines, ""]


def test_servers_and_frontends_are_read() -> None:
    assert rows(stat("web,FRONTEND,3,10,20,OPEN,,,,,", "web,a,2,5,6,UP,L4OK,,,,", "web,BACKEND,2,5,6,UP,,,,,")) == [
        Row("web", "FRONTEND", 3, 10, 20, None),
        Row("web", "a", 2, 5, 6, None),
    ]
    assert rows([""]) == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ("DOWN,L4CON,,Connection refused,Layer4 connection problem", "connection refused"),
        ("DOWN,* L4CON,,Connection refused,Layer4 connection problem", "connection refused"),
        ("DOWN 1/2,L4TOUT,,,Layer4 timeout", "did not take the connection in time"),
        ("DOWN,L6RSP,,SSL handshake failure,Layer6 invalid response", "TLS failed: SSL handshake failure"),
        ("DOWN,L7STS,503,Service Unavailable,Layer7 wrong status", "answered HTTP 503"),
        ("DOWN,,,,", "its check fails"),
        ("UP,L4OK,,,Layer4 check passed", None),
        ("UP 1/3,L4CON,,Connection refused,", None),
        ("MAINT,,,,", None),
        ("DRAIN,L4OK,,,", None),
        ("no check,,,,", None),
    ],
)
def test_what_a_check_says(fields: str, reason: str | None) -> None:
    assert refused(rows(stat(f"web,a,0,0,0,{fields},"))) == ({} if reason is None else {"web/a": reason})


def worker(connections: int, total: int) -> list[Row]:
    return [Row("web", "a", connections, total, total * 2, None), Row("web", "FRONTEND", connections, 0, 0, None)]


def test_counts_of_workers_that_are_gone_stay() -> None:
    tally = Tally()
    assert tally.take({1: worker(3, 100)}, ["web"]).nodes["web/a"].bytes_in == 100
    both = tally.take({1: worker(2, 120), 2: worker(1, 10)}, ["web"])
    assert (both.nodes["web/a"].connections, both.nodes["web/a"].bytes_in, both.connections) == (3, 130, {"web": 3})
    after = tally.take({2: worker(1, 15)}, ["web"])
    assert (after.nodes["web/a"].connections, after.nodes["web/a"].bytes_out) == (1, 270)
    assert tally.take({2: worker(1, 15)}, ["web"]) == after


def test_services_that_left_are_forgotten() -> None:
    tally = Tally()
    tally.take({1: worker(0, 100)}, ["web"])
    assert tally.take({2: worker(0, 5)}, ["other"]).nodes == {}
    assert tally.take({2: worker(0, 5)}, ["web"]).nodes["web/a"].bytes_in == 5


def test_states_of_servers_are_read() -> None:
    head = "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight"
    lines = ["1", head, *(f"3 web {n} n{n} 127.0.0.1 2 {bits} 7 100" for n, bits in enumerate((0, 1, 5, 8, 32), 1)), ""]
    assert [(server.key, server.number, server.state.state) for server in servers(lines)] == [
        ("web/n1", 1, "up"),
        ("web/n2", 2, "down"),
        ("web/n3", 3, "down"),
        ("web/n4", 4, "drain"),
        ("web/n5", 5, "down"),
    ]
    assert {server.state.weight for server in servers(lines)} == {7}
    assert list(servers(["2", head])) == []


def test_only_addresses_are_taken_from_a_table() -> None:
    lines = [
        "# table: web, type: ipv6, size:102400, used:3",
        "0x5598928cf7a0: key=::ffff:10.0.0.1 use=0 exp=1799753 server_id=2 server_key=b",
        "0x9838fe0: key=2001:db8::1 use=0 exp=1799516 shard=0 server_id=1 server_key=-",
        "0x9838fe0: key=x;shutdown use=0 exp=1799516 server_id=1 server_key=a",
        "0x9838fe0: key=10.0.0.9 use=0 exp=1799516 conn_cur=1",
    ]
    assert list(entries(lines)) == [("::ffff:10.0.0.1", 2), ("2001:db8::1", 1)]


def test_sessions_of_nodes_are_found() -> None:
    lines = [
        "0x560fcb8fc5b0: proto=tcpv4 src=127.0.0.1:46007 fe=web be=web srv=a ts=00 epoch=0 age=1s",
        "0x560fcb8fc5c0: proto=tcpv4 src=127.0.0.1:46008 fe=web be=web srv=b ts=00 epoch=0 age=1s",
        "0x7f7394075b60: proto=sockpair src=unix:2 fe=GLOBAL be=<NONE> srv=<none> ts=00",
    ]
    assert list(sessions_at(lines, {"web/a"})) == ["0x560fcb8fc5b0"]

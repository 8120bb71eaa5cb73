import pytest

from equipoise.engines.haproxy.statistics import Row, Tally, refused, rows

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

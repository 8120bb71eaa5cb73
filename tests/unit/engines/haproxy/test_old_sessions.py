from equipoise.engines.haproxy.old_sessions import sessions_at


def test_sessions_of_nodes_are_found() -> None:
    lines = [
        "0x560fcb8fc5b0: proto=tcpv4 src=127.0.0.1:46007 fe=web be=web srv=a ts=00 epoch=0 age=1s",
        "0x560fcb8fc5c0: proto=tcpv4 src=127.0.0.1:46008 fe=web be=web srv=b ts=00 epoch=0 age=1s",
        "0x7f7394075b60: proto=sockpair src=unix:2 fe=GLOBAL be=<NONE> srv=<none> ts=00",
    ]
    assert list(sessions_at(lines, {"web/a"})) == ["0x560fcb8fc5b0"]

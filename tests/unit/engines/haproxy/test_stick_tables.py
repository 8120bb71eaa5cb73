from equipoise.engines.haproxy.stick_tables import entries


def test_only_addresses_are_taken_from_a_table() -> None:
    lines = [
        "# table: web, type: ipv6, size:102400, used:3",
        "0x5598928cf7a0: key=::ffff:10.0.0.1 use=0 exp=1799753 server_id=2 server_key=b",
        "0x9838fe0: key=2001:db8::1 use=0 exp=1799516 shard=0 server_id=1 server_key=-",
        "0x9838fe0: key=x;shutdown use=0 exp=1799516 server_id=1 server_key=a",
        "0x9838fe0: key=10.0.0.9 use=0 exp=1799516 conn_cur=1",
    ]
    assert list(entries(lines)) == [("::ffff:10.0.0.1", 2), ("2001:db8::1", 1)]

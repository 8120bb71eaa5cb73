from equipoise.engines.haproxy.servers import servers


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

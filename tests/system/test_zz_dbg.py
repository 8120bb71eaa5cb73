from tests.system.test_infinitt import *


def test_dbg(hospital, jar):
    for cfg in hospital.balancer.home.rglob("haproxy.cfg"):
        print(cfg.read_text()[-2500:])

    def table():
        for sock in hospital.balancer.home.rglob("*.sock"):
            print(sock)
        return ""

    by = {c: hospital.page(c) for c in CLIENTS}
    print(by)
    here = next(client for client, node in by.items() if node == "a")
    there = next(client for client, node in by.items() if node == "b")
    table()
    print({c: hospital.page(c) for c in CLIENTS})
    print(hospital.page(here, *jar("browser"), path="login"))
    print(Path(jar("browser")[1]).read_text())
    print({c: hospital.page(c) for c in CLIENTS})
    print(hospital.clients[there].run(*hospital.curl(*jar("browser"), "-v")))
    print({c: hospital.page(c) for c in CLIENTS})
    assert 0

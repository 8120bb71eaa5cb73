"""What a site is told about the machine that it is to run on."""

from dataclasses import replace

from equipoise.app.doctor.facts import FileLimit, Haproxy, Lookup, Source
from equipoise.app.doctor.findings import Finding, Level
from equipoise.app.doctor.judge_site import judge_site
from equipoise.plan.model import ManagedAddress
from tests.unit.app.doctor.healthy import SITE, listener, machine, plan, surroundings


def bad(findings: list[Finding]) -> list[tuple[str, Level, str]]:
    return [(each.item, each.level, f"{each.seen}; {each.do}") for each in findings if each.level is not Level.OK]


def test_all_is_well() -> None:
    findings = list(judge_site(plan(), machine(), surroundings()))
    assert bad(findings) == []
    assert [each.seen for each in findings if each.item == "ports"] == ["10.0.0.100:104, 10.0.0.100:11112: free"]


def test_an_address_that_the_balancer_brings_up_need_not_be_here() -> None:
    away = replace(surroundings(), listeners=(replace(listener(104), local=False),))
    assert [item for item, *_ in bad(list(judge_site(plan(), machine(), away)))] == ["addresses"]
    managing = replace(plan(), addresses=(ManagedAddress("10.0.0.100", "eth0"),))
    assert bad(list(judge_site(managing, machine(), away))) == []


def test_ports_that_the_running_balancer_holds_are_good() -> None:
    held = replace(surroundings(), listeners=(replace(listener(104), held=True),))
    no_rights = replace(machine(), capabilities=0)
    findings = list(judge_site(plan(), no_rights, held))
    assert bad(findings) == []
    assert "10.0.0.100:104: held by the running balancer" in [each.seen for each in findings]


def test_a_port_that_another_program_has() -> None:
    refused = "cannot listen on 10.0.0.100:11112: another program has the port; find it with `ss`"
    taken = replace(surroundings(), listeners=(listener(104), replace(listener(11112), refused=refused)))
    assert bad(list(judge_site(plan(), machine(), taken))) == [("ports", Level.PROBLEM, refused)]


def test_a_low_port_without_the_right_is_said_once_and_by_name() -> None:
    refused = "cannot listen on 10.0.0.100:104: ports below 1024 need a right that this user lacks"
    found = replace(surroundings(), listeners=(replace(listener(104), refused=refused), listener(11112)))
    (one,) = bad(list(judge_site(plan(), replace(machine(), capabilities=0), found)))
    assert one[:2] == ("rights", Level.WARNING)
    assert "equipoise lacks CAP_NET_BIND_SERVICE" in one[2]
    assert "11112" not in one[2]


def test_the_kernel_may_leave_low_ports_to_all() -> None:
    free = replace(machine(), capabilities=0)
    free = replace(free, kernel=replace(free.kernel, first_free_port=80))
    assert bad(list(judge_site(plan(), free, surroundings()))) == []


def test_an_address_that_is_not_here_yet_is_said_once() -> None:
    absent = tuple(replace(listener(port), local=False) for port in (104, 11112))
    (one,) = bad(list(judge_site(plan(), machine(), replace(surroundings(), listeners=absent))))
    assert one[:2] == ("addresses", Level.WARNING)
    assert "not on this machine: 10.0.0.100;" in one[2]


def test_a_port_that_outgoing_connections_may_take() -> None:
    found = replace(surroundings(), listeners=(listener(40104),))
    (one,) = bad(list(judge_site(plan(), machine(), found)))
    assert "40104: within 32768 to 60999" in one[2]
    kernel = replace(machine().kernel, reserved_ports=((40000, 40200),))
    assert bad(list(judge_site(plan(), replace(machine(), kernel=kernel), found))) == []


def test_a_source_address_that_is_not_here() -> None:
    found = replace(surroundings(), sources=(Source("10.9.9.9", "services.ct.source_address", local=False),))
    (one,) = bad(list(judge_site(plan(), machine(), found)))
    assert one[:2] == ("source address", Level.PROBLEM)
    assert "services.ct.source_address" in one[2]


def test_too_few_open_files_for_what_the_site_allows() -> None:
    """Two nodes of 60 and 40 associations: 200 descriptors, 128 for the gateway, 4 for two listeners."""
    enough, short = FileLimit(332, 332, "this shell"), FileLimit(331, 331, "this shell")
    assert bad(list(judge_site(plan(), replace(machine(), files=enough), surroundings()))) == []
    (one,) = bad(list(judge_site(plan(), replace(machine(), files=short), surroundings())))
    assert one[:2] == ("open files", Level.PROBLEM)
    assert "room for 99 associations" in one[2]
    assert "wants 100:" in one[2]


def test_files_are_those_of_each_gateway() -> None:
    """One of two has `ct` alone, with 100 associations; the other `mr` with 150 and one listener."""
    two = SITE.replace("services:", "gateway: {workers: 2}\nservices:") + (
        "  mr: {protocol: dicom, listen: '10.0.0.100:4242', max_connections: 150, "
        "nodes: {a: {address: '10.0.0.12:104'}}}\n"
    )
    enough, short = FileLimit(430, 430, "this shell"), FileLimit(429, 429, "this shell")
    assert bad(list(judge_site(plan(two), replace(machine(), files=enough), surroundings()))) == []
    (one,) = bad(list(judge_site(plan(two), replace(machine(), files=short), surroundings())))
    assert one[:2] == ("open files", Level.PROBLEM)
    assert "room for 149 associations in a gateway" in one[2]
    assert "one has mr, which want 150:" in one[2]
    together = two.replace("gateway: {workers: 2}\n", "")
    (one,) = bad(list(judge_site(plan(together), replace(machine(), files=enough), surroundings())))
    assert "the site wants 250:" in one[2]


def test_a_site_without_limits_is_only_warned() -> None:
    endless = plan(SITE.replace(", max_connections: 60", ""))
    (one,) = bad(list(judge_site(endless, replace(machine(), files=FileLimit(1024, 1024, "x")), surroundings())))
    assert one[:2] == ("open files", Level.WARNING)
    assert "wants 1000, counting 1000 where it sets no limit" in one[2]
    large = plan(SITE.replace(", max_connections: 60", ", max_connections: 9000").replace(", max_connections: 40", ""))
    (one,) = bad(list(judge_site(large, replace(machine(), files=FileLimit(4096, 4096, "x")), surroundings())))
    assert "wants 9000" in one[2]


def test_a_node_with_more_associations_than_there_are_ports_to_call_it_from() -> None:
    many = plan(SITE.replace("max_connections: 60", "max_connections: 50000"))
    (one,) = bad(list(judge_site(many, machine(), surroundings())))
    assert "ct/a may have 50000, and 28232 can call it" in one[2]


def test_names() -> None:
    def said(lookup: Lookup) -> tuple[str, Level, str]:
        (one,) = bad(list(judge_site(plan(), machine(), replace(surroundings(), lookups=(lookup,)))))
        return one

    assert said(Lookup("pacs-a.example", (), 0.1, "Name or service not known"))[1] is Level.PROBLEM
    assert "no answer within 2 s" in said(Lookup("pacs-a.example", (), None, "no answer within 2 s"))[2]
    assert "took 0.7 s" in said(Lookup("pacs-a.example", ("10.0.0.11",), 0.7, ""))[2]
    assert "has 2 addresses" in said(Lookup("pacs-a.example", ("10.0.0.11", "10.0.0.13"), 0.01, ""))[2]
    assert "a and b are both 10.0.0.12" in said(Lookup("pacs-a.example", ("10.0.0.12",), 0.01, ""))[2]


def test_which_haproxy_there_is() -> None:
    there = replace(surroundings(), haproxy=Haproxy("/usr/sbin/haproxy", "2.6.12"))
    found = [each for each in judge_site(plan(), machine(), there) if each.item == "haproxy"]
    assert [(each.level, each.seen) for each in found] == [(Level.OK, "2.6.12, /usr/sbin/haproxy")]


def test_without_one_it_says_what_to_install() -> None:
    none = Haproxy(missing="there is none; at all", advice="install haproxy")
    findings = list(judge_site(plan(), machine(), replace(surroundings(), haproxy=none)))
    assert Finding("haproxy", Level.PROBLEM, "there is none; at all", "install haproxy") in findings
    assert len(bad(findings)) == 1

from pathlib import Path

import pytest

from equipoise.app.certificates import CertificateState, Expiries, fingerprints, problems, watch
from equipoise.app.wiring import catalogue
from equipoise.config.loading import Document, load
from equipoise.plan.compile import compile_plan
from equipoise.plan.inputs import HostFacts
from equipoise.plan.model import Plan
from equipoise.state.events import CertificateExpired, CertificateExpiring
from tests.system.certificates import Authority

DAY_S = 86400.0
NOW_S = 1_900_000_000.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def document(tls: str = "", node_tls: str = "", protocol: str = "dicom") -> Document:
    lines = ["site: general", "services:", "  pacs:", f"    protocol: {protocol}", "    listen: 127.0.0.1"]
    lines += [f"    tls: {{{tls}}}"] if tls else []
    lines += [f"    node_tls: {{{node_tls}}}"] if node_tls else []
    lines += ["    nodes:", "      a: {address: '127.0.0.2:104'}"]
    return load("\n".join(lines), "site.yaml", catalogue())


def plan(tls: str = "", node_tls: str = "") -> Plan:
    return compile_plan(document(tls, node_tls).site, HostFacts())


def test_a_fingerprint_stands_for_the_content(tmp_path: Path) -> None:
    file, missing = tmp_path / "a.pem", tmp_path / "b.pem"
    file.write_text("one")
    first = fingerprints([str(file), str(missing), str(tmp_path)])
    assert first[str(missing)] == first[str(tmp_path)] == ""
    assert len(first[str(file)]) == 64
    file.write_text("two")
    assert fingerprints([str(file)])[str(file)] != first[str(file)]


def test_files_that_can_be_used_are_no_problem(authority: Authority) -> None:
    own, ca = authority.issue("balancer"), authority.ca_file
    tls = f"cert: {own.cert}, key: {own.key}, client_ca: {ca}"
    assert problems(document()) == []
    assert problems(document(tls, f"ca: {ca}, cert: {own.both}")) == []
    assert problems(document(node_tls="verify: none")) == []


def test_each_file_that_cannot_be_used_has_its_place(authority: Authority, tmp_path: Path) -> None:
    own, missing = authority.issue("balancer"), tmp_path / "missing.pem"
    tls = f"cert: {own.cert}, key: {missing}, client_ca: {own.key}"
    node_tls = f"ca: {missing}, cert: {own.cert}"
    found = [str(problem) for problem in problems(document(tls, node_tls))]
    assert [
        line.partition(f"{missing}")[0].partition(f"{own.key}")[0].partition(f"{own.cert}")[0] for line in found
    ] == [
        f"site.yaml:6:{11 + len(f'cert: {own.cert}, key: ')}: services.pacs.tls.key: ",
        f"site.yaml:6:{11 + len(f'cert: {own.cert}, key: {missing}, client_ca: ')}: services.pacs.tls.client_ca: ",
        f"site.yaml:7:{16 + len(f'ca: {missing}, cert: ')}: services.pacs.node_tls.cert: ",
        "site.yaml:7:20: services.pacs.node_tls.ca: ",
    ]
    assert "there is no such file" in found[0]
    assert "holds no certificate" in found[1]
    assert "holds no private key" in found[2]


def test_certificates_for_other_names_are_looked_at_as_well(authority: Authority, tmp_path: Path) -> None:
    own, other, missing = authority.issue("portal"), authority.issue("viewer"), tmp_path / "missing.pem"
    good = f"cert: {own.both}, more_certificates: [{{cert: {other.both}}}]"
    assert problems(document(good, protocol="https")) == []
    bad = f"cert: {own.both}, more_certificates: [{{cert: {other.both}}}, {{cert: {other.cert}, key: {missing}}}]"
    (problem,) = problems(document(bad, protocol="https"))
    assert "services.pacs.tls.more_certificates.1.key: " in str(problem)
    site = compile_plan(document(good, protocol="https").site, HostFacts())
    assert [state.key for state in watch(site, NOW_S)] == ["tls.cert", "tls.more_certificates.0.cert"]


def test_the_state_of_every_file_is_told(authority: Authority, tmp_path: Path) -> None:
    own = authority.issue("balancer", names=("pacs.example",), addresses=(), days=100)
    tls = f"cert: {own.cert}, key: {own.key}, client_ca: {authority.ca_file}"
    states = watch(plan(tls, f"ca: {authority.ca_file}, cert: {own.both}"), now_s=NOW_S)
    assert [(state.service, state.key, state.path) for state in states] == [
        ("pacs", "tls.cert", str(own.cert)),
        ("pacs", "tls.client_ca", str(authority.ca_file)),
        ("pacs", "node_tls.ca", str(authority.ca_file)),
        ("pacs", "node_tls.cert", str(own.both)),
    ]
    assert states[0].names == ("pacs.example",)
    assert states[1].names == ("CN=Test CA",)
    end_s = states[0].not_after_s or 0.0
    (state,) = watch(plan(f"cert: {own.both}"), now_s=end_s - 12.5 * DAY_S)
    assert state.days_left == 12
    assert state.status() == {
        "path": str(own.both),
        "names": ["pacs.example"],
        "not_after": state.status()["not_after"],
        "days_left": 12,
    }
    assert str(state.status()["not_after"]).endswith("Z")
    assert watch(plan(f"cert: {own.both}"), now_s=end_s + 1)[0].days_left == -1
    own.both.unlink()
    (state,) = watch(plan(f"cert: {own.both}"), now_s=NOW_S)
    assert (state.not_after_s, state.days_left) == (None, None)
    assert "there is no such file" in state.status()["problem"]


def test_a_chain_ends_with_its_first_link_and_a_successor_replaces_an_authority(
    authority: Authority, tmp_path: Path
) -> None:
    soon, late = authority.issue("soon", days=5), authority.issue("late", days=500)
    over = authority.issue("over", days=-5)
    file = tmp_path / "several.pem"
    now_s = (watch(plan(f"cert: {soon.both}"), NOW_S)[0].not_after_s or 0.0) - 4.5 * DAY_S
    file.write_bytes(late.both.read_bytes() + soon.cert.read_bytes())
    assert watch(plan(f"cert: {file}"), now_s)[0].days_left == 4
    file.write_bytes(over.cert.read_bytes() + late.cert.read_bytes() + soon.cert.read_bytes())
    assert watch(plan(node_tls=f"ca: {file}"), now_s)[0].days_left == 4
    file.write_bytes(over.cert.read_bytes() + late.cert.read_bytes())
    assert (watch(plan(node_tls=f"ca: {file}"), now_s)[0].days_left or 0) > 400
    file.write_bytes(over.cert.read_bytes())
    assert (watch(plan(node_tls=f"ca: {file}"), now_s)[0].days_left or 0) < 0


def at(days_left: float, now_s: float, service: str = "pacs", end_s: float | None = None) -> CertificateState:
    not_after_s = now_s + days_left * DAY_S if end_s is None else end_s
    return CertificateState(
        service, "tls.cert", "pacs.pem", ("pacs",), not_after_s, int((not_after_s - now_s) // DAY_S), None
    )


def test_it_is_spoken_of_from_thirty_days_on_and_once_a_day() -> None:
    expiries, end_s, said = Expiries(), NOW_S + 32 * DAY_S, []
    for hour in range(35 * 24):
        now_s = NOW_S + hour * 3600.0
        said += [(hour, event) for event in expiries.due([at(0, now_s, end_s=end_s)], now_s)]
    expiring = [(hour, event.days_left) for hour, event in said if isinstance(event, CertificateExpiring)]
    assert expiring[0] == (49, 29)  # the first look with less than 30 whole days
    assert [hour for hour, _ in expiring] == [49 + 24 * day for day in range(30)]
    expired = [hour for hour, event in said if isinstance(event, CertificateExpired)]
    assert expired == [32 * 24, 33 * 24, 34 * 24]  # at once, though "expiring" was said an hour ago


def test_the_event_names_service_file_and_date() -> None:
    (event,) = Expiries().due([at(3.5, NOW_S)], NOW_S)
    assert event == CertificateExpiring(
        service="pacs",
        file="tls.cert",
        path="pacs.pem",
        names=("pacs",),
        not_after="2030-03-21T05:46:40.000Z",
        days_left=3,
    )


def test_a_renewed_certificate_is_a_new_one_and_services_speak_for_themselves() -> None:
    expiries = Expiries()
    assert len(expiries.due([at(3, NOW_S), at(3, NOW_S, "mwl"), at(40, NOW_S, "web")], NOW_S)) == 2
    assert expiries.due([at(3, NOW_S), at(3, NOW_S, "mwl")], NOW_S) == []
    assert expiries.due([at(90, NOW_S)], NOW_S) == []
    assert len(expiries.due([at(10, NOW_S)], NOW_S)) == 1
    assert len(expiries.due([at(10, NOW_S)], NOW_S - 9 * DAY_S)) == 1  # the clock was set back
    unreadable = CertificateState("pacs", "tls.cert", "pacs.pem", problem="gone")
    assert expiries.due([unreadable], NOW_S) == []

"""What is rendered, and that nft takes it, whatever names and settings a person writes."""

import itertools
from collections.abc import Iterator

import pytest

from equipoise.engines import nft
from equipoise.engines.layer4.kernel import Kernel
from equipoise.engines.layer4.transaction import leftovers, structure
from equipoise.plan.inputs import Way
from equipoise.plan.model import ManagedAddress
from tests.unit.engines.layer4.namespace import Namespace, missing, namespace
from tests.unit.engines.layer4.plans import TABLE, artifact_of, fillings_of, text_of

WHY_NOT = missing("nft")
LONG = ["A" + "1.b-" * 15 + "zz", "9" + "x.Y_" * 15 + "q-", "0" * 63, "Z" * 62 + "."]
WORDS = [
    "dnat",
    "ip",
    "drop",
    "map",
    "set",
    "counter",
    "goto",
    "ct",
    "0x45",
    "1",
    "1.2.3.4",
    "type",
    "accept",
    "flows-a",
]
MODES = ["l4_dr", "l4_nat"]


def one(
    mode: str,
    settings: str = "",
    *,
    name: str = "s",
    nodes: tuple[str, ...] = ("a", "b"),
    version: int = 4,
    port: int = 80,
) -> str:
    """Return a service in one line."""
    net = "10.0.0." if version == 4 else "2001:db8::"
    listed = ", ".join(f"'{node}': {{address: '{net}{10 + i}'}}" for i, node in enumerate(nodes))
    more = f", {settings}" if settings else ""
    return f"'{name}': {{protocol: tcp, ports: [{port}], mode: {mode}, listen: '{net}100'{more}, nodes: {{{listed}}}}}"


# What is rendered


def test_without_a_service_for_the_kernel_there_is_nothing() -> None:
    artifact = artifact_of("s: {protocol: dicom, listen: 10.0.0.1, nodes: {a: {address: 10.0.0.2}}}")
    assert not artifact
    assert artifact.tables == ()


def test_the_same_plan_gives_the_same_rules_and_digest() -> None:
    first, second = (artifact_of(one("l4_dr")) for _ in range(2))
    assert first == second
    assert text_of(first) == text_of(second)
    assert first.digest == second.digest


@pytest.mark.parametrize("settings", ["on_down: keep", "slow_start: 5s"])
def test_what_changes_no_rule_changes_no_digest(settings: str) -> None:
    assert artifact_of(one("l4_dr", settings)).digest == artifact_of(one("l4_dr")).digest


@pytest.mark.parametrize(
    "settings",
    ["balance: source_hash", "persistence: {by: source_ip}", "allow_from: [10.0.0.0/8]", "timeouts: {idle: 1h}"],
)
def test_what_changes_rules_changes_the_digest(settings: str) -> None:
    assert artifact_of(one("l4_dr", settings)).digest != artifact_of(one("l4_dr")).digest


def test_a_pool_says_who_can_be_sent_anything() -> None:
    for mode in MODES:
        (pool,) = artifact_of(one(mode).replace("10.0.0.10'", "old.example'")).pools
        assert [member.serves for member in pool.members] == [False, True]
    (pool,) = artifact_of(one("l4_dr"), lambda address: Way("eth0") if address.endswith("100") else None).pools
    assert [member.serves for member in pool.members] == [False, False]


def test_what_must_be_known_of_the_machine() -> None:
    def way_to(address: str) -> Way:
        return Way("eth1", "10.0.0.1") if address == "10.0.0.11" else Way("eth0")

    artifact = artifact_of(one("l4_dr") + "\n" + one("l4_nat", name="n", version=6, port=81), way_to)
    assert artifact.interfaces == ("eth0", "eth1")
    assert artifact.routed == (("s", "b", "10.0.0.1"),)
    assert artifact.unreached == ()
    assert set(artifact.neighbours) == {ManagedAddress("10.0.0.10", "eth0"), ManagedAddress("10.0.0.11", "eth1")}
    assert artifact.forwards == ("ip6",)


def test_no_name_of_one_object_is_that_of_another() -> None:
    services = [one("l4_nat", "persistence: {by: source_ip}", name=name, port=i) for i, name in enumerate(WORDS, 80)]
    (table,) = artifact_of("\n".join(services)).tables
    for found in (
        [chain.name for chain in table.chains],
        [each.name for each in table.keyed],
        [*table.counters, *table.restarted],
    ):
        assert len(found) == len(set(found))


def test_a_limit_is_a_set_of_seats_with_its_number_in_the_name() -> None:
    limited = one("l4_nat").replace("'}", "', max_connections: 7}", 1)
    (table,), (pool,) = artifact_of(limited).tables, artifact_of(limited).pools
    assert [member.seats for member in pool.members] == ["seats-7-s/a", ""]
    (seats,) = [each for each in table.keyed if each.name.startswith("seats")]
    assert (seats.name, seats.kind, seats.elements) == ("seats-7-s/a", "set", None)
    assert "size 7;" in seats.spec
    chains = {chain.name: chain.rules for chain in table.chains}
    assert chains["to-s/a"][-1] == "return", "a node without a seat leaves it to the next"
    assert "sit-s/b" not in chains
    tried = [rule for rule in chains["from-s"] if "@able-s" in rule]
    assert [f"{member.mark:#x}" in rule for member, rule in zip(pool.members, tried, strict=True)] == [True, True]
    assert not any("@able-s" in rule for chain in artifact_of(one("l4_nat")).tables[0].chains for rule in chain.rules)


def test_backups_are_tried_last_for_a_seat() -> None:
    listed = one("l4_nat", nodes=("a", "b", "c"))
    listed = listed.replace("10'}", "10', backup: true}").replace("11'}", "11', max_connections: 1}")
    (table,), (pool,) = artifact_of(listed).tables, artifact_of(listed).pools
    tried = [rule for chain in table.chains for rule in chain.rules if "@able-s" in rule]
    marks = {member.name: f"{member.mark:#x}" for member in pool.members}
    assert [next(name for name, mark in marks.items() if mark in rule) for rule in tried] == ["b", "c", "a"]


@pytest.mark.parametrize(("version", "mark"), [(4, ""), (6, "6")])
def test_what_packets_fill_is_named_after_its_family(version: int, mark: str) -> None:
    """A map that exists keeps its type, and a service may change its family."""
    settings = "persistence: {by: source_ip}"
    artifact = artifact_of(one("l4_dr", settings, version=version))
    filled = {each.name for each in artifact.tables[0].keyed if "dynamic" in each.spec}
    assert filled == {f"flows{mark}-s", f"closing{mark}-s", f"persist{mark}-s"}
    assert artifact.pools[0].flows == f"flows{mark}-s"
    artifact = artifact_of(one("l4_nat", settings, version=version))
    assert {each.name for each in artifact.tables[0].keyed if "dynamic" in each.spec} == {f"persist{mark}-s"}
    assert artifact.pools[0].flows == "", "the kernel itself tracks them"


# What nft takes


@pytest.fixture(scope="module")
def network() -> Iterator[Namespace]:
    if WHY_NOT is not None:
        pytest.skip(WHY_NOT)
    with namespace() as made:
        made.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "bond0.100")
        yield made


def accepted(network: Namespace, *services: str, interface: str = "eth0") -> None:
    text = text_of(artifact_of("\n".join(services), lambda _: Way(interface)))
    network.call(nft.run, text, only_check=True)


SETTINGS = [
    "",
    "balance: round_robin",
    "balance: source_hash, persistence: {by: none}",
    "balance: first_up",
    "persistence: {by: source_ip, mask: 1, mask6: 1, ttl: 1s}",
    "persistence: {by: source_ip, mask: 24, mask6: 64, ttl: 30d}",
    "persistence: {by: source_ip, mask: 32, mask6: 128}, balance: source_hash",
    "slow_start: 10s, on_down: keep",
]


ALLOWED = {
    4: ["[10.0.0.0/8, 192.168.7.7, 0.0.0.0/0]", "[10.0.0.0/8, 10.1.0.0/16, 10.1.2.3]"],
    6: ["['2001:db8::/32', '::1', '::/0']", "['2001:db8::/32', '2001:db8::1']"],
}


@pytest.mark.root("network namespaces and nf_tables")
def test_nft_takes_every_setting(network: Namespace) -> None:
    for version in (4, 6):
        settings = [*SETTINGS, *(f"allow_from: {networks}" for networks in ALLOWED[version])]
        port = itertools.count(80)
        accepted(
            network,
            *(
                one(mode, each, name=f"{mode}-{i}", version=version, port=next(port))
                for mode in MODES
                for i, each in enumerate(settings)
            ),
        )


@pytest.mark.root("network namespaces and nf_tables")
def test_nft_takes_what_only_translation_has(network: Namespace) -> None:
    found = []
    for version, address, source in ((4, "10.0.0.77:81", "10.0.0.5"), (6, "[2001:db8::77]:81", "2001:db8::5")):
        for port, settings in enumerate(("masquerade: true", f"masquerade: true, source_address: '{source}'"), 80):
            service = one("l4_nat", settings, name=f"s{version}-{port}", version=version, port=port)
            limited = service.replace("'}", "', max_connections: 3}", 1)
            found.append(limited.replace("'b': {", f"'c': {{address: '{address}'}}, 'b': {{"))
    accepted(network, *found)


@pytest.mark.root("network namespaces and nf_tables")
@pytest.mark.parametrize("mode", MODES)
def test_nft_takes_every_name(network: Namespace, mode: str) -> None:
    settings, found = "persistence: {by: source_ip}, allow_from: [10.0.0.0/8]", []
    for port, name in enumerate([*LONG, *WORDS], 80):
        nodes = (name, *(other for other in LONG if other != name))
        service = one(mode, settings, name=name, nodes=nodes, port=port)
        found.append(service.replace("'}", "', max_connections: 65535}") if mode == "l4_nat" else service)
    accepted(network, *found)


@pytest.mark.root("network namespaces and nf_tables")
def test_nft_takes_names_of_interfaces_with_dots(network: Namespace) -> None:
    accepted(network, one("l4_dr"), interface="bond0.100")


@pytest.mark.root("network namespaces and nf_tables")
def test_nft_takes_nodes_that_cannot_be_reached_and_many_of_them(network: Namespace) -> None:
    many = tuple(f"node-{i}" for i in range(80))
    unknown = [
        one(mode, nodes=("a",), name=mode, port=i).replace("10.0.0.10'", "old.example'")
        for i, mode in enumerate(MODES, 80)
    ]
    accepted(
        network, *unknown, *(one(mode, nodes=many, name=f"{mode}-many", port=i) for i, mode in enumerate(MODES, 90))
    )


@pytest.mark.root("network namespaces and nf_tables")
def test_any_plan_follows_any_other(network: Namespace) -> None:
    """Whatever a plan leaves over in the kernel, the next one is taken, and it is cleared away."""
    kernel, networks = Kernel(TABLE), "allow_from: [10.0.0.0/8, 192.168.0.1]"
    plans = [
        one("l4_dr", networks) + "\n" + one("l4_nat", networks, name="n", port=81),
        one("l4_dr", "balance: source_hash", nodes=("b",))
        + "\n"
        + one("l4_nat", "masquerade: true", name="n", port=81),
        one("l4_nat", "persistence: {by: source_ip}")
        + "\n"
        + one("l4_dr", "persistence: {by: source_ip}", name="n", port=81),
        one("l4_nat", "persistence: {by: source_ip}", version=6),
        one("l4_dr", networks, nodes=("c", "a")),
        one("l4_nat").replace("'}", "', max_connections: 7}"),
    ]
    for services in (*plans, *plans[::-1]):
        artifact, found = artifact_of(services), network.call(kernel.found)
        network.call(kernel.load, structure(artifact, fillings_of(artifact), found))
        network.call(kernel.load, leftovers(artifact, network.call(kernel.found)))
        after = network.call(kernel.found)
        assert after.keys() == {table.family for table in artifact.tables}
        assert leftovers(artifact, after) == ""
        for table in artifact.tables:
            assert after[table.family].chains == {chain.name for chain in table.chains}

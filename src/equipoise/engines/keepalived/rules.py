"""The packet rules beside keepalived, as nft takes them: each text is one transaction.  Pure.

They stand where packets come in, before direct routing sends them on (`priority 0`).  Two things:

- Advertisements of the pair's numbers are dropped unless the peer sent them: version 2.2.7 has no authentication that
  deserves the name.  Those of other numbers are another pair's, and none of our business.
- While addresses are handed over, the first packets of new connections to them are dropped: who is accepted in the last
  moment would be cut in the next.  TCP sends them again, to the machine that has the address then.
"""

from collections.abc import Collection, Iterator

from equipoise.engines.keepalived.artifact import Rules

_BEFORE_ROUTING = -10
_FAMILIES = {"4": "ip", "6": "ip6"}
_FIRST_PACKET = "tcp flags & (syn|ack) == syn"
# The second byte of VRRP: RFC 5798, section 5.1.
_OURS = "@th,8,8 {{ {numbers} }}"


def structure(rules: Rules, gone: Collection[str] = (), held: Collection[str] = ()) -> str:
    """Return the transaction that puts the rules into force.

    Args:
        rules: What they are made of.
        gone: Interfaces that are not there.
        held: Addresses that take no new connections now.
    """
    at = f"netdev {rules.table}"
    lines = [f"add table {at}", f"delete table {at}", f"add table {at}"]
    lines += (f"add set {at} held{number} {{ type ipv{number}_addr; }}" for number in _FAMILIES)
    for number, door in enumerate(rules.doors):
        if door not in gone:
            hook = f'type filter hook ingress device "{door}" priority {_BEFORE_ROUTING}; policy accept;'
            lines.append(f"add chain {at} door{number} {{ {hook} }}")
            lines += (f"add rule {at} door{number} {rule}" for rule in _rules(rules))
    return _text([*lines, *_elements(at, held)])


def holding(table: str, held: Collection[str]) -> str:
    """Return the transaction that has these addresses, and no others, take no new connections."""
    at = f"netdev {table}"
    return _text([*(f"flush set {at} held{number}" for number in _FAMILIES), *_elements(at, held)])


def removal(table: str) -> str:
    """Return the transaction that takes the rules away; none is no error."""
    return _text([f"add table netdev {table}", f"delete table netdev {table}"])


def _rules(rules: Rules) -> Iterator[str]:
    ours = _OURS.format(numbers=", ".join(map(str, rules.router_ids)))
    own = "6" if ":" in rules.peer else "4"
    for number, words, hops in (("4", "ip protocol", "ip ttl"), ("6", "ip6 nexthdr", "ip6 hoplimit")):
        if number == own:
            yield f"{words} 112 {ours} {hops} != 255 drop"  # it came through a router: RFC 5798 section 5.1.1.3
        stranger = f" {_FAMILIES[number]} saddr != {rules.peer}" if number == own else ""
        yield f"{words} 112 {ours}{stranger} drop"
    for number, family in _FAMILIES.items():
        yield f"{family} daddr @held{number} {_FIRST_PACKET} drop"


def _elements(at: str, held: Collection[str]) -> Iterator[str]:
    for number in _FAMILIES:
        if hosts := sorted(host for host in held if (":" in host) == (number == "6")):
            yield f"add element {at} held{number} {{ {', '.join(hosts)} }}"


def _text(lines: Collection[str]) -> str:
    return "".join(f"{line}\n" for line in lines)

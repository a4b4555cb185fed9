"""The table as text for nftables, and back from its JSON. Pure."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from deltaplane.model.addresses import AddressPair, Prefix, format_address, parse_address
from nodeagent.masquerade import Member, Role

TABLE = "inet deltaplane"
SPARED = "spared"
"""Set of the ranges that the configuration names."""

PRIORITY = 100
"""Where source addresses are translated (NF_IP_PRI_NAT_SRC)."""

_FAMILIES = {4: ("ip", "ipv4_addr"), 6: ("ip6", "ipv6_addr")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is fixed while an agent runs.

    Attributes:
        uplink: name of the link.
        own: this node's addresses there: what packets by the uplink are given. Those by other
            links are given that link's own.
        spared: ranges to which packets keep their source.
    """

    uplink: str
    own: AddressPair
    spared: tuple[Prefix, ...] = ()


def create(rules: Rules, members: Iterable[Member]) -> str:
    """Replaces the table, if there is one, by one that holds the members: no packet sees none."""
    held = set(members)
    sets = [
        _set(name, version, "interval" if name != Role.NODE.value else "", prefixes)
        for version in _FAMILIES
        for name, prefixes in (
            (Role.POOL.value, outermost(of(held, Role.POOL))),
            (Role.NODE.value, of(held, Role.NODE)),
            (SPARED, outermost(rules.spared)),
        )
    ]
    body = "\n".join([*sets, _chain(rules)])
    return f"add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n{body}\n}}\n"


def remove() -> str:
    """Removes the table; fine when there is none."""
    return f"add table {TABLE}\ndelete table {TABLE}\n"


def replace_pools(members: Iterable[Member]) -> str:
    """Replaces the pools by those among the members. Of prefixes in each other the wider counts."""
    pools = outermost(of(members, Role.POOL))
    names = [_name(Role.POOL.value, version) for version in _FAMILIES]
    return "".join(f"flush set {TABLE} {name}\n" for name in names) + "".join(
        _elements("add", Role.POOL.value, version, pools) for version in _FAMILIES
    )


def change_nodes(verb: str, members: Iterable[Member]) -> str:
    """Adds or deletes (verb) the nodes among the members."""
    nodes = of(members, Role.NODE)
    return "".join(_elements(verb, Role.NODE.value, version, nodes) for version in _FAMILIES)


def of(members: Iterable[Member], role: Role) -> list[Prefix]:
    """Prefixes of one role, ascending."""
    found = (member.prefix for member in members if member.role is role)
    return sorted(found, key=lambda prefix: (prefix.address, prefix.length))


def outermost(prefixes: Iterable[Prefix]) -> list[Prefix]:
    """Without those that lie in another: intervals of a set must not overlap."""
    kept: list[Prefix] = []
    for prefix in sorted(prefixes, key=lambda p: (len(p.address), p.address, p.length)):
        if not (kept and kept[-1].contains(prefix)):
            kept.append(prefix)
    return kept


def _name(name: str, version: int) -> str:
    return f"{name}{version}"


def _set(name: str, version: int, flags: str, prefixes: Iterable[Prefix]) -> str:
    listed = _list(version, prefixes)
    elements = f" elements = {{ {listed} }};" if listed else ""
    flagged = f" flags {flags};" if flags else ""
    return f"  set {_name(name, version)} {{ type {_FAMILIES[version][1]};{flagged}{elements} }}"


def _elements(verb: str, name: str, version: int, prefixes: Iterable[Prefix]) -> str:
    listed = _list(version, prefixes)
    return f"{verb} element {TABLE} {_name(name, version)} {{ {listed} }}\n" if listed else ""


def _list(version: int, prefixes: Iterable[Prefix]) -> str:
    return ", ".join(_element(p) for p in prefixes if p.is_ipv4 == (version == 4))


def _element(prefix: Prefix) -> str:
    # A set of addresses takes no prefix, not even of one address.
    is_one = prefix.size == 1
    return format_address(prefix.address) if is_one else str(prefix)


def _chain(rules: Rules) -> str:
    lines = [f"type nat hook postrouting priority {PRIORITY}; policy accept;"]
    for version, (keyword, _) in _FAMILIES.items():
        destinations = " ".join(
            f"{keyword} daddr != @{_name(name, version)}"
            for name in (Role.POOL.value, Role.NODE.value, SPARED)
        )
        matches = f"{keyword} saddr @{_name(Role.POOL.value, version)} {destinations}"
        address = rules.own.ipv4 if version == 4 else rules.own.ipv6
        # Ports at random: two processors that pick the same free one would lose a packet.
        if address is not None:
            own = format_address(address)
            lines.append(f'{matches} oifname "{rules.uplink}" snat {keyword} to {own} fully-random')
        lines.append(f"{matches} masquerade fully-random")
    return "\n".join(["  chain postrouting {", *(f"    {line}" for line in lines), "  }"])


def parse(listing: str) -> frozenset[Member]:
    """The members in what `list table` prints as JSON."""
    found = set()
    for item in json.loads(listing)["nftables"]:
        held = item.get("set", {})
        for role in Role:
            if held.get("name") in (_name(role.value, version) for version in _FAMILIES):
                found |= {Member(role, _prefix(element)) for element in held.get("elem", ())}
    return frozenset(found)


def _prefix(element: str | dict[str, dict[str, str | int]]) -> Prefix:
    if isinstance(element, str):
        address = parse_address(element)
        return Prefix(address, len(address) * 8)
    inner = element["prefix"]
    return Prefix(parse_address(str(inner["addr"])), int(inner["len"]))

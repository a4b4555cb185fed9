"""Whatever the rules are: the tables that they resolve to say what the rules say."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from random import Random
from typing import TypeVar

import pytest

from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.identity import FIRST_IDENTITY, Reserved
from deltaplane.model.objects import DirectionPolicy, DirectionRule, PeerSet, SubjectPolicy
from deltaplane.model.policy import IPBlock
from deltaplane.model.ports import PortRange, Protocol
from deltaplane.model.tiers import Action, Tier
from nodeagent.policy import resolve
from nodeagent.verdict import Judge, allows

T = TypeVar("T")

PROTOCOLS = (Protocol.TCP, Protocol.UDP, Protocol.ICMP)
PORTS = (0, 1, 79, 80, 81, 443, 1023, 1024, 32767, 32768, 65534, 65535)
ADDRESSES = ("10.0.0.1", "10.1.0.1", "10.1.2.3", "192.0.2.1", "fd00::1", "2001:db8::1")
PEERS = (300, 301, 302, *sorted(set(Reserved) - {Reserved.NONE, Reserved.UNKNOWN}))
SETS = {bytes((n,)) * 16: found for n, found in enumerate(((300,), (300, 301), ()))}
ABSENT = b"?" * 16

Packet = tuple[int, str, Protocol, int]
"""Peer, its address, protocol, port."""


def block(cidr: str, *holes: str) -> IPBlock:
    return IPBlock(Prefix.parse(cidr), tuple(Prefix.parse(hole) for hole in holes))


BLOCKS = (
    block("10.0.0.0/8"),
    block("10.0.0.0/8", "10.1.0.0/16"),
    block("10.1.0.0/16", "10.1.2.0/24"),
    block("0.0.0.0/0"),
    block("::/0"),
    block("::/0", "fd00::/16"),
)


def ports(dice: Random) -> PortRange:
    first, last = sorted(dice.choices(PORTS, k=2))
    return PortRange(dice.choice(PROTOCOLS), first, last)


def some(dice: Random, of: Sequence[T], at_most: int) -> tuple[T, ...]:
    return tuple(dice.sample(of, dice.randint(0, at_most)))


def rule(dice: Random, tier: Tier) -> DirectionRule:
    actions = (Action.ALLOW, Action.DENY) if tier is Tier.NORMAL else tuple(Action)
    found = DirectionRule(
        tier=tier,
        action=dice.choice(actions),
        audit=dice.random() < 0.3,
        ports=tuple(ports(dice) for _ in range(dice.randint(0, 3))),
    )
    if dice.random() < 0.25:
        return replace(found, all_peers=True)
    keys = (*SETS, ABSENT) if dice.random() < 0.1 else tuple(SETS)
    return replace(
        found,
        peer_sets=some(dice, keys, 2),
        blocks=some(dice, BLOCKS, 2),
        entities=tuple(sorted(some(dice, tuple(Reserved), 2))),
        outside_only=dice.random() < 0.5,
    )


def policy(dice: Random) -> DirectionPolicy:
    isolated = dice.random() < 0.4
    return DirectionPolicy(
        isolated=isolated,
        audit_isolated=isolated or dice.random() < 0.5,
        rules=tuple(rule(dice, tier) for tier in Tier for _ in range(dice.randint(0, 4))),
    )


def names(rule: DirectionRule, peer: int, address: bytes) -> bool:
    is_pod = peer >= FIRST_IDENTITY or peer == Reserved.OTHER_POD
    inside = any(
        found.cidr.contains(address) and not any(hole.contains(address) for hole in found.except_)
        for found in rule.blocks
    )
    return (
        rule.all_peers
        or any(peer in SETS.get(key, ()) for key in rule.peer_sets)
        or peer in rule.entities
        or (is_pod and Reserved.OTHER_POD in rule.entities)
        or (inside and (peer == Reserved.WORLD or not rule.outside_only))
    )


def passes(policy: DirectionPolicy, packet: Packet, *, audit: bool) -> bool:
    """By the words of deltaplane.model.tiers; audit: policies under audit count."""
    peer, address, protocol, port = packet
    said: dict[Tier, list[Action]] = {tier: [] for tier in Tier}
    for rule in policy.rules:
        if rule.audit and not audit:
            continue
        if rule.ports and not any(
            item.protocol is protocol and item.first <= port <= item.last for item in rule.ports
        ):
            continue
        if ABSENT in rule.peer_sets:
            said[rule.tier] += [] if rule.action is Action.ALLOW else [Action.DENY]
        elif names(rule, peer, parse_address(address)):
            said[rule.tier].append(rule.action)
    if said[Tier.ADMIN] and said[Tier.ADMIN][0] is not Action.PASS:
        return said[Tier.ADMIN][0] is Action.ALLOW
    isolated = policy.isolated or (audit and policy.audit_isolated)
    if said[Tier.NORMAL] or isolated:
        return bool(said[Tier.NORMAL]) and Action.DENY not in said[Tier.NORMAL]
    return not said[Tier.BASELINE] or said[Tier.BASELINE][0] is not Action.DENY


PACKETS = tuple(product(PEERS, ADDRESSES, PROTOCOLS, PORTS))


@pytest.mark.parametrize("seed", range(8))
def test_tables_say_what_the_rules_say(seed: int) -> None:
    dice = Random(seed)
    sets = {key: PeerSet(set_key=key, identities=found) for key, found in SETS.items()}
    for _ in range(60):
        found = policy(dice)
        resolved = resolve(SubjectPolicy(identity=256, ingress=found), sets)
        enforced = resolved.ingress
        for tables, audit in ((enforced, False), (resolved.audit_ingress or enforced, True)):
            judge = None if tables is None else Judge(tables)
            for packet in dice.sample(PACKETS, 40):
                peer, address, protocol, port = packet
                allowed = judge is None or allows(
                    judge.ruling(peer, parse_address(address), protocol, port)
                )
                assert allowed == passes(found, packet, audit=audit), (packet, audit, found)

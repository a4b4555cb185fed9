"""A DirectionPolicy read word by word: what the agent's tables have to amount to."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address, ip_network

from deltaplane.model.identity import FIRST_IDENTITY, Reserved
from deltaplane.model.objects import DirectionPolicy, DirectionRule, PeerSet
from deltaplane.model.tiers import Action, Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """The other side. identity: 256 or more of a pod, else a reserved one."""

    identity: int
    address: str


def reads(
    direction: DirectionPolicy,
    peer_sets: Mapping[bytes, PeerSet],
    remote: Remote,
    protocol: int,
    port: int,
    *,
    audit: bool = False,
) -> bool:
    """Whether the first packet of a connection passes.

    audit: policies under audit count as if they were enforced.
    """
    matching = [
        rule
        for rule in direction.rules
        if (audit or not rule.audit)
        and _is_peer(rule, peer_sets, remote)
        and _is_port(rule, protocol, port)
    ]
    for tier in Tier:
        actions = [rule.action for rule in matching if rule.tier is tier]
        if tier is Tier.NORMAL:
            if actions:
                return Action.DENY not in actions
            if direction.audit_isolated if audit else direction.isolated:
                return False
        elif actions and actions[0] is not Action.PASS:
            return actions[0] is Action.ALLOW
    return True


def _is_peer(rule: DirectionRule, peer_sets: Mapping[bytes, PeerSet], remote: Remote) -> bool:
    is_pod = remote.identity >= FIRST_IDENTITY or remote.identity == Reserved.OTHER_POD
    return (
        rule.all_peers
        or remote.identity in rule.entities
        or (is_pod and Reserved.OTHER_POD in rule.entities)
        or any(remote.identity in peer_sets[key].identities for key in rule.peer_sets)
        or (
            not (rule.outside_only and remote.identity != Reserved.WORLD)
            and _is_inside(rule, remote.address)
        )
    )


def _is_inside(rule: DirectionRule, address: str) -> bool:
    return any(
        _covers(str(block.cidr), address)
        and not any(_covers(str(hole), address) for hole in block.except_)
        for block in rule.blocks
    )


@cache
def _covers(prefix: str, address: str) -> bool:
    return ip_address(address) in ip_network(prefix)


def _is_port(rule: DirectionRule, protocol: int, port: int) -> bool:
    return not rule.ports or any(
        item.protocol == protocol and item.first <= port <= item.last for item in rule.ports
    )

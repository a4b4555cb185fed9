"""Rules of Cilium's policies: (any of the peers) and (any of the ports).

peers       ports       the rule matches
absent      absent      nothing: all that it does is to isolate
absent      given       the ports of every peer
[]          either      nothing
given       absent      every port of the peers
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from deltaplane.manifest.ciliumlabels import RESERVED, read_peer
from deltaplane.manifest.ciliumports import read_ports
from deltaplane.manifest.networkpolicy import BLOCK, read_block, read_prefix
from deltaplane.manifest.reading import Reader
from deltaplane.model.identity import Reserved
from deltaplane.model.policy import IPBlock
from deltaplane.model.tiers import Action, Rule, Selector

ALL = "all"
NONE = "none"
CLUSTER = "cluster"
_CLUSTER = frozenset(RESERVED.values()) - {Reserved.WORLD} | {Reserved.OTHER_POD}
_ENTITIES = (ALL, CLUSTER, *RESERVED, NONE)

_REFUSED_ENTITIES = {
    "ingress": "there is no proxy here",
    "world-ipv4": "name the CIDR 0.0.0.0/0 instead",
    "world-ipv6": "name the CIDR ::/0 instead",
}
_REFUSED_BLOCKS = {
    "cidrGroupRef": "there are no CiliumCIDRGroups here; write the prefixes",
    "cidrGroupSelector": "there are no CiliumCIDRGroups here; write the prefixes",
}
_AUTHENTICATION = {"authentication": "peers are not authenticated here"}


class Direction(enum.Enum):
    """Value: how the names of the fields begin that name peers."""

    INGRESS = "from"
    EGRESS = "to"


_REFUSED = {
    Direction.INGRESS: {
        "fromRequires": "Cilium has removed it, too; add its labels to the items of fromEndpoints",
        "fromGroups": "groups of cloud providers are not known here; write the prefixes",
        "fromNodes": "nodes are not told apart by labels here; name the entity remote-node or host",
        **_AUTHENTICATION,
    },
    Direction.EGRESS: {
        "toRequires": "Cilium has removed it, too; add its labels to the items of toEndpoints",
        "toServices": "select the service's pods with toEndpoints",
        "toFQDNs": "names of hosts are not known here; write the prefixes",
        "toGroups": "groups of cloud providers are not known here; write the prefixes",
        "toNodes": "nodes are not told apart by labels here; name the entity remote-node or host",
        **_AUTHENTICATION,
    },
}


@dataclass(slots=True)
class _Peers:
    """What the fields of a rule name, each once and in their order."""

    everybody: bool = False
    selectors: dict[Selector, None] = field(default_factory=dict)
    blocks: dict[IPBlock, None] = field(default_factory=dict)
    entities: set[Reserved] = field(default_factory=set)


def read_rule(
    reader: Reader, direction: Direction, action: Action, namespace: str, name: str
) -> Rule:
    """Reads a rule; what is wrong is reported and left out.

    Args:
        reader: the rule.
        direction: of its section.
        action: of its section.
        namespace: that the policy lives in; empty for kinds that live in none.
        name: the rule's.
    """
    kinds = {f"{direction.value}{kind}": read for kind, read in _KINDS_OF_PEERS.items()}
    refused = _REFUSED[direction]
    reader.has_fields((*kinds, "toPorts", "icmps", *refused))
    reader.refuse(refused)
    ports, icmps = reader.get("toPorts"), reader.get("icmps")
    given = {kind: found for kind in kinds if (found := reader.get(kind))}
    peers = _Peers()
    for kind, listed in given.items():
        for item in listed.items():
            kinds[kind](item, namespace, peers)
    named = [kind for kind, listed in given.items() if listed.value]
    if len(named) > 1:
        reader.mistake(f"names peers by {' and '.join(named)}; write a rule for each, as in Cilium")
    read = read_ports(ports, icmps)
    # An empty list of peers is nobody; none at all is everybody, but only for some ports.
    nobody = len(named) < len(given)
    everybody = peers.everybody or (not given and not read.any_port)
    by_name = not nobody and not everybody
    return Rule(
        action=action,
        all_peers=everybody and not nobody,
        selectors=tuple(peers.selectors) if by_name else (),
        blocks=tuple(peers.blocks) if by_name else (),
        outside_only=by_name and bool(peers.blocks),
        entities=tuple(sorted(peers.entities)) if by_name else (),
        any_port=read.any_port,
        ranges=read.ranges,
        port_names=read.port_names,
        name=name,
    )


def _endpoints(reader: Reader, namespace: str, peers: _Peers) -> None:
    peer = read_peer(reader, namespace)
    if isinstance(peer, Selector):
        peers.selectors[peer] = None
    elif peer is not None:
        peers.entities.add(peer)


def _entity(reader: Reader, _: str, peers: _Peers) -> None:
    reason = _REFUSED_ENTITIES.get(reader.value) if isinstance(reader.value, str) else None
    if reason is not None:
        reader.mistake(f'"{reader.value}" is not supported: {reason}')
        return
    word = reader.choice(_ENTITIES)
    if word == ALL:
        peers.everybody = True
    elif word == CLUSTER:
        peers.entities |= _CLUSTER
    elif word is not None and word != NONE:
        peers.entities.add(RESERVED[word])


def _prefix(reader: Reader, _: str, peers: _Peers) -> None:
    prefix = read_prefix(reader)
    if prefix is not None:
        peers.blocks[IPBlock(prefix)] = None


def _block(reader: Reader, _: str, peers: _Peers) -> None:
    if not reader.has_fields((*BLOCK, *_REFUSED_BLOCKS)):
        return
    reader.refuse(_REFUSED_BLOCKS)
    if any(reader.get(name) for name in _REFUSED_BLOCKS):
        return
    block = read_block(reader)
    if block is not None:
        peers.blocks[block] = None


_KINDS_OF_PEERS: dict[str, Callable[[Reader, str, _Peers], None]] = {
    "Endpoints": _endpoints,
    "Entities": _entity,
    "CIDR": _prefix,
    "CIDRSet": _block,
}

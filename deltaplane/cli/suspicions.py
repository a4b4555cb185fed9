"""What policies under audit would have denied, told by policy. Pure.

The kernel counts by identities and port; which policy it would have been is what the policies say
of such a connection now.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from deltaplane.cli.world import World, labels, reserved
from deltaplane.model.identity import FIRST_IDENTITY, LabelSet
from deltaplane.model.ports import Protocol
from deltaplane.policy.explain import Party, Side, side
from deltaplane.v1 import agent_pb2

_PROTOCOLS = {int(protocol): protocol.name for protocol in Protocol}


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """Connections of one kind that passed, and that a policy under audit would have denied.

    Attributes:
        policy: its reference; empty: none of those there are now.
        ingress: it would have been the destination's policy; else the source's.
        source: who connected: namespace and labels, or a reserved identity.
        destination: to whom.
        traffic: protocol and destination port, or type of an ICMP message.
        connections: how many, on all nodes, since their agents started.
    """

    policy: str
    ingress: bool
    source: str
    destination: str
    traffic: str
    connections: int


def suspicions(world: World, denials: Iterable[agent_pb2.Denial]) -> tuple[Suspicion, ...]:
    """One for each policy and kind of connection, most connections first.

    Args:
        world: identities of pods that are there, and the policies.
        denials: of all agents; those that are not under audit are left out.
    """
    known = {
        owner.identity: owner.label_set
        for owner in world.owners.values()
        if owner.label_set is not None
    }
    counted: Counter[tuple[int, int, bool, int, int]] = Counter()
    for item in denials:
        if item.audit:
            key = item.subject_identity, item.peer_identity, item.ingress, item.protocol, item.port
            counted[key] += item.packets
    found = []
    for (subject, peer, ingress, protocol, port), connections in counted.items():
        ends = _name(subject, known), _name(peer, known)
        source, destination = reversed(ends) if ingress else ends
        asked = _side(world, known, subject, peer, protocol=protocol, port=port, ingress=ingress)
        found += [
            Suspicion(
                policy=policy,
                ingress=ingress,
                source=source,
                destination=destination,
                traffic=f"{_PROTOCOLS.get(protocol, protocol)} {port}",
                connections=connections,
            )
            for policy in (_culprits(world, asked) or [""])
        ]
    return tuple(sorted(found, key=lambda s: (-s.connections, s.policy, s.source, s.traffic)))


def _side(
    world: World,
    known: Mapping[int, LabelSet],
    subject: int,
    peer: int,
    *,
    protocol: int,
    port: int,
    ingress: bool,
) -> Side:
    # The address was not counted: rules about addresses do not match.
    parties = [Party(address=b"", identity=n, label_set=known.get(n)) for n in (subject, peer)]
    return side(world.policies, *parties, protocol=protocol, port=port, outgoing=not ingress)


def _culprits(world: World, asked: Side) -> list[str]:
    """Policies under audit that would deny it: those whose rules do, or else that isolate it."""
    if asked.audit.allowed:
        return []
    if asked.audit.by:
        return sorted({match.policy for match in asked.audit.by if match.audit})
    return sorted(_isolating(world, asked))


def _isolating(world: World, asked: Side) -> Iterator[str]:
    applying = set(asked.policies)
    for policy in world.policies:
        isolates = policy.isolates_egress if asked.outgoing else policy.isolates_ingress
        if policy.audit and isolates and policy.reference in applying:
            yield policy.reference


def _name(identity: int, known: Mapping[int, LabelSet]) -> str:
    if (label_set := known.get(identity)) is not None:
        return labels(label_set)
    return reserved(identity) if identity < FIRST_IDENTITY else f"identity {identity}"

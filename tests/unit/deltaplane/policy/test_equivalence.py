"""Compiler and explanations say what the policies say, packet by packet."""

from collections.abc import Iterable, Iterator
from itertools import product
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from deltaplane.model.addresses import parse_address
from deltaplane.model.identity import Identity, Reserved
from deltaplane.model.objects import PeerSet, SubjectPolicy
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.ports import TRANSPORTS, Protocol
from deltaplane.model.tiers import Policy
from deltaplane.policy.compiler import Compiler
from deltaplane.policy.explain import Party, explain
from deltaplane.policy.translate import of_network_policy
from tests.unit.deltaplane.policy import worlds
from tests.unit.deltaplane.policy.brute_force import AnyPolicy, End, Packet, allowed
from tests.unit.deltaplane.policy.reading import Remote, reads

OTHER_PROTOCOL = 47
PACKETS = 100
PORTS = (*worlds.PORTS, 1, 79, 100, 101, 65535)


def compiled(policies: Iterable[AnyPolicy], identities: Iterable[Identity]) -> Compiler:
    compiler = Compiler()
    for policy in policies:
        compiler.set_policy(policy)
    for identity in identities:
        compiler.set_identity(identity)
    return compiler


def general(policies: Iterable[AnyPolicy]) -> Iterator[Policy]:
    for policy in policies:
        yield of_network_policy(policy) if isinstance(policy, NetworkPolicy) else policy


def packet(random: Random, identities: tuple[Identity, ...]) -> Packet:
    family = random.choice((".", ":"))
    addresses = [address for address in worlds.ADDRESSES if family in address]
    # Most packets between pods: a policy seldom names a reserved identity.
    ends: tuple[End, ...] = (*identities, *identities, *worlds.ENTITIES)
    protocol = random.choice((*TRANSPORTS, *Protocol, OTHER_PROTOCOL))
    ports = PORTS if protocol in TRANSPORTS else worlds.ICMP_TYPES
    return Packet(
        source=random.choice(ends),
        source_address=random.choice(addresses),
        destination=random.choice(ends),
        destination_address=random.choice(addresses),
        protocol=protocol,
        port=0 if protocol == OTHER_PROTOCOL else random.choice(ports),
    )


def number(end: End) -> int:
    return end.id if isinstance(end, Identity) else end


class Reading:
    """What a compiler's output says."""

    def __init__(self, compiler: Compiler) -> None:
        everything = compiler.all()
        self.peer_sets = {v.key: v for v in everything if isinstance(v, PeerSet)}
        self.subjects = {v.identity: v for v in everything if isinstance(v, SubjectPolicy)}

    def allows(self, packet: Packet, *, outgoing: bool, audit: bool = False) -> bool:
        subject, peer = packet.source, packet.destination
        address = packet.destination_address
        if not outgoing:
            subject, peer, address = peer, subject, packet.source_address
        if not isinstance(subject, Identity) or (peer is Reserved.HOST and not outgoing):
            return True
        policy = self.subjects[subject.id]
        return reads(
            policy.egress if outgoing else policy.ingress,
            self.peer_sets,
            Remote(identity=number(peer), address=address),
            packet.protocol,
            packet.port,
            audit=audit,
        )


def party(end: End, address: str) -> Party:
    label_set = end.label_set if isinstance(end, Identity) else None
    return Party(address=parse_address(address), identity=number(end), label_set=label_set)


@settings(max_examples=150, deadline=None)
@given(worlds.any_policy_lists(), worlds.identities(), st.integers(0, 1 << 32))
def test_every_packet_gets_the_verdict_of_the_policies(
    policies: tuple[AnyPolicy, ...], identities: tuple[Identity, ...], seed: int
) -> None:
    reading = Reading(compiled(policies, identities))
    translated = tuple(general(policies))
    random = Random(seed)
    for sent in (packet(random, identities) for _ in range(PACKETS)):
        explained = explain(
            translated,
            party(sent.source, sent.source_address),
            party(sent.destination, sent.destination_address),
            protocol=sent.protocol,
            port=sent.port,
        )
        for outgoing, audit in product((True, False), repeat=2):
            side = explained.egress if outgoing else explained.ingress
            expected = allowed(policies, sent, outgoing=outgoing, audit=audit)
            found = reading.allows(sent, outgoing=outgoing, audit=audit)
            assert found == expected, (sent, outgoing, audit, reading.subjects)
            told = side.audit if audit else side.decision
            assert told.allowed == expected, (sent, outgoing, audit, side)

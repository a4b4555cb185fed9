"""Compiler, resolver and verdict together say what the policies say."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from deltaplane.model.addresses import parse_address
from deltaplane.model.identity import Identity, Reserved
from deltaplane.model.objects import PeerSet, SubjectPolicy
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.ports import TRANSPORTS
from deltaplane.policy.compiler import Compiler
from deltaplane.policy.explain import Party, explain
from nodeagent.dataplane.port import Verdict
from nodeagent.policy import resolve, verdict
from tests.unit.deltaplane.policy import worlds
from tests.unit.deltaplane.policy.brute_force import Packet, allowed

ICMP = 1
PORTS = (*worlds.PORTS, 1, 79, 100, 101, 65535)


def compiled(policies: tuple[NetworkPolicy, ...], identities: tuple[Identity, ...]) -> Compiler:
    compiler = Compiler()
    for policy in policies:
        compiler.set_policy(policy)
    for identity in identities:
        compiler.set_identity(identity)
    return compiler


@st.composite
def packets(draw: st.DrawFn, identities: tuple[Identity, ...]) -> Packet:
    family = draw(st.sampled_from((".", ":")))
    addresses = st.sampled_from([a for a in worlds.ADDRESSES if family in a])
    ends = st.sampled_from((*identities, None))
    protocol = draw(st.sampled_from((*TRANSPORTS, ICMP)))
    return Packet(
        source=draw(ends),
        source_address=draw(addresses),
        destination=draw(ends),
        destination_address=draw(addresses),
        protocol=protocol,
        port=0 if protocol == ICMP else draw(st.sampled_from(PORTS)),
    )


@settings(max_examples=400, deadline=None)
@given(worlds.policy_lists(), worlds.identities(), st.data())
def test_every_packet_gets_the_verdict_of_the_policies(
    policies: tuple[NetworkPolicy, ...], identities: tuple[Identity, ...], data: st.DataObject
) -> None:
    everything = compiled(policies, identities).all()
    peer_sets = {value.key: value for value in everything if isinstance(value, PeerSet)}
    subjects = {
        value.identity: resolve(value, peer_sets)
        for value in everything
        if isinstance(value, SubjectPolicy)
    }
    for packet, outgoing in product(
        data.draw(st.lists(packets(identities), min_size=8, max_size=16)), (True, False)
    ):
        subject = packet.source if outgoing else packet.destination
        peer = packet.destination if outgoing else packet.source
        if subject is None:
            continue
        resolved = subjects[subject.id]
        remote = packet.destination_address if outgoing else packet.source_address
        found = verdict(
            resolved.egress if outgoing else resolved.ingress,
            Reserved.WORLD if peer is None else peer.id,
            parse_address(remote),
            packet.protocol,
            packet.port,
        )
        assert (found is Verdict.ALLOW) == allowed(list(policies), packet, outgoing=outgoing), (
            packet,
            outgoing,
            resolved,
        )


@settings(max_examples=200, deadline=None)
@given(worlds.policy_lists(), worlds.identities(), st.data())
def test_an_explanation_agrees_with_the_policies(
    policies: tuple[NetworkPolicy, ...], identities: tuple[Identity, ...], data: st.DataObject
) -> None:
    for packet in data.draw(st.lists(packets(identities), min_size=4, max_size=8)):
        ends = [
            Party(address=parse_address(address), label_set=end.label_set if end else None)
            for end, address in (
                (packet.source, packet.source_address),
                (packet.destination, packet.destination_address),
            )
        ]
        found = explain(policies, ends[0], ends[1], protocol=packet.protocol, port=packet.port)
        assert found.egress.allowed == allowed(list(policies), packet, outgoing=True)
        assert found.ingress.allowed == allowed(list(policies), packet, outgoing=False)

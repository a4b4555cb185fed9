"""What the agent makes of a compiler's output says what the policies say, packet by packet."""

from itertools import product
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from deltaplane.model.addresses import parse_address
from deltaplane.model.identity import Identity, Reserved
from deltaplane.model.objects import PeerSet, SubjectPolicy
from nodeagent.policy import ResolvedDirection, ResolvedPolicy, resolve
from nodeagent.verdict import Judge, allows
from tests.unit.deltaplane.policy import worlds
from tests.unit.deltaplane.policy.brute_force import AnyPolicy, Packet, allowed
from tests.unit.deltaplane.policy.test_equivalence import compiled, number, packet

PACKETS = 100


class Tables:
    """The kernel's tables of one subject, ready to be asked."""

    def __init__(self, resolved: ResolvedPolicy) -> None:
        audit_egress = resolved.audit_egress or resolved.egress
        audit_ingress = resolved.audit_ingress or resolved.ingress
        self._judges = {
            (True, False): _judge(resolved.egress),
            (True, True): _judge(audit_egress),
            (False, False): _judge(resolved.ingress),
            (False, True): _judge(audit_ingress),
        }

    def allow(self, sent: Packet, *, outgoing: bool, audit: bool) -> bool:
        judge = self._judges[outgoing, audit]
        peer = sent.destination if outgoing else sent.source
        address = sent.destination_address if outgoing else sent.source_address
        return judge is None or allows(
            judge.ruling(number(peer), parse_address(address), sent.protocol, sent.port)
        )


def _judge(direction: ResolvedDirection | None) -> Judge | None:
    return None if direction is None else Judge(direction)


@settings(max_examples=150, deadline=None)
@given(worlds.any_policy_lists(), worlds.identities(), st.integers(0, 1 << 32))
def test_every_packet_gets_the_verdict_of_the_policies(
    policies: tuple[AnyPolicy, ...], identities: tuple[Identity, ...], seed: int
) -> None:
    everything = compiled(policies, identities).all()
    peer_sets = {value.key: value for value in everything if isinstance(value, PeerSet)}
    tables = {
        value.identity: Tables(resolve(value, peer_sets))
        for value in everything
        if isinstance(value, SubjectPolicy)
    }
    random = Random(seed)
    for _, outgoing, audit in product(range(PACKETS), (True, False), (False, True)):
        sent = packet(random, identities)
        subject = sent.source if outgoing else sent.destination
        peer = sent.destination if outgoing else sent.source
        if not isinstance(subject, Identity):
            continue
        # What a pod's own node sends is not judged, and who is in doubt is denied.
        if peer is Reserved.UNKNOWN or (peer is Reserved.HOST and not outgoing):
            continue
        expected = allowed(policies, sent, outgoing=outgoing, audit=audit)
        found = tables[subject.id].allow(sent, outgoing=outgoing, audit=audit)
        assert found == expected, (sent, outgoing, audit)

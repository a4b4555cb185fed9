"""What the tables of nodes say about a question, as the data path would read them. Pure.

The twin of the way of a first packet from pod to pod through bpf/from_pod.bpf.c, the uplink and
bpf/to_pod.bpf.c. No packet is sent: what the kernel, links and routes would do to one is not seen.
"""

import enum
from collections.abc import Mapping

from deltaplane.model.addresses import parse_address, to_mapped
from deltaplane.model.identity import Reserved
from deltaplane.model.ports import Protocol
from lab.probing import Question
from nodeagent.dataplane.memory import Held
from nodeagent.dataplane.port import LocalEndpoint
from nodeagent.verdict import Judge, allows

ADDRESS_BITS = 128


class Outcome(enum.Enum):
    """How a first packet would end; the value is for people."""

    PASSED = "passed"
    NO_ENDPOINT = "its node does not know the sender"
    SENDER_CLOSED = "the sender has no policies yet"
    EGRESS = "egress policy"
    NO_WAY = "no next hop"
    NOBODY = "nobody has the address on the node that it is sent to"
    RECEIVER_CLOSED = "the receiver has no policies yet"
    INGRESS = "ingress policy"


class Tables:
    """What one node holds, ready to be asked."""

    def __init__(self, held: Held) -> None:
        actual = held.actual
        self.node_index = held.node_index
        self.next_hops = {hop.node_index: hop for hop in actual.next_hops}
        self._mappings = {mapping.address: mapping for mapping in actual.mappings}
        self._ranges = {
            (entry.length, _head(entry.address, entry.length)): entry for entry in actual.ranges
        }
        self._lengths = sorted({entry.length for entry in actual.ranges}, reverse=True)
        self._subjects = {subject.identity: subject for subject in actual.subjects}
        self._judges = {kept.set_id: Judge(kept) for kept in actual.policy_sets}
        self._endpoints: dict[bytes, LocalEndpoint] = {}
        for endpoint in actual.local_endpoints:
            for address in (endpoint.ipv4, endpoint.ipv6):
                if address is not None:
                    self._endpoints[to_mapped(address)] = endpoint

    def endpoint(self, address: bytes) -> LocalEndpoint | None:
        """The pod of this node that has an address of 16 bytes."""
        return self._endpoints.get(address)

    def identify(self, address: bytes) -> tuple[int, int]:
        """Identity and node of an address of 16 bytes: its mapping, its block, the world."""
        if (mapping := self._mappings.get(address)) is not None:
            return mapping.identity, mapping.node_index
        for length in self._lengths:
            if (entry := self._ranges.get((length, _head(address, length)))) is not None:
                return entry.identity, entry.node_index
        return Reserved.WORLD, 0

    def is_closed(self, identity: int) -> bool:
        """Whether nothing passes from or to an identity."""
        return not identity or identity not in self._subjects

    def permits(self, identity: int, peer: bytes, question: Question, *, ingress: bool) -> bool:
        """Whether the policies of an identity that is not closed let a peer's packet pass."""
        subject = self._subjects[identity]
        set_id = subject.ingress_set if ingress else subject.egress_set
        if not set_id:
            return True
        peer_identity, _ = self.identify(peer)
        protocol = Protocol[question.protocol]
        return allows(self._judges[set_id].ruling(peer_identity, peer, protocol, question.port))


def _head(address: bytes, length: int) -> int:
    return int.from_bytes(address) >> (ADDRESS_BITS - length)


def judge(nodes: Mapping[int, Tables], node: Tables, source: str, question: Question) -> Outcome:
    """How the first packet would end.

    Args:
        nodes: all nodes by number.
        node: that of the sender.
        source: the sender's address of the question's family.
        question: what is asked.
    """
    sender, receiver = (to_mapped(parse_address(text)) for text in (source, question.address))
    pod = node.endpoint(sender)
    if pod is None:
        return Outcome.NO_ENDPOINT
    if node.is_closed(pod.identity):
        return Outcome.SENDER_CLOSED
    if not node.permits(pod.identity, receiver, question, ingress=False):
        return Outcome.EGRESS
    there = node
    if node.endpoint(receiver) is None:
        _, index = node.identify(receiver)
        if not _leads_to(node, index, question) or index not in nodes:
            return Outcome.NO_WAY
        there = nodes[index]
    target = there.endpoint(receiver)
    if target is None:
        return Outcome.NOBODY
    if there.is_closed(target.identity):
        return Outcome.RECEIVER_CLOSED
    if not there.permits(target.identity, sender, question, ingress=True):
        return Outcome.INGRESS
    return Outcome.PASSED


def _leads_to(node: Tables, index: int, question: Question) -> bool:
    """Whether a node has a next hop to another one; IPv6 carries IPv4, too (deliver.h)."""
    hop = node.next_hops.get(index)
    if hop is None or index == node.node_index:
        return False
    return hop.ipv6 is not None or (question.family == "ipv4" and hop.ipv4 is not None)

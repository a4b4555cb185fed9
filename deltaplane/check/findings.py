"""What can be wrong, what it means, and what helps.

Every repair is looked at again by whoever carries it out, and does nothing where nothing is wrong
any more: so it may be repeated, and may come late.
"""

import enum
from dataclasses import dataclass

from deltaplane.model.addresses import Prefix


class Kind(enum.StrEnum):
    """Kinds of disagreement."""

    # etcd with itself
    ADDRESS_KEY = "address-key"
    NUMBER_KEY = "number-key"
    REQUEST_KEY = "request-key"
    FIXED_KEY = "fixed-key"
    FREED_KEY = "freed-key"
    CLUSTER_IP_KEY = "cluster-ip-key"
    NODE_PORT_KEY = "node-port-key"
    ADDRESS_TWICE = "address-twice"
    ENDPOINT_NODE = "endpoint-without-node"
    ENDPOINT_OUTSIDE = "endpoint-outside-blocks"
    BLOCK_NODE = "block-without-node"
    BLOCK_OVERLAP = "blocks-overlap"
    BLOCK_POOL = "block-outside-pool"
    POOL_COUNT = "pool-count"
    # a node with etcd
    AGENT_UNREACHABLE = "agent-unreachable"
    AGENT_NOT_ASKED = "agent-not-asked"
    AGENT_BEHIND = "agent-behind"
    NODE_UNKNOWN = "node-not-registered"
    NOT_REGISTERED = "not-registered"
    NOT_IN_JOURNAL = "not-in-journal"
    ENDPOINT_DIFFERS = "endpoint-differs"
    BLOCK_LOST = "block-not-owned"
    BLOCK_UNKNOWN = "block-not-in-journal"
    # a journal with itself
    HELD_OUTSIDE = "held-outside-blocks"
    HELD_RELEASED = "held-and-quarantined"
    # a journal with its kernel
    LINK_MISSING = "link-missing"
    LINK_UNKNOWN = "link-unknown"
    ROUTE_MISSING = "route-missing"
    ROUTE_UNKNOWN = "route-unknown"
    PROGRAM_MISSING = "data-path-missing"
    PROGRAM_DIFFERS = "data-path-differs"
    PROGRAM_UNKNOWN = "data-path-unknown"
    MAPPING_WRONG = "mapping-wrong"
    BLOCK_ROUTE = "block-route-missing"


MEANINGS = {
    Kind.ADDRESS_KEY: "Nobody can get the address, or two could: the key decides who has it.",
    Kind.NUMBER_KEY: "The node cannot use the number, or what it had there outlives it.",
    Kind.REQUEST_KEY: "A claim with this request is never answered, or gets a second block.",
    Kind.FIXED_KEY: "The address counts as claimed alone though it is not, or the other way round.",
    Kind.FREED_KEY: "Addresses may be handed out before every node has forgotten their owner.",
    Kind.CLUSTER_IP_KEY: "No service can get the address, or two could: the key decides.",
    Kind.NODE_PORT_KEY: "No service can get the node port, or two could: the key decides.",
    Kind.ADDRESS_TWICE: "Two pods have one address: packets reach one of them.",
    Kind.ENDPOINT_NODE: "A pod of a node that is gone keeps its address.",
    Kind.ENDPOINT_OUTSIDE: "No node gets the packets to this address, or another one does.",
    Kind.BLOCK_NODE: "The addresses of a node that is gone are lost.",
    Kind.BLOCK_OVERLAP: "Two nodes hand out the same addresses.",
    Kind.BLOCK_POOL: "The block counts for no pool, and its traffic as going outside.",
    Kind.POOL_COUNT: "The pool looks fuller or emptier than it is.",
    Kind.AGENT_UNREACHABLE: "Its journal and its kernel were not looked at.",
    Kind.AGENT_NOT_ASKED: "Its journal and its kernel were not looked at.",
    Kind.AGENT_BEHIND: "What its kernel should hold by now was not compared.",
    Kind.NODE_UNKNOWN: "The agent's pods are registered nowhere.",
    Kind.NOT_REGISTERED: "No other node knows the pod, and nothing keeps its address from others.",
    Kind.NOT_IN_JOURNAL: "The address is lost: no pod has it, and nobody will release it.",
    Kind.ENDPOINT_DIFFERS: "Other nodes send the pod's packets elsewhere.",
    Kind.BLOCK_LOST: "The node hands out addresses that are not its own.",
    Kind.BLOCK_UNKNOWN: "The addresses of the block are lost to everybody.",
    Kind.HELD_OUTSIDE: "The pod's address may be handed out elsewhere.",
    Kind.HELD_RELEASED: "The address may be handed out while a pod has it.",
    Kind.LINK_MISSING: "The pod has no network.",
    Kind.LINK_UNKNOWN: "A link of a pod that is gone is left over.",
    Kind.ROUTE_MISSING: "The node does not reach the pod.",
    Kind.ROUTE_UNKNOWN: "Packets to an address that nobody has go to a pod.",
    Kind.PROGRAM_MISSING: "The pod is cut off: what is missing closes.",
    Kind.PROGRAM_DIFFERS: "The pod's packets are judged as somebody else's.",
    Kind.PROGRAM_UNKNOWN: "The data path serves an interface that is gone.",
    Kind.MAPPING_WRONG: "Packets of the pod are judged as somebody else's.",
    Kind.BLOCK_ROUTE: "The node's stack does not reach the pods of the block.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FixPointer:
    """A pointer, as `deltaplane.v1.PointerRepair`."""

    key: str
    revision: int
    target: str = ""


@dataclass(frozen=True, slots=True)
class RemoveLeftovers:
    """What former registrations of a node have left behind."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseEndpoint:
    """An endpoint that its node does not know, by its incarnation."""

    namespace: str
    pod: str
    node: str
    node_uid: str
    number: int
    incarnation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AskAgent:
    """Something that a node's agent puts right, as `deltaplane.v1.AddressRepair`; one is set."""

    node: str
    interface: int = 0
    link: str = ""
    route: Prefix | None = None
    data_path: bool = False
    blocks: bool = False


Repair = FixPointer | RemoveLeftovers | ReleaseEndpoint | AskAgent


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One disagreement.

    Attributes:
        kind: what is wrong.
        node: whose it is; empty: nobody's in particular.
        subject: the address, block, key or interface, for people.
        seen: what each side says, for people.
        advice: the safe repair, for people.
        repair: the same for `--repair`; None: only by hand.
        evidence: numbers and revisions that this rests on. A finding of a later look is the same
            only if they are the same.
    """

    kind: Kind
    node: str = ""
    subject: str
    seen: str
    advice: str
    repair: Repair | None = None
    evidence: tuple[object, ...] = ()

    @property
    def meaning(self) -> str:
        """What follows from it, for people."""
        return MEANINGS[self.kind]

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal in two looks: it is the same disagreement."""
        return self.kind, self.node, self.subject, self.evidence

"""The values of a ledger: interfaces, the ledger itself, and the writes that make a step durable.

Pure.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from deltaplane.model.addresses import AddressPair
from nodeagent.addressing import Block, Progress, Released
from nodeagent.cni.netconf import Attachment, HostPort, PodName
from nodeagent.pools import Pool


class State(enum.StrEnum):
    """Where an interface is in its life."""

    ALLOCATING = "allocating"
    READY = "ready"
    LOST = "lost"
    """This node does not own its addresses any more: nothing passes, and only DEL is left."""
    RELEASING = "releasing"


class Kind(enum.StrEnum):
    """What an entry stands for."""

    POD = "pod"
    """An interface that this agent makes."""
    IPAM = "ipam"
    """Addresses for an interface that another plugin makes."""
    GATEWAY = "gateway"
    """The node's own address in a block of the IPAM-only mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceRecord:
    """One interface of a pod of this node, or addresses that somebody else uses.

    Attributes:
        number: from a counter, never reused by this node UID.
        state: see State.
        attachment: how the runtime names it.
        attempt: random, unique per ADD; with the attachment the owner token.
        pod: whose it is; without a name only with other kinds than POD.
        addresses: held until the entry is erased.
        kind: see Kind.
        host_ports: ports of this node that lead to it.
    """

    number: int
    state: State
    attachment: Attachment
    attempt: str
    pod: PodName
    addresses: AddressPair
    kind: Kind = Kind.POD
    host_ports: tuple[HostPort, ...] = ()

    @property
    def is_registered(self) -> bool:
        """Whether the registry knows it; other nodes know nothing of what no pod is named for."""
        return self.kind is Kind.POD or bool(self.pod.name)


# --- writes: what a step changes in the file ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class PutInterface:
    """A new interface; the counter of endpoint numbers is not behind it."""

    record: InterfaceRecord


@dataclass(frozen=True, slots=True)
class SetState:
    """An interface moves on."""

    number: int
    state: State


@dataclass(frozen=True, slots=True)
class DropInterface:
    """An interface is forgotten."""

    number: int


@dataclass(frozen=True, slots=True)
class PutBlock:
    """A block without its addresses; the counter of ordinals is not behind it."""

    block: Block


@dataclass(frozen=True, slots=True)
class DropBlock:
    """A block is forgotten."""

    ordinal: int


@dataclass(frozen=True, slots=True)
class PutReleased:
    """A released address."""

    address: bytes
    gone: Released


@dataclass(frozen=True, slots=True)
class DropReleased:
    """An address is held again, or its block is gone."""

    address: bytes


@dataclass(frozen=True, slots=True)
class PutPool:
    """A pool as it is now."""

    pool: Pool


@dataclass(frozen=True, slots=True)
class DropPool:
    """A pool that does not exist any more."""

    name: str


@dataclass(frozen=True, slots=True)
class SetCounters:
    """Both counters, after a rebuild."""

    number: int
    ordinal: int


@dataclass(frozen=True, slots=True)
class SetRebuilt:
    """The file is not new any more: it holds what the node had."""


Drop = DropInterface | DropBlock | DropReleased | DropPool
Write = PutInterface | SetState | PutBlock | PutReleased | PutPool | SetCounters | SetRebuilt | Drop


# --- the ledger ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Everything, at one moment. Its mappings are never written to.

    Attributes:
        last_number: highest endpoint number ever given.
        last_ordinal: highest ordinal of a block ever given.
        interfaces: by number.
        attachments: numbers of the interfaces that are not being released.
        blocks: by ordinal, oldest first.
        pools: by name.
        progress: as of the last barrier; not durable.
        foreign: single addresses that other nodes have claimed; not durable.
        is_new: the file was made anew, and what this node may have had has not been looked up yet.
    """

    last_number: int = 0
    last_ordinal: int = 0
    interfaces: Mapping[int, InterfaceRecord] = field(default_factory=dict)
    attachments: Mapping[Attachment, int] = field(default_factory=dict)
    blocks: Mapping[int, Block] = field(default_factory=dict)
    pools: Mapping[str, Pool] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    foreign: frozenset[bytes] = frozenset()
    is_new: bool = False

    def find(self, attachment: Attachment) -> InterfaceRecord | None:
        """The interface of an attachment that is not being released, or None."""
        number = self.attachments.get(attachment)
        return None if number is None else self.interfaces[number]

    def block_of(self, address: bytes) -> Block | None:
        """The block that an address lies in; one of a single address goes first."""
        found = None
        for block in self.blocks.values():
            if block.offset(address) is not None:
                if block.fixed:
                    return block
                found = block
        return found

    @property
    def own_fixed(self) -> frozenset[bytes]:
        """Addresses that this node has claimed one by one: not to be had from another block."""
        return frozenset(block.prefix.address for block in self.blocks.values() if block.fixed)

    def of_pool(self, name: str) -> tuple[Block, ...]:
        """The blocks of a pool from which addresses are handed out unasked, oldest first."""
        return tuple(
            block for block in self.blocks.values() if block.pool == name and not block.fixed
        )


@dataclass(frozen=True, slots=True)
class Step:
    """The next ledger, and what makes it durable."""

    ledger: Ledger
    writes: tuple[Write, ...] = ()


@dataclass(frozen=True, slots=True)
class Begun:
    """An interface that was opened.

    Attributes:
        step: to be made durable.
        record: the interface.
        past_fence: addresses that a fenced node may still map to somebody else.
    """

    step: Step
    record: InterfaceRecord
    past_fence: tuple[bytes, ...] = ()

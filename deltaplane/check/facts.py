"""What the check compares: etcd at one revision, and a node's journal and kernel."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from deltaplane.model.addresses import Prefix

Owner = tuple[str, str, str, str]
"""Network, container id, interface, attempt."""


# --- etcd ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A registered node. families: 4, 6 or both, those of its uplink."""

    name: str
    uid: str
    index: int
    families: frozenset[int] = frozenset({4, 6})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A pool."""

    name: str
    prefix: Prefix
    block_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block and its owner.

    Attributes:
        key: of its record.
        pointers: keys that have to name it.
        fixed: a single address that one pod asked for.
        revision: of its last write.
    """

    key: str
    prefix: Prefix
    pool: str
    node: str
    node_uid: str
    node_index: int
    pointers: frozenset[str] = frozenset()
    fixed: bool = False
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A registered endpoint.

    Attributes:
        key: of its record.
        number: given by the node.
        addresses: IPv4 first.
        identity: number of its identity.
        waiting: it has no pod record yet, and passes nothing.
        pointers: keys that have to name it.
        incarnation: revision at which it got its addresses.
        revision: of its last write.
    """

    key: str
    namespace: str
    pod: str
    node: str
    node_index: int
    number: int
    owner: Owner
    addresses: tuple[bytes, ...]
    identity: int = 0
    waiting: bool = False
    pointers: frozenset[str] = frozenset()
    incarnation: int = 0
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service. key: of its record; pointers: keys that have to name it."""

    key: str
    pointers: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """A key that names a record. target: the record's key."""

    key: str
    target: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """A key that says when a block was given back. prefix: None when the key names none."""

    key: str
    prefix: Prefix | None
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Everything about addresses in etcd.

    Attributes:
        revision: all of it is as of this.
        nodes: by name.
        pools: by name.
        blocks: by key.
        endpoints: by key.
        services: by key.
        pointers: by key.
        freed: keys that make the next owner of a block wait.
        counted: blocks of each pool as ipam counts them, of pools whose count did not change
            while the rest was read.
    """

    revision: int = 0
    nodes: Mapping[str, Node] = field(default_factory=dict)
    pools: Mapping[str, Pool] = field(default_factory=dict)
    blocks: Mapping[str, Block] = field(default_factory=dict)
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    pointers: Mapping[str, Pointer] = field(default_factory=dict)
    freed: tuple[Freed, ...] = ()
    counted: Mapping[str, int] = field(default_factory=dict)


# --- a node --------------------------------------------------------------------------------------


class State(enum.IntEnum):
    """Where an interface is in its life. Numbers of deltaplane.v1.JournalInterface.State."""

    ALLOCATING = 1
    READY = 2
    RELEASING = 3
    LOST = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """An interface of a journal."""

    number: int
    state: State
    owner: Owner
    namespace: str
    pod: str
    addresses: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnBlock:
    """A block of a journal. releasing: it is being given back."""

    prefix: Prefix
    fixed: bool = False
    releasing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A pod's link with our mark, the node's end. number: endpoint number in the mark."""

    name: str
    ifindex: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route of the kernel. ifindex: 0 for none; unreachable: packets end here."""

    prefix: Prefix
    ifindex: int = 0
    unreachable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Programmed:
    """An interface as the programs see it. identity: 0 while it is closed."""

    ifindex: int
    number: int
    identity: int
    addresses: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """What a node's agent says.

    Attributes:
        applied: revision that the kernel agrees with.
        blocks: of the journal.
        interfaces: of the journal, by number.
        released: addresses that the journal does not count as held, and their release revision.
        links: with our mark.
        routes: to single addresses and to blocks.
        programmed: interfaces of the data path.
        mappings: identity and node index, by address.
    """

    name: str
    uid: str
    index: int
    applied: int = 0
    blocks: tuple[OwnBlock, ...] = ()
    interfaces: Mapping[int, Interface] = field(default_factory=dict)
    released: Mapping[bytes, int] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    routes: tuple[Route, ...] = ()
    programmed: tuple[Programmed, ...] = ()
    mappings: Mapping[bytes, tuple[int, int]] = field(default_factory=dict)

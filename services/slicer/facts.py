"""Facts: the stored records as stream objects, with what the policy compiler derives from them.

Level, not edge: the objects after any history of records are those of the last record of each key.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol, assert_never

from deltaplane.balancing.compiler import Compiler as Balancer
from deltaplane.delta.changes import Change, ObjectKey, Removal, Upsert, incarnation_of
from deltaplane.model.identity import Identity
from deltaplane.model.objects import (
    BlockObject,
    EndpointObject,
    IdentityObject,
    NodeObject,
    PeerSet,
    PoolObject,
    ServiceObject,
    StreamObject,
    SubjectPolicy,
)
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.service import EndpointSlice, Service, ServiceType
from deltaplane.model.tiers import Policy
from services.slicer.quarantine import Release
from services.slicer.watermark import Fence


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A registered node."""

    object: NodeObject
    uid: str


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """A registered endpoint. traceparent: of the request that wrote it; empty when not traced."""

    object: EndpointObject
    traceparent: str = ""


Content = (
    NodeRecord
    | Fence
    | BlockObject
    | PoolObject
    | Identity
    | EndpointRecord
    | NetworkPolicy
    | Policy
    | Service
    | EndpointSlice
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is stored under a key.

    Attributes:
        key: store key; whoever reads the store checks that the content belongs to it.
        generation: revision of the write or deletion.
        content: None: deleted, or not readable and treated as absent.
        mistake: why the stored bytes could not be read; empty when they could.
    """

    key: str
    generation: int
    content: Content | None
    mistake: str = ""


class Compiled(Protocol):
    """What `flush` of a compiler returns."""

    @property
    def upserts(self) -> tuple[PeerSet | SubjectPolicy, ...]:
        """New and changed objects."""
        ...

    @property
    def removals(self) -> tuple[ObjectKey, ...]:
        """Objects that are gone."""
        ...


class Compiler(Protocol):
    """What Facts asks of the policy compiler; `deltaplane.policy.compiler.Compiler` is the one."""

    def set_policy(self, policy: NetworkPolicy | Policy) -> None:
        """Adds or replaces a policy."""
        ...

    def delete_policy(self, reference: str) -> None:
        """Removes the policy with this `reference`."""
        ...

    def set_identity(self, identity: Identity) -> None:
        """Adds or replaces an identity."""
        ...

    def delete_identity(self, number: int) -> None:
        """Removes an identity."""
        ...

    def flush(self) -> Compiled:
        """What changed since the last flush."""
        ...


class Facts:
    """The derived state at the last record taken, and the changes since the last flush.

    Attributes:
        nodes: registered nodes by name.
        fences: by node number; they are no objects of the stream.
        released: addresses that nobody holds any more, since whoever reads this emptied it.
        awaited: newest revision at which a node lost a block or got a fixed address.
        unreadable: keys whose record could not be read, and why.
        urgent: a change since the last flush takes something away or tightens security.
        structural: the first revision since the last flush at which something else was written than
            an endpoint or a new identity that is still there, and whose part in policies is; None:
            nothing was.
    """

    def __init__(self, compiler: Compiler) -> None:
        self.nodes: dict[str, NodeRecord] = {}
        self.fences: dict[int, Fence] = {}
        self.released: list[Release] = []
        self.awaited = 0
        self.unreadable: dict[str, str] = {}
        self.urgent = False
        self.structural: int | None = None
        self._compiler = compiler
        self._balancer = Balancer()
        self._records: dict[str, Record] = {}
        # Which record an object comes from: the newest, should two of them claim one key.
        self._owners: dict[ObjectKey, str] = {}
        self._changes: list[Change] = []
        # Identities that are new since the last flush, by key: at which revision.
        self._born: dict[str, int] = {}

    def apply(self, record: Record) -> None:
        """Takes a write or a deletion; older ones than the last of the key are ignored."""
        old = self._records.get(record.key)
        if old is not None and record.generation <= old.generation:
            return
        self._note_mistake(record)
        self._note_structural(record, old)
        if record.content is None:
            self._records.pop(record.key, None)
        else:
            self._records[record.key] = record
        if old is not None and old.content is not None:
            self._retract(old, record)
        if record.content is not None:
            self._assert(record.content, record)
        # Clients are sent to a backend until they hear that it is gone.
        self.urgent |= self._balancer.withdraws

    def relist(self, records: Iterable[Record], revision: int) -> None:
        """Takes a whole listing, when the history between the last record and it is gone."""
        listed = {record.key: record for record in records}
        for key in (self._records.keys() | self.unreadable.keys()) - listed.keys():
            self.apply(Record(key=key, generation=revision, content=None))
        for record in sorted(listed.values(), key=lambda r: r.generation):
            self.apply(record)

    def flush(self, revision: int) -> tuple[Change, ...]:
        """The changes since the last flush, and what follows from them at this revision."""
        compiled, balanced = self._compiler.flush(), self._balancer.flush()
        changes = self._changes
        changes.extend(
            Removal(kind=kind, key=key, generation=revision)
            for kind, key in (*compiled.removals, *balanced.removals)
        )
        changes.extend(Upsert(value, revision) for value in (*compiled.upserts, *balanced.upserts))
        self._changes, self.urgent, self.structural = [], False, None
        self._born.clear()
        return tuple(changes)

    # --- one record ------------------------------------------------------------------------------

    def _note_structural(self, record: Record, old: Record | None) -> None:
        if not _is_local(record, old):
            # Of an identity that has come since the last flush and goes again nothing is left that
            # would tell which nodes were told of it meanwhile.
            first = self._born.get(record.key, record.generation)
            if isinstance(record.content or (old and old.content), NetworkPolicy | Policy):
                # Nor of what a new identity did to a policy that is another now.
                first = min(self._born.values(), default=first)
            self.structural = min(first, self.structural or first)
        elif isinstance(record.content, Identity) and old is None:
            self._born[record.key] = record.generation

    def _note_mistake(self, record: Record) -> None:
        if record.mistake:
            self.unreadable[record.key] = record.mistake
        else:
            self.unreadable.pop(record.key, None)

    def _retract(self, old: Record, new: Record) -> None:
        """Takes back what an old record said, unless its successor says it again.

        A key belongs to one name: only a deletion takes a node, identity or policy away.
        """
        if isinstance(old.content, Fence):
            self.fences.pop(old.content.node_index, None)
        if new.content is None:
            match old.content:
                case NodeRecord(object=node):
                    self.nodes.pop(node.name, None)
                    self._balancer.delete_node(node.name)
                case Service(namespace=namespace, name=name):
                    self._balancer.delete_service(namespace, name)
                case EndpointSlice(namespace=namespace, name=name):
                    self._balancer.delete_slice(namespace, name)
                case Identity(id=number):
                    self._compiler.delete_identity(number)
                case NetworkPolicy() | Policy():
                    self._compiler.delete_policy(old.content.reference)
                    self.urgent = True
                case _:
                    pass
        gone, successor = _stream_object(old.content), _stream_object(new.content)
        if gone is None:
            return
        key = gone.kind, gone.key
        said_again = successor is not None and (successor.kind, successor.key) == key
        if not said_again and self._owners.get(key) == old.key:
            self._remove(gone, new.generation)

    def _remove(self, gone: StreamObject, generation: int) -> None:
        del self._owners[gone.kind, gone.key]
        self._changes.append(
            Removal(
                kind=gone.kind,
                key=gone.key,
                generation=generation,
                incarnation=incarnation_of(gone),
            )
        )
        match gone:
            case EndpointObject(addresses=addresses, node_index=node_index):
                self.urgent = True
                self.released.append(Release(tuple(addresses), node_index, generation))
            case BlockObject():
                self.awaited = max(self.awaited, generation)
            case _:
                pass

    def _assert(self, content: Content, record: Record) -> None:
        self._note(content, record.generation)
        if (value := _stream_object(content)) is None:
            return
        key = value.kind, value.key
        owner = self._records.get(self._owners.get(key, ""))
        if owner is not None and owner.generation > record.generation:
            return
        self._owners[key] = record.key
        traceparent = content.traceparent if isinstance(content, EndpointRecord) else ""
        self._changes.append(Upsert(value, record.generation, traceparent))

    def _note(self, content: Content, generation: int) -> None:
        """Takes what is more than an object of the stream."""
        match content:
            case NodeRecord():
                self.nodes[content.object.name] = content
                self._balancer.set_node(content.object.name, content.object.index)
            case Service():
                self._balancer.set_service(content)
            case EndpointSlice():
                self._balancer.set_slice(content)
            case Identity():
                self._compiler.set_identity(content)
            case NetworkPolicy() | Policy():
                self._compiler.set_policy(content)
                self.urgent = True
            case Fence(node_index=index):
                self.fences[index] = content
            case BlockObject(prefix=prefix) if prefix.length == 8 * len(prefix.address):
                # Usable when no node routes this address as part of the block around it.
                self.awaited = max(self.awaited, generation)
            case BlockObject() | PoolObject() | EndpointRecord():
                pass
            case _:
                assert_never(content)


def _is_local(record: Record, old: Record | None) -> bool:
    """Whether a write touches only the nodes that are told of an endpoint before or after it."""
    match record.content:
        case EndpointRecord():
            return old is None or isinstance(old.content, EndpointRecord)
        case Identity():
            return old is None or old.content == record.content
        case None:
            return old is not None and isinstance(old.content, EndpointRecord)
        case _:
            return False


def _stream_object(content: Content | None) -> StreamObject | None:
    """The object that a record is on the stream; None for what is only compiled."""
    match content:
        case NodeRecord() | EndpointRecord():
            return content.object
        case BlockObject() | PoolObject():
            return content
        case Identity(id=number, label_set=labels):
            return IdentityObject(
                id=number,
                namespace=labels.namespace,
                labels=tuple(f"{key}={value}" for key, value in labels.labels),
            )
        case Service():
            return _service_object(content)
        case NetworkPolicy() | Policy() | EndpointSlice() | Fence() | None:
            return None
        case _:
            assert_never(content)


def _service_object(service: Service) -> ServiceObject | None:
    """None: it answers on no address."""
    if service.type is ServiceType.EXTERNAL_NAME or not service.cluster_ips:
        return None
    return ServiceObject(
        number=service.number,
        namespace=service.namespace,
        name=service.name,
        # Only who makes slices needs to know where pods listen.
        ports=tuple(replace(port, target="") for port in service.ports),
        cluster_ips=service.cluster_ips,
        external_ips=service.external_ips,
        load_balancer_ips=service.load_balancer_ips,
        source_ranges=service.source_ranges,
        affinity_seconds=service.affinity_seconds,
        internal_local=service.internal_local,
        external_local=service.external_local,
        health_check_node_port=service.health_check_node_port,
        distribution=service.distribution,
    )

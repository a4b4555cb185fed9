"""What several repositories need: compares as read, registrations, fresh records."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from deltaplane.errors import Conflict, Refused
from deltaplane.model.addresses import Prefix
from deltaplane.store import keys
from deltaplane.store.port import Absent, Compare, CreatedAt, KeyValue, Store, Unchanged
from deltaplane.v1 import ipam_pb2, registry_pb2
from services.ipam import wire
from services.ipam.wire import StoredPool


class NotRegistered(Refused):
    """The node is not registered, or with another UID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A node's registration.

    Attributes:
        key: of the record.
        created: revision at which it registered; a refresh does not change it.
        uid: of the node.
        index: its number.
    """

    key: str
    created: int
    uid: str
    index: int

    @classmethod
    def of(cls, stored: KeyValue) -> Self:
        """Reads the record."""
        node = registry_pb2.Node.FromString(stored.value)
        return cls(key=stored.key, created=stored.create_revision, uid=node.uid, index=node.index)

    @property
    def unchanged(self) -> Compare:
        """Holds while the node is registered."""
        return CreatedAt(self.key, self.created)


def check_registered(node: str, uid: str, stored: KeyValue | None) -> Registration:
    """The registration, if it is that of the caller.

    Raises:
        NotRegistered: there is none, or it has another UID.
    """
    if stored is None:
        raise NotRegistered(f"node {node} is not registered")
    found = Registration.of(stored)
    if found.uid != uid:
        raise NotRegistered(f"node {node} is registered with UID {found.uid}, not {uid}")
    return found


def granted(stored: KeyValue | None, node_uid: str, request_id: str) -> ipam_pb2.Block | None:
    """The block that an earlier request got; None when it has been released since.

    Args:
        stored: what is at the key that the request names.
        node_uid: of the caller.
        request_id: of the request.
    """
    if stored is None:
        return None
    block = wire.block_from_record(stored)
    return block if (block.node_uid, block.request_id) == (node_uid, request_id) else None


def other_request(request_id: str, block: ipam_pb2.Block) -> Conflict:
    """A request id is used for two things."""
    return Conflict(
        f"request {request_id} got {wire.block_prefix(block)} of pool {block.pool} before; "
        "another wish needs another request_id"
    )


def as_read(key: str, found: KeyValue | None) -> Compare:
    """Holds while the key is as it was found."""
    return Absent(key) if found is None else Unchanged(key, found.mod_revision)


def written(key: str, value: bytes, revision: int, before: KeyValue | None = None) -> KeyValue:
    """A key as the transaction of this revision wrote it; before: what it was, None if absent."""
    created = revision if before is None else before.create_revision
    return KeyValue(key=key, value=value, create_revision=created, mod_revision=revision)


async def all_pools(store: Store, revision: int = 0) -> Sequence[StoredPool]:
    """Pools by name, as of a revision (0: now)."""
    listing = await store.list(keys.POOLS, revision=revision)
    return [wire.pool_from_record(item) for item in listing.items]


def whole(address: bytes) -> Prefix:
    """The prefix of one address."""
    return Prefix(address, len(address) * 8)

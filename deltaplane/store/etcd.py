"""The store on etcd, version 3.4 or later, by its gRPC API."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar, assert_never

from deltaplane.errors import Compacted, Invalid, NotFound
from deltaplane.runtime.tls import Tls
from deltaplane.store import etcd_watch
from deltaplane.store.etcd_members import Member, Members
from deltaplane.store.etcdpb import rpc_pb2 as pb
from deltaplane.store.port import (
    Absent,
    Committed,
    CommittedParts,
    Compare,
    CreatedAt,
    Delete,
    DeletePrefix,
    KeyValue,
    Listing,
    Operation,
    Page,
    Part,
    Put,
    Unchanged,
    WatchBatch,
)
from deltaplane.store.transaction import check, check_keys, check_parts

PAGE_KEYS = 2000
"""Keys in one answer of a listing: 1,000 endpoints are about 200 kB."""

_ZERO = b"\x00"
"""As a key the first possible one, as a range end no end."""

T = TypeVar("T")


class EtcdStore:
    """A store on an etcd cluster. See `deltaplane.store.port.Store` for the calls.

    Args:
        endpoints: `host:port` or `unix:/path` of members; the next one is used when one fails.
        deadline_seconds: of every call; above it, Unavailable. Two seconds cover an election.
        tls: our certificate, and what etcd's has to say; None: in plain text.
    """

    def __init__(
        self, endpoints: Sequence[str], *, deadline_seconds: float = 2.0, tls: Tls | None = None
    ) -> None:
        self._members = Members(endpoints, deadline_seconds, tls)

    async def get(self, key: str, *, revision: int = 0) -> KeyValue | None:
        """Reads one key."""
        check_keys((key,))
        found = await self._range(pb.RangeRequest(key=key.encode(), revision=revision))
        return _key_value(found.kvs[0]) if found.kvs else None

    async def get_many(self, keys: Sequence[str]) -> tuple[tuple[KeyValue | None, ...], int]:
        """Reads keys in one transaction."""
        check_keys(keys)
        if not keys:
            return (), await self.head()
        request = pb.TxnRequest(success=[_read(key) for key in keys])
        answer = await self._transact(request, idempotent=True)
        found = (part.response_range.kvs for part in answer.responses)
        return tuple(_key_value(kvs[0]) if kvs else None for kvs in found), answer.header.revision

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        """Reads all keys of a prefix, page by page."""
        items: list[KeyValue] = []
        start: str | None = ""
        while start is not None:
            page = await self.page(prefix, limit=PAGE_KEYS, start_key=start, revision=revision)
            items += page.items
            start, revision = page.next_key, page.revision
        return Listing(items=tuple(items), revision=revision)

    async def page(
        self, prefix: str, *, limit: int, start_key: str = "", revision: int = 0
    ) -> Page:
        """Reads some keys of a prefix."""
        if limit < 1:
            raise Invalid("limit", f"{limit} is less than 1")
        first, end = _prefix_range(prefix)
        found = await self._range(
            pb.RangeRequest(
                key=max(first, start_key.encode()), range_end=end, limit=limit, revision=revision
            )
        )
        items = tuple(_key_value(item) for item in found.kvs)
        return Page(
            items=items,
            revision=revision or found.header.revision,
            # The smallest key above the last one.
            next_key=items[-1].key + "\0" if found.more else None,
        )

    async def transact(
        self, compares: Sequence[Compare], operations: Sequence[Operation]
    ) -> Committed:
        """Applies all operations if all compares hold."""
        check(compares, operations)
        request = pb.TxnRequest(
            compare=[_compare(compare) for compare in compares],
            success=[_operation(operation) for operation in operations],
        )
        if not operations:
            # etcd answers a transaction without operations from any member's own, maybe old state.
            request.success.extend(_read(compare.key) for compare in compares[:1])
        answer = await self._transact(request, idempotent=not operations)
        return Committed(succeeded=answer.succeeded, revision=answer.header.revision)

    async def transact_parts(self, parts: Sequence[Part]) -> CommittedParts:
        """Applies the parts whose compares hold: transactions in a transaction."""
        check_parts(parts)
        request = pb.TxnRequest(success=[_part(part) for part in parts])
        answer = await self._transact(request, idempotent=False)
        return CommittedParts(
            succeeded=tuple(part.response_txn.succeeded for part in answer.responses),
            revision=answer.header.revision,
        )

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[WatchBatch]:
        """Yields writes after a revision."""
        first, end = _prefix_range(prefix)
        return etcd_watch.watch(self._members, first, end, after=after)

    async def head(self) -> int:
        """The store's revision."""
        answer = await self._range(pb.RangeRequest(key=_ZERO, count_only=True))
        return answer.header.revision

    async def grant_lease(self, ttl_seconds: int) -> int:
        """A new lease. etcd raises a TTL below its election timeout (2 s by default) to that."""
        if ttl_seconds < 1:
            raise Invalid("ttl_seconds", f"{ttl_seconds} is less than 1")
        request = pb.LeaseGrantRequest(TTL=ttl_seconds)

        # Sent twice it leaves a lease behind that nobody renews: harmless.
        async def send(member: Member, seconds: float) -> pb.LeaseGrantResponse:
            return await member.lease.LeaseGrant(request, timeout=seconds)

        return (await self._call(send, idempotent=True)).ID

    async def keep_alive(self, lease: int) -> bool:
        """Renews a lease once."""
        request = pb.LeaseKeepAliveRequest(ID=lease)

        async def send(member: Member, seconds: float) -> pb.LeaseKeepAliveResponse | None:
            call = member.lease.LeaseKeepAlive(iter((request,)), timeout=seconds)
            async for answer in call:
                return answer
            return None

        answer = await self._call(send, idempotent=True)
        return answer is not None and answer.TTL > 0

    async def revoke_lease(self, lease: int) -> None:
        """Ends a lease; nothing happens if it has ended."""
        request = pb.LeaseRevokeRequest(ID=lease)

        async def send(member: Member, seconds: float) -> pb.LeaseRevokeResponse:
            return await member.lease.LeaseRevoke(request, timeout=seconds)

        try:
            await self._call(send, idempotent=True)
        except NotFound:
            return

    async def compact(self, revision: int) -> None:
        """Forgets history before a revision. Not of the port: etcd's own schedule does it."""
        request = pb.CompactionRequest(revision=revision, physical=True)

        async def send(member: Member, seconds: float) -> pb.CompactionResponse:
            return await member.kv.Compact(request, timeout=seconds)

        await self._call(send, idempotent=False)

    async def close(self) -> None:
        """Ends all watches and connections; later calls raise Unavailable."""
        await self._members.close()

    async def _range(self, request: pb.RangeRequest) -> pb.RangeResponse:
        async def send(member: Member, seconds: float) -> pb.RangeResponse:
            return await member.kv.Range(request, timeout=seconds)

        try:
            return await self._call(send, idempotent=True)
        except Compacted:
            # etcd tells a reader only that history is gone; it tells a watcher how much.
            async for _ in self.watch("", after=request.revision - 1):
                break
            raise

    async def _transact(self, request: pb.TxnRequest, *, idempotent: bool) -> pb.TxnResponse:
        async def send(member: Member, seconds: float) -> pb.TxnResponse:
            return await member.kv.Txn(request, timeout=seconds)

        return await self._call(send, idempotent=idempotent)

    async def _call(self, send: Callable[[Member, float], Awaitable[T]], *, idempotent: bool) -> T:
        return await self._members.call(send, idempotent=idempotent)


def _prefix_range(prefix: str) -> tuple[bytes, bytes]:
    """First key and end of a prefix; UTF-8 has no byte 0xff, so the last byte can grow."""
    first = prefix.encode()
    if not first:
        return _ZERO, _ZERO
    return first, first[:-1] + bytes((first[-1] + 1,))


def _read(key: str) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key.encode()))


def _compare(compare: Compare) -> pb.Compare:
    key = compare.key.encode()
    match compare:
        case Absent():
            return pb.Compare(target=pb.Compare.CREATE, key=key, create_revision=0)
        case Unchanged(_, revision):
            return pb.Compare(target=pb.Compare.MOD, key=key, mod_revision=revision)
        case CreatedAt(_, revision):
            return pb.Compare(target=pb.Compare.CREATE, key=key, create_revision=revision)
        case _:
            assert_never(compare)


def _operation(operation: Operation) -> pb.RequestOp:
    match operation:
        case Put(key, value, lease):
            put = pb.PutRequest(key=key.encode(), value=value, lease=lease)
            return pb.RequestOp(request_put=put)
        case Delete(key):
            delete = pb.DeleteRangeRequest(key=key.encode())
            return pb.RequestOp(request_delete_range=delete)
        case DeletePrefix(prefix):
            first, end = _prefix_range(prefix)
            delete = pb.DeleteRangeRequest(key=first, range_end=end)
            return pb.RequestOp(request_delete_range=delete)
        case _:
            assert_never(operation)


def _part(part: Part) -> pb.RequestOp:
    return pb.RequestOp(
        request_txn=pb.TxnRequest(
            compare=[_compare(compare) for compare in part.compares],
            success=[_operation(operation) for operation in part.operations],
        )
    )


def _key_value(item: pb.KeyValue) -> KeyValue:
    return KeyValue(
        key=item.key.decode(),
        value=item.value,
        create_revision=item.create_revision,
        mod_revision=item.mod_revision,
        lease=item.lease,
    )

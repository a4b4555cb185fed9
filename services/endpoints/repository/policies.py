"""Network policies."""

from collections.abc import Sequence

from deltaplane.store import keys
from deltaplane.store.port import Delete, Put, Store
from deltaplane.v1 import policy_pb2
from services.endpoints.repository.writing import delete, write
from services.endpoints.wire.records import encode, with_meta


class Policies:
    """Policies. What they select need not exist."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def apply(
        self, records: Sequence[policy_pb2.NetworkPolicy], traceparent: str
    ) -> tuple[Sequence[policy_pb2.NetworkPolicy], int]:
        """Writes checked policies; returns them as stored, and a revision that has them all.

        Those that say what is already stored are not written, so that their receipts stay valid.
        """
        puts = []
        for record in records:
            traced = policy_pb2.NetworkPolicy(traceparent=traceparent)
            traced.MergeFrom(record)
            puts.append(Put(keys.policy(record.namespace, record.name), encode(traced)))
        stored, revision = await write(self._store, puts, same=_same)
        return [with_meta(policy_pb2.NetworkPolicy, item) for item in stored], revision

    async def delete(self, policies: Sequence[tuple[str, str]]) -> int:
        """Removes policies by (namespace, name); returns a revision without them."""
        return await delete(
            self._store, [Delete(keys.policy(*it)) for it in dict.fromkeys(policies)]
        )

    async def list_policies(
        self, namespace: str, name: str
    ) -> tuple[Sequence[policy_pb2.NetworkPolicy], int]:
        """Policies of a namespace (empty: of all), or one, and the revision that this shows."""
        listing = await self._store.list(
            keys.policies_of(namespace) if namespace else keys.POLICIES
        )
        policies = [with_meta(policy_pb2.NetworkPolicy, item) for item in listing.items]
        chosen = [policy for policy in policies if name in ("", policy.name)]
        chosen.sort(key=lambda policy: (policy.namespace, policy.name))
        return chosen, listing.revision


def _same(stored: bytes, wanted: bytes) -> bool:
    return _untraced(stored) == _untraced(wanted)


def _untraced(value: bytes) -> bytes:
    policy = policy_pb2.NetworkPolicy.FromString(value)
    policy.traceparent = ""
    return encode(policy)

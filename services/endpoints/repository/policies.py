"""Policies of every kind."""

import copy
from collections.abc import Sequence

from deltaplane.model.tiers import PolicyKind
from deltaplane.store import keys
from deltaplane.store.port import Delete, KeyValue, Put, Store
from deltaplane.v1 import policy_pb2
from services.endpoints.repository.writing import delete, write
from services.endpoints.wire.policies import Filter, Record, Reference
from services.endpoints.wire.records import encode, with_meta


class Policies:
    """Policies. What they select need not exist."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def apply(
        self, records: Sequence[Record], traceparent: str
    ) -> tuple[Sequence[Record], int]:
        """Writes checked policies; returns them as stored, and a revision that has them all.

        Those that say what is already stored are not written, so that their receipts stay valid.
        """
        puts = []
        for record in records:
            traced = copy.deepcopy(record)
            traced.traceparent = traceparent
            puts.append(Put(_key(record), encode(traced)))
        stored, revision = await write(self._store, puts, same=_same)
        return [_read(item) for item in stored], revision

    async def delete(self, policies: Sequence[Reference]) -> int:
        """Removes policies; returns a revision without them."""
        operations = [Delete(keys.policy(it.namespace, it.name, it.kind)) for it in policies]
        return await delete(self._store, operations)

    async def list_policies(self, wanted: Filter) -> tuple[Sequence[Record], int]:
        """Policies by kind, namespace and name, and the revision that this shows.

        NetworkPolicies come first. Without a name the others lack their manifests, which are most
        of their bytes and of no use in a list.
        """
        # Policies that live in no namespace lie in that of the empty name.
        in_none = wanted.kind is not None and not wanted.kind.is_namespaced
        in_one = bool(wanted.namespace) or in_none
        prefix = keys.policies_of(wanted.namespace) if in_one else keys.POLICIES
        listing = await self._store.list(prefix)
        found: list[tuple[tuple[bool, str, str, str], KeyValue]] = []
        for item in listing.items:
            names = keys.parse_policy(item.key)
            if names is None:
                continue
            kind, namespace, name = names
            if wanted.kind in (None, kind) and wanted.name in ("", name):
                found.append(((kind != PolicyKind.NETWORK_POLICY, kind, namespace, name), item))
        policies = [_read(item) for _, item in sorted(found, key=lambda it: it[0])]
        for policy in policies:
            if isinstance(policy, policy_pb2.Policy) and not wanted.name:
                policy.ClearField("manifest")
        return policies, listing.revision


def _key(record: Record) -> str:
    if isinstance(record, policy_pb2.NetworkPolicy):
        return keys.policy(record.namespace, record.name)
    return keys.policy(record.namespace, record.name, record.kind)


def _type_at(key: str) -> type[policy_pb2.NetworkPolicy] | type[policy_pb2.Policy]:
    names = keys.parse_policy(key)
    is_general = names is not None and names[0] != PolicyKind.NETWORK_POLICY
    return policy_pb2.Policy if is_general else policy_pb2.NetworkPolicy


def _read(stored: KeyValue) -> Record:
    if _type_at(stored.key) is policy_pb2.Policy:
        return with_meta(policy_pb2.Policy, stored)
    return with_meta(policy_pb2.NetworkPolicy, stored)


def _same(stored: KeyValue, wanted: Put) -> bool:
    return _untraced(stored.key, stored.value) == _untraced(wanted.key, wanted.value)


def _untraced(key: str, value: bytes) -> bytes:
    policy = _type_at(key).FromString(value)
    policy.traceparent = ""
    return encode(policy)

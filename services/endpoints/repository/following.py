"""Gives registered endpoints the identity that follows from their pod and namespace records.

Level-triggered: it looks at what is stored now, not at what has changed, so it may run at any time,
twice, and in any number of replicas. A registration compares the pod and namespace records that it
has read; so an endpoint that is not seen here, because it is registered after the read, already
knows the newer records.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from deltaplane.errors import Invalid
from deltaplane.model.identity import LabelSet
from deltaplane.store import keys
from deltaplane.store.port import Compare, KeyValue, Put, Store
from deltaplane.store.retry import compare_and_swap
from services.endpoints.blocks import PoolRange
from services.endpoints.identity import LabelFilter
from services.endpoints.joining import follow
from services.endpoints.records import Endpoint, State
from services.endpoints.repository.identities import Identities
from services.endpoints.repository.transactions import as_read
from services.endpoints.wire.records import (
    endpoint_from_record,
    endpoint_to_record,
    namespace_annotations,
    namespace_labels,
    pod_from_record,
    pool_range,
)
from services.endpoints.wishing import NO_WISH, Wish, pool_names, satisfied, wish_of

BATCH = 24
"""Endpoints of one transaction: each compares itself, its pod, its namespace and its label set."""

READS = 16
"""Prefixes that are read side by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """One endpoint with what its identity follows from, read at one revision.

    wish: what it must have got before it may stop to wait.
    """

    stored: KeyValue
    endpoint: Endpoint
    label_set: LabelSet
    wish: Wish
    compares: Mapping[str, Compare]


class Follower:
    """Rewrites endpoints whose identity is not what it should be."""

    def __init__(self, store: Store, identities: Identities, labels: LabelFilter) -> None:
        self._store = store
        self._identities = identities
        self._labels = labels

    async def follow_prefixes(self, prefixes: Sequence[str], traceparent: str) -> int:
        """Puts all endpoints below key prefixes right; 0, or the revision of the last write."""
        revision = 0
        for start in range(0, len(prefixes), READS):
            listings = await asyncio.gather(
                *(self._store.list(prefix) for prefix in prefixes[start : start + READS])
            )
            found = [item.key for listing in listings for item in listing.items]
            revision = await self.follow(found, traceparent) or revision
        return revision

    async def follow(self, endpoints: Sequence[str], traceparent: str) -> int:
        """Puts some endpoints right; 0, or the revision of the last write.

        Args:
            endpoints: keys; one that does not exist any more is passed over.
            traceparent: of the request that makes this necessary; empty when there is none.
        """
        revision = 0
        for start in range(0, len(endpoints), BATCH):
            batch = endpoints[start : start + BATCH]

            async def attempt(batch: Sequence[str] = batch) -> int | None:
                return await self._try(batch, traceparent)

            revision = await compare_and_swap(attempt) or revision
        return revision

    async def _try(self, batch: Sequence[str], traceparent: str) -> int | None:
        seen = await self._fulfilled(await self._read(batch))
        numbers = await self._identities.numbers(item.label_set for item in seen)
        compares: dict[str, Compare] = {}
        puts: list[Put] = []
        for item in seen:
            number = numbers[item.label_set]
            wanted = replace(item.endpoint, identity=number.number, state=State.READY)
            if wanted != item.endpoint:
                request = replace(item.endpoint.request, traceparent=traceparent)
                puts.append(
                    Put(item.stored.key, endpoint_to_record(replace(wanted, request=request)))
                )
                compares |= item.compares
                compares[number.compare.key] = number.compare
        if not puts:
            return 0
        committed = await self._store.transact(list(compares.values()), puts)
        if not committed.succeeded:
            self._identities.forget(item.label_set for item in seen)
            return None
        return committed.revision

    async def _read(self, batch: Sequence[str]) -> list[_Seen]:
        """The endpoints that have a pod record of their own."""
        # Namespace and pod are part of an endpoint's key: one read gets everything.
        scopes = [_scope(key) for key in batch]
        wanted = dict.fromkeys((*batch, *_records(scopes)))
        values, _ = await self._store.get_many(list(wanted))
        found = dict(zip(wanted, values, strict=True))
        seen = []
        for key, (namespace, pod) in zip(batch, scopes, strict=True):
            stored = found[key]
            if stored is None:
                continue
            pod_key, namespace_key = keys.pod(namespace, pod), keys.namespace(namespace)
            pod_record, namespace_record = found[pod_key], found[namespace_key]
            endpoint = endpoint_from_record(stored)
            label_set = follow(
                endpoint.request,
                pod_from_record(pod_record) if pod_record else None,
                namespace_labels(namespace_record),
                self._labels,
            )
            wish = self._wish(endpoint, pod_record, namespace_record)
            if label_set is not None and wish is not None:
                compares = [
                    as_read(key, stored),
                    as_read(pod_key, pod_record),
                    as_read(namespace_key, namespace_record),
                ]
                seen.append(
                    _Seen(
                        stored=stored,
                        endpoint=endpoint,
                        label_set=label_set,
                        wish=wish,
                        compares={compare.key: compare for compare in compares},
                    )
                )
        return seen

    async def _fulfilled(self, seen: Sequence[_Seen]) -> Sequence[_Seen]:
        """Leaves out those whose addresses are not what their pods ask for: they stay waiting.

        The node's ADD then ends with "try again", and the next registration is told what is wanted.
        """
        if all(item.wish == NO_WISH for item in seen):
            return seen
        pools: Sequence[PoolRange] = ()
        if any(item.wish.names_pools for item in seen):
            listing = await self._store.list(keys.POOLS)
            pools = tuple(map(pool_range, listing.items))
        return [
            item
            for item in seen
            if satisfied(item.wish, pool_names(item.endpoint.request.addresses, pools))
        ]

    @staticmethod
    def _wish(endpoint: Endpoint, pod: KeyValue | None, namespace: KeyValue | None) -> Wish | None:
        """None: an annotation cannot be read, and so nothing fulfils it.

        An endpoint that does not wait keeps its addresses, whatever is written later.
        """
        if endpoint.state is not State.WAITING_FOR_POD or pod is None:
            return NO_WISH
        try:
            return wish_of(dict(pod_from_record(pod).annotations), namespace_annotations(namespace))
        except Invalid:
            return None


def _scope(endpoint_key: str) -> tuple[str, str]:
    namespace, pod, *_ = endpoint_key.removeprefix(keys.ENDPOINTS).split("/")
    return namespace, pod


def _records(scopes: Iterable[tuple[str, str]]) -> Iterable[str]:
    for namespace, pod in scopes:
        yield keys.pod(namespace, pod)
        yield keys.namespace(namespace)

"""Registers endpoints: reads, the rules, a transaction that compares all that was read."""

import copy
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from deltaplane.errors import DeltaplaneError, Invalid, Unavailable
from deltaplane.model.identity import LabelSet, Reserved
from deltaplane.store import keys
from deltaplane.store.port import Compare, CreatedAt, KeyValue, Operation, Put, Store
from deltaplane.store.retry import compare_and_swap
from services.endpoints.blocks import PoolRange, block_of, single
from services.endpoints.identity import LabelFilter
from services.endpoints.records import Endpoint, Node, Pod, Request, State
from services.endpoints.registration import Accepted, BlockOwner, Known, NoBlock, judge, leading
from services.endpoints.repository.following import Follower
from services.endpoints.repository.identities import Identities
from services.endpoints.repository.newcomers import Newcomers
from services.endpoints.repository.transactions import as_read
from services.endpoints.wire import records
from services.endpoints.wishing import Wish

Outcome = KeyValue | Wish | DeltaplaneError
"""The stored record, what the pod asks for instead, or why there is no record."""


@dataclass(slots=True)
class _Write:
    """A transaction in the making. accepted: index of the request, its key and its bytes."""

    compares: dict[str, Compare] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    accepted: list[tuple[int, str, bytes]] = field(default_factory=list)
    label_sets: list[LabelSet] = field(default_factory=list)


@dataclass(slots=True)
class _Batch:
    """Requests, and what has become of them so far, by index.

    Attributes:
        begun: what is plainly new has been tried.
        ready: those that are registered and do not wait.
    """

    requests: Sequence[Request]
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    begun: bool = False
    ready: set[int] = field(default_factory=set)

    @property
    def open(self) -> list[int]:
        """Those of which nothing has become yet."""
        return [index for index in range(len(self.requests)) if index not in self.outcomes]


class Registrar:
    """Registers endpoints: what is plainly new by `newcomers`, everything else here.

    Here all that decides is read each time. Pools are remembered, and learnt again before anything
    is said on their account: where an address has no block, or a pod asks for other ones.
    """

    def __init__(
        self, store: Store, identities: Identities, follower: Follower, labels: LabelFilter
    ) -> None:
        self._store = store
        self._identities = identities
        self._follower = follower
        self._newcomers = Newcomers(store, identities, labels)
        self._labels = labels
        self._pools: tuple[PoolRange, ...] = ()

    async def register(self, requests: Sequence[Request]) -> Sequence[Outcome]:
        """Registers as many requests as `separate` said; one outcome for each, in order.

        Raises:
            Unavailable: the store is away; what was written, if anything, a repeated call finds.
        """
        addresses = (address for request in requests for address in request.addresses)
        if any(block_of(address, self._pools) is None for address in addresses):
            await self._learn_pools()
        batch = _Batch(requests)
        try:
            await compare_and_swap(lambda: self._settle(batch))
        except Unavailable as error:
            if not batch.outcomes:
                raise
            batch.outcomes |= {index: copy.copy(error) for index in batch.open}
        doubtful = [index for index, it in batch.outcomes.items() if _depends_on_pools(it)]
        if doubtful and await self._learn_pools():
            # One by one: what fitted into one transaction may not, by the new pools.
            for index in doubtful:
                batch.outcomes[index] = await self._register_one(requests[index])
        await self._catch_up(batch)
        return [batch.outcomes[index] for index in range(len(requests))]

    async def _settle(self, batch: "_Batch") -> bool | None:
        """First what is plainly new, all at once; then the others, as many as fit together."""
        if not batch.begun:
            batch.begun = True
            registered = await self._newcomers.register(batch.requests, self._pools)
            batch.outcomes |= {index: it.stored for index, it in registered.items()}
            batch.ready |= {index for index, it in registered.items() if it.is_ready}
        left = deque(batch.open)
        while left:
            count = leading((batch.requests[index] for index in left), self._pools)
            await self._settle_group(batch, [left.popleft() for _ in range(count)])
        return None if batch.open else True

    async def _settle_group(self, batch: "_Batch", group: Sequence[int]) -> None:
        try:
            outcomes = await self._try([batch.requests[index] for index in group])
        except Unavailable:
            raise
        except DeltaplaneError as error:
            # What one of them cannot have, a number for its labels say, must not cost the others.
            if len(group) == 1:
                batch.outcomes[group[0]] = error
                return
            for index in group:
                await self._settle_group(batch, [index])
        else:
            batch.outcomes |= dict(zip(group, outcomes or (), strict=bool(outcomes)))

    async def _register_one(self, request: Request) -> Outcome:
        (outcome,) = await compare_and_swap(lambda: self._try([request]))
        return outcome

    async def _try(self, requests: Sequence[Request]) -> Sequence[Outcome] | None:
        found = await self._read(requests)
        if found is None:
            return None
        known = self._known(requests, found)
        outcomes: list[Outcome | Accepted] = []
        for request in requests:
            try:
                verdict = judge(request, known, self._labels)
            except DeltaplaneError as error:
                outcomes.append(error)
            else:
                stored = found[_key(request)] if isinstance(verdict, Endpoint) else None
                outcomes.append(stored or _new(verdict))
        write = await self._compose(requests, outcomes, found)
        if write.operations:
            committed = await self._store.transact(list(write.compares.values()), write.operations)
            if not committed.succeeded:
                self._identities.forget(write.label_sets)
                return None
            for index, key, value in write.accepted:
                outcomes[index] = records.written(key, value, committed.revision)
        return [outcome for outcome in outcomes if not isinstance(outcome, Accepted)]

    async def _compose(
        self,
        requests: Sequence[Request],
        outcomes: Sequence[Outcome | Accepted],
        found: Mapping[str, KeyValue | None],
    ) -> _Write:
        write = _Write()
        accepted = [
            (index, requests[index], outcome)
            for index, outcome in enumerate(outcomes)
            if isinstance(outcome, Accepted)
        ]
        write.label_sets = [item.label_set for _, _, item in accepted if item.label_set is not None]
        numbers = await self._identities.numbers(write.label_sets)
        for index, request, verdict in accepted:
            if verdict.label_set is None:
                identity, state = int(Reserved.INIT), State.WAITING_FOR_POD
            else:
                numbered = numbers[verdict.label_set]
                write.compares[numbered.compare.key] = numbered.compare
                identity, state = numbered.number, State.READY
            key = _key(request)
            value = records.endpoint_to_record(
                Endpoint(
                    request=request,
                    node_index=verdict.node_index,
                    identity=identity,
                    state=state,
                )
            )
            write.accepted.append((index, key, value))
            write.operations += [
                Put(key, value),
                Put(keys.node_endpoint(request.node, request.id), key.encode()),
                *(Put(keys.address(address), key.encode()) for address in request.addresses),
            ]
            for name in self._read_for(request):
                write.compares[name] = as_read(name, found[name])
            # The node's registration, not its last refresh: a node may refresh while it registers.
            node = found[keys.node(request.node)]
            assert node is not None
            write.compares[node.key] = CreatedAt(node.key, node.create_revision)
        return write

    async def _read(self, requests: Sequence[Request]) -> dict[str, KeyValue | None] | None:
        """All that decides about the requests; None when it changed while it was read."""
        names = list(dict.fromkeys(name for it in requests for name in self._read_for(it)))
        values, _ = await self._store.get_many(names)
        found = dict(zip(names, values, strict=True))
        # Most requests are new. Only for the others the endpoint itself is worth a second read.
        repeated = [
            _key(request)
            for request in requests
            if (holder := found[keys.node_endpoint(request.node, request.id)])
            and holder.value.decode() == _key(request)
        ]
        if repeated:
            again, _ = await self._store.get_many(repeated)
            if None in again:
                return None
            found.update(zip(repeated, again, strict=True))
        return found

    def _read_for(self, request: Request) -> Iterable[str]:
        yield keys.node(request.node)
        yield keys.node_endpoint(request.node, request.id)
        yield keys.released_endpoint(request.node, request.id)
        yield keys.pod(request.namespace, request.pod)
        yield keys.namespace(request.namespace)
        for address in request.addresses:
            yield keys.address(address)
            yield from self._blocks_of(address)

    def _known(self, requests: Sequence[Request], found: Mapping[str, KeyValue | None]) -> Known:
        nodes: dict[str, Node] = {}
        owners: dict[bytes, BlockOwner] = {}
        holders: dict[bytes, str] = {}
        names: dict[tuple[str, int], str] = {}
        endpoints: dict[tuple[str, int], Endpoint] = {}
        pods: dict[tuple[str, str], Pod] = {}
        labels: dict[str, Mapping[str, str]] = {}
        annotations: dict[str, Mapping[str, str]] = {}
        for request in requests:
            if node := found[keys.node(request.node)]:
                nodes[request.node] = records.node_from_record(node)
            name = (request.node, request.id)
            if holder := found[keys.node_endpoint(*name)]:
                if stored := found.get(_key(request)):
                    endpoints[name] = records.endpoint_from_record(stored)
                else:
                    names[name] = _describe(holder)
            for address in request.addresses:
                if holder := found[keys.address(address)]:
                    holders[address] = _describe(holder)
                blocks = (found[name] for name in self._blocks_of(address))
                if block := next((item for item in blocks if item), None):
                    owners[address] = records.block_owner(block)
            scope = (request.namespace, request.pod)
            if pod := found[keys.pod(*scope)]:
                pods[scope] = records.pod_from_record(pod)
            namespace = found[keys.namespace(request.namespace)]
            labels[request.namespace] = records.namespace_labels(namespace)
            annotations[request.namespace] = records.namespace_annotations(namespace)
        return Known(
            nodes=nodes,
            block_owners=owners,
            holders=holders,
            names=names,
            endpoints=endpoints,
            released=_released(requests, found, nodes),
            pods=pods,
            namespace_labels=labels,
            namespace_annotations=annotations,
            pools=self._pools,
        )

    async def _catch_up(self, batch: "_Batch") -> None:
        """An endpoint that waited and whose pod record has come gets its identity on the spot."""
        waiting = {
            index: stored
            for index, stored in batch.outcomes.items()
            if index not in batch.ready
            and isinstance(stored, KeyValue)
            and records.endpoint_from_record(stored).state is not State.READY
        }
        if not waiting:
            return
        pod_of = {
            index: keys.pod(batch.requests[index].namespace, batch.requests[index].pod)
            for index in waiting
        }
        try:
            found, _ = await self._store.get_many(list(set(pod_of.values())))
        except DeltaplaneError as error:
            batch.outcomes |= {index: copy.copy(error) for index in waiting}
            return
        have = {item.key for item in found if item}
        for index, stored in waiting.items():
            if pod_of[index] in have:
                batch.outcomes[index] = await self._caught_up(stored, batch.requests[index])

    async def _caught_up(self, stored: KeyValue, request: Request) -> Outcome:
        try:
            await self._follower.follow([stored.key], request.traceparent)
            return await self._store.get(stored.key) or stored
        except DeltaplaneError as error:
            return error

    async def _learn_pools(self) -> bool:
        """Reads the pools; whether they are others than before."""
        before = self._pools
        listing = await self._store.list(keys.POOLS)
        self._pools = tuple(map(records.pool_range, listing.items))
        return self._pools != before

    def _blocks_of(self, address: bytes) -> Iterable[str]:
        """Keys of the blocks that decide about an address; the first that exists counts."""
        yield keys.block(single(address))
        if block := block_of(address, self._pools):
            yield keys.block(block)


def _key(request: Request) -> str:
    return keys.endpoint(request.namespace, request.pod, request.node, request.id)


def _new(verdict: Accepted | Endpoint | Wish) -> Accepted | Wish:
    assert not isinstance(verdict, Endpoint)
    return verdict


def _depends_on_pools(outcome: Outcome) -> bool:
    return isinstance(outcome, NoBlock | Invalid | Wish)


def _released(
    requests: Iterable[Request], found: Mapping[str, KeyValue | None], nodes: Mapping[str, Node]
) -> set[tuple[str, int]]:
    """What the nodes have released, not what former nodes of their names have."""
    names = {(request.node, request.id) for request in requests if request.node in nodes}
    return {
        name
        for name in names
        if (gone := found[keys.released_endpoint(*name)]) is not None
        and int(gone.value) == nodes[name[0]].index
    }


def _describe(holder: KeyValue) -> str:
    """The holder of an address or a number in words; the value is an endpoint's key."""
    key = holder.value.decode("utf-8", "replace").removeprefix(keys.ENDPOINTS)
    parts = key.split("/")
    if len(parts) != len(("namespace", "pod", "node", "number")):
        return f'"{key}", which is no endpoint; see `deltaplane ipam check`'
    namespace, pod, node, number = parts
    return f"endpoint {number} of node {node}, pod {namespace}/{pod}"

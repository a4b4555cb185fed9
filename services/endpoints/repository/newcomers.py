"""Registers endpoints that are plainly new, up to 64 in one transaction.

Each is a part of it with compares of its own, so that one that does not hold costs no other. Most
of the keys that decide about an endpoint are expected to be absent, or are the same for one
endpoint after the other:

    remembered   node, namespace, the block of each address
    read         the pod, and the node's number for the endpoint
    compared     all of these; and that released number, addresses and single blocks are absent

Nothing is refused here. What is not plainly new, or whose compares do not hold, is left to the
registrar, which reads everything.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from deltaplane.errors import DeltaplaneError, Exhausted
from deltaplane.model.identity import LabelSet, Reserved
from deltaplane.store import keys
from deltaplane.store.port import (
    MAX_TRANSACTION_OPERATIONS,
    Absent,
    KeyValue,
    Part,
    Put,
    Store,
)
from services.endpoints.blocks import PoolRange, block_of, single
from services.endpoints.identity import LabelFilter
from services.endpoints.records import Endpoint, Node, Request, State
from services.endpoints.registration import Accepted, BlockOwner, Known, judge
from services.endpoints.repository.identities import Identities, Numbered
from services.endpoints.repository.remembering import Fact, Memory
from services.endpoints.repository.transactions import alive, as_read
from services.endpoints.wire import records


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A new endpoint's record. is_ready: it does not wait for its pod's record."""

    stored: KeyValue
    is_ready: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keys:
    """The keys that decide about a request. addresses, singles and blocks: one for each address."""

    endpoint: str
    node: str
    name: str
    released: str
    pod: str
    namespace: str
    addresses: tuple[str, ...]
    singles: tuple[str, ...]
    blocks: tuple[str, ...]

    @classmethod
    def of(cls, request: Request, pools: Sequence[PoolRange]) -> "_Keys | None":
        """None: an address is in no pool."""
        blocks = [block_of(address, pools) for address in request.addresses]
        if None in blocks:
            return None
        return cls(
            endpoint=keys.endpoint(request.namespace, request.pod, request.node, request.id),
            node=keys.node(request.node),
            name=keys.node_endpoint(request.node, request.id),
            released=keys.released_endpoint(request.node, request.id),
            pod=keys.pod(request.namespace, request.pod),
            namespace=keys.namespace(request.namespace),
            addresses=tuple(map(keys.address, request.addresses)),
            singles=tuple(keys.block(single(address)) for address in request.addresses),
            blocks=tuple(keys.block(block) for block in blocks if block is not None),
        )


@dataclass(frozen=True, slots=True)
class _Namespace:
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


_NO_NAMESPACE = _Namespace({}, {})


@dataclass(frozen=True, slots=True)
class _Case:
    """A request with all that decides about it. None: there is no such record."""

    request: Request
    its: _Keys
    pod: KeyValue | None
    node: Fact[Node] | None
    namespace: Fact[_Namespace] | None
    blocks: Sequence[Fact[BlockOwner] | None]

    def known(self, pools: Sequence[PoolRange]) -> Known:
        """What the rules look at, if nothing has the number or the addresses yet."""
        request = self.request
        facts = self.namespace.value if self.namespace else _NO_NAMESPACE
        scope = (request.namespace, request.pod)
        owners = zip(request.addresses, self.blocks, strict=True)
        return Known(
            nodes={request.node: self.node.value} if self.node else {},
            block_owners={address: owner.value for address, owner in owners if owner},
            holders={},
            names={},
            endpoints={},
            released=(),
            pods={scope: records.pod_from_record(self.pod)} if self.pod else {},
            namespace_labels={request.namespace: facts.labels},
            namespace_annotations={request.namespace: facts.annotations},
            pools=pools,
        )

    def part(self, verdict: Accepted, numbered: Numbered | None) -> Part:
        """Writes the endpoint, its record first, if all that it was judged by still holds.

        Args:
            verdict: on what is known.
            numbered: the identity; None: it waits for its pod's record.
        """
        its = self.its
        assert self.node is not None
        assert None not in self.blocks
        endpoint = Endpoint(
            request=self.request,
            node_index=verdict.node_index,
            identity=numbered.number if numbered else int(Reserved.INIT),
            state=State.READY if numbered else State.WAITING_FOR_POD,
        )
        key = its.endpoint.encode()
        return Part(
            compares=[
                *map(Absent, (its.name, its.released, *its.addresses, *its.singles)),
                self.node.compare,
                *(block.compare for block in self.blocks if block),
                self.namespace.compare if self.namespace else Absent(its.namespace),
                as_read(its.pod, self.pod),
                *((numbered.compare,) if numbered else ()),
            ],
            operations=[
                Put(its.endpoint, records.endpoint_to_record(endpoint)),
                *(Put(name, key) for name in (its.name, *its.addresses)),
            ],
        )


_Accepted = tuple[_Case, Accepted]


class Newcomers:
    """Registers what is plainly new."""

    def __init__(self, store: Store, identities: Identities, labels: LabelFilter) -> None:
        self._store = store
        self._identities = identities
        self._labels = labels
        # The node's registration, not its last refresh: a node may refresh while it registers.
        self._nodes = Memory(lambda it: Fact(records.node_from_record(it), alive(it.key, it)))
        self._namespaces = Memory(
            lambda it: Fact(
                _Namespace(records.namespace_labels(it), records.namespace_annotations(it)),
                as_read(it.key, it),
            )
        )
        self._blocks = Memory(lambda it: Fact(records.block_owner(it), as_read(it.key, it)))

    async def register(
        self, requests: Sequence[Request], pools: Sequence[PoolRange]
    ) -> Mapping[int, Newcomer]:
        """Registers what can be; the others, by index, are missing in the answer.

        Args:
            requests: at most MAX_PARTS, no two with the same (node, id) or address.
            pools: those that are remembered.

        Raises:
            Unavailable: the store is away; what was written, if anything, the registrar finds.
        """
        planned = {
            index: (request, its)
            for index, request in enumerate(requests)
            if (its := _Keys.of(request, pools)) is not None
        }
        accepted = dict(self._judge(await self._read(planned), pools))
        try:
            numbers = await self._identities.numbers(_label_sets(accepted.values()))
        except Exhausted:  # which of them it is about the registrar finds out
            return {}
        parts = [
            case.part(verdict, numbers[verdict.label_set] if verdict.label_set else None)
            for case, verdict in accepted.values()
        ]
        succeeded, revision = await self._write(parts)
        registered: dict[int, Newcomer] = {}
        outcomes = zip(accepted.items(), parts, succeeded, strict=True)
        for (index, (case, verdict)), part, holds in outcomes:
            if holds:
                record = part.operations[0]
                assert isinstance(record, Put)
                stored = records.written(record.key, record.value, revision)
                registered[index] = Newcomer(stored, verdict.label_set is not None)
            else:
                self._forget(case.its)
                self._identities.forget(_label_sets([(case, verdict)]))
        return registered

    async def _read(self, planned: Mapping[int, tuple[Request, _Keys]]) -> dict[int, _Case]:
        """What decides about the requests, without those whose number there is already.

        It is read at several revisions. All of it is compared, or leads to nothing.
        """
        names: dict[str, None] = {}
        for _, its in planned.values():
            names |= dict.fromkeys((its.pod, its.name))
            known = self._remembered(its)
            names |= dict.fromkeys(name for memory, name in known if memory.get(name) is None)
        found = await self._get(list(names))
        cases = {}
        for index, (request, its) in planned.items():
            for memory, name in self._remembered(its):
                if item := found.get(name):
                    memory.learn(item)
            if found[its.name] is None:
                cases[index] = _Case(
                    request=request,
                    its=its,
                    pod=found[its.pod],
                    node=self._nodes.get(its.node),
                    namespace=self._namespaces.get(its.namespace),
                    blocks=[*map(self._blocks.get, its.blocks)],
                )
        return cases

    async def _get(self, names: Sequence[str]) -> dict[str, KeyValue | None]:
        parts = [
            names[start : start + MAX_TRANSACTION_OPERATIONS]
            for start in range(0, len(names), MAX_TRANSACTION_OPERATIONS)
        ]
        if len(parts) == 1:
            items, _ = await self._store.get_many(names)
            return dict(zip(names, items, strict=True))
        answers = await asyncio.gather(*map(self._store.get_many, parts))
        found = chain.from_iterable(items for items, _ in answers)
        return dict(zip(names, found, strict=True))

    def _judge(
        self, cases: Mapping[int, _Case], pools: Sequence[PoolRange]
    ) -> Iterator[tuple[int, _Accepted]]:
        for index, case in cases.items():
            try:
                verdict = judge(case.request, case.known(pools), self._labels)
            except DeltaplaneError:
                verdict = None
            if isinstance(verdict, Accepted):
                yield index, (case, verdict)
            else:
                self._forget(case.its)

    async def _write(self, parts: Sequence[Part]) -> tuple[Sequence[bool], int]:
        match parts:
            case []:
                return (), 0
            case [part]:
                committed = await self._store.transact(part.compares, part.operations)
                return (committed.succeeded,), committed.revision
            case _:
                together = await self._store.transact_parts(parts)
                return together.succeeded, together.revision

    def _remembered(self, its: _Keys) -> Iterator[tuple[Memory[Any], str]]:
        yield self._nodes, its.node
        yield self._namespaces, its.namespace
        for name in its.blocks:
            yield self._blocks, name

    def _forget(self, its: _Keys) -> None:
        for memory, name in self._remembered(its):
            memory.forget(name)


def _label_sets(accepted: Iterable[_Accepted]) -> list[LabelSet]:
    return [it.label_set for _, it in accepted if it.label_set is not None]

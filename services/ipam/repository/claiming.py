"""Claims of blocks: many in one transaction, and without a read as long as the view is right.

    claims  ──► a block for each, from the view ──► one transaction ──► done
                            ▲                             │ refused: a node, request, pool or block
                            └── the view is corrected ◄───┘ is not what the view says

Nothing but a transaction that succeeded, or a record that was read, answers a claim. What the view
says decides only what is tried; so any number of replicas, with views as wrong as can be, never
give one block twice, nor two blocks to one request.
"""

import copy
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from deltaplane import wire as values
from deltaplane.errors import DeltaplaneError, NotFound, Refused, Unavailable
from deltaplane.model.addresses import Prefix
from deltaplane.store import keys
from deltaplane.store.port import (
    MAX_TRANSACTION_OPERATIONS,
    Absent,
    Compare,
    Delete,
    KeyValue,
    Operation,
    Put,
    Store,
    Unchanged,
)
from deltaplane.store.retry import compare_and_swap
from deltaplane.v1 import ipam_pb2
from services.ipam import wire
from services.ipam.repository.records import (
    NotRegistered,
    Registration,
    all_pools,
    as_read,
    check_registered,
    granted,
    other_request,
)
from services.ipam.repository.view import PoolView, Snapshot
from services.ipam.wire import Claim, Outcome

_KEYS_OF_A_CLAIM = 3
"""Block, freed block and request; node and pool may be shared, the counter is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pick:
    """The block that a claim tries to get.

    Attributes:
        view: of the pool.
        number: of the block.
        node: who claims, as registered.
        block_key: of the block; freed_key and request_key of what belongs to it.
        freed_at: revision at which the block was given back; 0: it was never owned.
        guards: what must hold, too, for the record to tell the truth.
        record: that would be written.
    """

    view: PoolView
    number: int
    node: Registration
    block_key: str
    freed_key: str
    request_key: str
    freed_at: int
    guards: tuple[Compare, ...]
    record: ipam_pb2.Block


_Found = Mapping[str, KeyValue | None]
_Picks = dict[Claim, _Pick]


class Claimer:
    """Claims blocks. Calls may overlap; each one of them is a batch."""

    def __init__(self, store: Store, pause: Callable[[float], Awaitable[None]]) -> None:
        self._store = store
        self._pause = pause
        self._views: dict[str, PoolView] = {}
        self._nodes: dict[str, Registration] = {}

    def leading(self, claims: Iterable[Claim], guards: int = 0) -> int:
        """How many of the claims, from the first on, fit into one transaction beside guards."""
        shared = {("counter", "")}
        count = 0
        for claim in claims:
            shared |= {("node", claim.node), ("pool", claim.pool)}
            size = _KEYS_OF_A_CLAIM * (count + 1) + len(shared) + guards
            if size > MAX_TRANSACTION_OPERATIONS:
                break
            count += 1
        return count

    async def claim(self, claims: Sequence[Claim]) -> list[Outcome]:
        """A block or an error for each claim, in their order.

        Args:
            claims: as many as `leading` allows.
        """
        open_ = dict.fromkeys(claims)
        outcomes: dict[Claim, Outcome] = {}

        async def attempt() -> bool | None:
            outcomes.update(await self._attempt([it for it in open_ if it not in outcomes]))
            return True if len(outcomes) == len(open_) else None

        try:
            await compare_and_swap(attempt, pause=self._pause)
        except Unavailable as error:
            return [outcomes.get(claim) or copy.copy(error) for claim in claims]
        return [outcomes[claim] for claim in claims]

    def forget(self, block: Prefix, revision: int) -> None:
        """Takes notice that a block was given back by this replica."""
        for name, view in list(self._views.items()):
            pool = view.pool
            if not pool.prefix.contains(block):
                continue
            if block.length == pool.block_length:
                view.free(pool.number(block))
                view.freed[pool.number(block)] = revision
            else:
                del self._views[name]

    async def _attempt(self, claims: Sequence[Claim]) -> dict[Claim, Outcome]:
        """Answers those that it can; the others are for the next attempt."""
        try:
            return await self._try(claims)
        except BaseException:
            # Nobody knows what was applied: the blocks that were picked are neither ours nor free.
            self._views.clear()
            raise

    async def _try(self, claims: Sequence[Claim]) -> dict[Claim, Outcome]:
        await self._load({claim.pool for claim in claims} - self._views.keys())
        picks: _Picks = {}
        outcomes: dict[Claim, Outcome] = {}
        if unsure := self._pick(claims, picks):
            found = await self._look(unsure, {})
            outcomes |= await self._repeated(unsure, found)
            left = [claim for claim in unsure if claim not in outcomes]
            loaded = await self._load({it.pool for it in left if not self._has_room(it)})
            # Two views of a pool would give one block twice.
            outdated = [it for it in picks if picks[it].view is not self._views.get(it.pool)]
            for claim in outdated:
                del picks[claim]
            vain = self._pick((*outdated, *left), picks)
            for claim in set(vain) & set(left):
                view = self._views.get(claim.pool) if claim.pool in loaded else None
                if refusal := _refusal(claim, found, view):
                    outcomes[claim] = refusal
        if not picks:
            return outcomes
        committed = await self._store.transact(*_transaction(picks.values()))
        if not committed.succeeded:
            found = await self._look(list(picks), picks)
            return outcomes | await self._repeated(list(picks), found)
        for claim, pick in picks.items():
            pick.view.freed.pop(pick.number, None)
            pick.record.meta.create_revision = committed.revision
            pick.record.meta.mod_revision = committed.revision
            outcomes[claim] = pick.record
        return outcomes

    def _pick(self, claims: Iterable[Claim], picks: _Picks) -> list[Claim]:
        """Adds a pick for each claim that should succeed; returns those that should not.

        What is neither is for the next attempt: the second one of two that are one request, and
        what does not fit into the transaction because of its guards.
        """
        taken = {pick.request_key for pick in picks.values()}
        guards = sum(len(pick.guards) for pick in picks.values())
        unsure: list[Claim] = []
        for claim in claims:
            view, node = self._views.get(claim.pool), self._nodes.get(claim.node)
            if view is None or node is None or node.uid != claim.node_uid or view.pool.draining:
                unsure.append(claim)
                continue
            request_key = _request_key(claim, view)
            if request_key in taken:
                continue
            number = view.choose(claim.node)
            if number is None:
                unsure.append(claim)
                continue
            pick = _picked(claim, view, number, node, request_key)
            guards += len(pick.guards)
            if guards and self.leading((*picks, claim), guards) <= len(picks):
                break
            picks[claim] = pick
            taken.add(pick.request_key)
            view.take(number, claim.node)
        return unsure

    async def _look(self, claims: Sequence[Claim], picks: _Picks) -> _Found:
        """Reads what the claims depend on and corrects what is known.

        Args:
            claims: to answer.
            picks: what was tried for them in vain; empty when nothing was.
        """
        found = await self._read(
            (
                keys.FIXED_COUNTER,
                *(keys.node(claim.node) for claim in claims),
                *(keys.pool(claim.pool) for claim in claims),
                *(pick.request_key for pick in picks.values()),
                *(key for pick in picks.values() for key in (pick.block_key, pick.freed_key)),
                *(
                    keys.block_request(claim.node_uid, request_id)
                    for claim in claims
                    if claim not in picks
                    for request_id in _request_ids(claim)
                ),
            )
        )
        for claim in claims:
            self._learn_node(claim.node, found[keys.node(claim.node)])
            self._learn_pool(claim.pool, found[keys.pool(claim.pool)], found[keys.FIXED_COUNTER])
        for claim, pick in picks.items():
            _learn_block(pick, found[pick.block_key], found[pick.freed_key])
            if pick.guards:  # one of them may be what did not hold
                self._views.pop(claim.pool, None)
        return found

    async def _repeated(self, claims: Sequence[Claim], found: _Found) -> dict[Claim, Outcome]:
        """The blocks that requests got before; none for one that has been released since."""
        pointed: dict[Claim, tuple[str, str]] = {}
        for claim in claims:
            for request_id in _request_ids(claim):
                stored = found.get(keys.block_request(claim.node_uid, request_id))
                if stored is not None:
                    pointed[claim] = request_id, stored.value.decode()
        blocks = await self._read(key for _, key in pointed.values())
        outcomes: dict[Claim, Outcome] = {}
        for claim, (request_id, key) in pointed.items():
            block = granted(blocks[key], claim.node_uid, request_id)
            if block is not None:
                same = block.pool == claim.pool and not block.fixed
                outcomes[claim] = block if same else other_request(request_id, block)
        return outcomes

    async def _load(self, names: set[str]) -> set[str]:
        """Reads pools with their blocks; returns the names. Those that do not exist are unknown."""
        if not names:
            return names
        blocks = await self._store.list(keys.BLOCKS)
        at = blocks.revision
        freed = await self._store.list(keys.FREED_BLOCKS, revision=at)
        snapshot = Snapshot(
            pools={it.pool.name: it for it in await all_pools(self._store, at)},
            blocks=[wire.block_from_record(item) for item in blocks.items],
            freed={wire.freed_prefix(item.key): item.mod_revision for item in freed.items},
            counter=await self._store.get(keys.FIXED_COUNTER, revision=at),
        )
        for name in names & snapshot.pools.keys():
            self._views[name] = PoolView.of(name, snapshot)
        return names

    async def _read(self, wanted: Iterable[str]) -> _Found:
        distinct = tuple(dict.fromkeys(wanted))
        if not distinct:
            return {}
        found, _ = await self._store.get_many(distinct)
        return dict(zip(distinct, found, strict=True))

    def _learn_node(self, name: str, stored: KeyValue | None) -> None:
        if stored is None:
            self._nodes.pop(name, None)
        else:
            self._nodes[name] = Registration.of(stored)

    def _learn_pool(self, name: str, stored: KeyValue | None, counter: KeyValue | None) -> None:
        view = self._views.get(name)
        if view is not None and (view.stored.stored, view.counter) != (stored, counter):
            del self._views[name]

    def _has_room(self, claim: Claim) -> bool:
        """False when only reading the pool anew tells whether the claim can succeed."""
        view = self._views.get(claim.pool)
        return view is not None and view.choose(claim.node) is not None


def whole(outcomes: list[Outcome]) -> list[Outcome]:
    """The outcomes of a node's request, unless one error says it all.

    Raises:
        NotRegistered: the node, and no claim got a block.
        Unavailable: for every claim.
    """
    errors = [it for it in outcomes if isinstance(it, DeltaplaneError)]
    if errors and len(errors) == len(outcomes):
        for error in errors:
            if isinstance(error, NotRegistered):
                raise error
        if all(isinstance(error, Unavailable) for error in errors):
            raise errors[0]
    return outcomes


def _refusal(claim: Claim, found: _Found, view: PoolView | None) -> DeltaplaneError | None:
    """Why a claim cannot succeed. None: nothing that was read says so, the view was wrong.

    Args:
        claim: that could not be tried.
        found: what has just been read.
        view: the pool, if it has just been read as a whole.
    """
    stored = found[keys.pool(claim.pool)]
    if stored is None:
        return NotFound(f"pool {claim.pool} does not exist; see `deltaplane get pools`")
    try:
        check_registered(claim.node, claim.node_uid, found[keys.node(claim.node)])
    except Refused as error:
        return error
    if wire.pool_from_record(stored).pool.draining:
        return Refused(
            f"pool {claim.pool} is draining: it gives no new blocks; "
            f"`deltaplane pool undrain {claim.pool}` ends that"
        )
    return None if view is None else view.exhausted()


def _request_ids(claim: Claim) -> tuple[str, str]:
    """By which a claim is known: in a pool on demand, in a static one.

    All claims of a node to a static pool are one request: it owns one block of it.
    """
    return claim.request_id, f"static:{claim.pool}"


def _request_id(claim: Claim, view: PoolView) -> str:
    # As `_request_ids` has it; three times for each claim, so without making the other one.
    return f"static:{claim.pool}" if view.is_static else claim.request_id


def _request_key(claim: Claim, view: PoolView) -> str:
    return keys.block_request(claim.node_uid, _request_id(claim, view))


def _picked(
    claim: Claim, view: PoolView, number: int, node: Registration, request_key: str
) -> _Pick:
    prefix = view.pool.block(number)
    block_key = keys.block(prefix)
    record = ipam_pb2.Block(
        prefix=values.prefix_to_proto(prefix),
        pool=claim.pool,
        node=claim.node,
        node_uid=claim.node_uid,
        node_index=node.index,
        request_id=_request_id(claim, view),
        usable_after_revision=view.usable_after(number),
    )
    return _Pick(
        view=view,
        number=number,
        node=node,
        block_key=block_key,
        freed_key=keys.freed_of(block_key),
        request_key=request_key,
        freed_at=view.freed.get(number, 0),
        guards=view.guards(number),
        record=record,
    )


def _learn_block(pick: _Pick, block: KeyValue | None, freed: KeyValue | None) -> None:
    given_back = pick.view.freed
    if block is None:
        pick.view.free(pick.number)
    else:
        pick.view.take(pick.number, ipam_pb2.Block.FromString(block.value).node)
    if freed is None:
        given_back.pop(pick.number, None)
    else:
        given_back[pick.number] = freed.mod_revision


def _transaction(picks: Collection[_Pick]) -> tuple[list[Compare], list[Operation]]:
    pools = {pick.view.stored.stored for pick in picks}
    compares: list[Compare] = [Unchanged(pool.key, pool.mod_revision) for pool in pools]
    compares += {as_read(keys.FIXED_COUNTER, pick.view.counter) for pick in picks}
    # The registration, not its last refresh: a node may refresh while it claims.
    compares += {pick.node.unchanged for pick in picks}
    operations: list[Operation] = []
    for pick in picks:
        compares += _compares(pick)
        operations += [
            Put(pick.block_key, pick.record.SerializeToString(deterministic=True)),
            Put(pick.request_key, pick.block_key.encode()),
        ]
        if pick.freed_at:
            operations.append(Delete(pick.freed_key))
    return compares, operations


def _compares(pick: _Pick) -> Iterator[Compare]:
    yield Absent(pick.block_key)
    yield Absent(pick.request_key)
    # What the record says of the past must be true when it is written.
    if pick.freed_at:
        yield Unchanged(pick.freed_key, pick.freed_at)
    else:
        yield Absent(pick.freed_key)
    yield from pick.guards

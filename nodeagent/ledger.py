"""What a node knows of its addresses, as one value: interfaces, blocks, pools, who waits for whom.

Pure. A function takes a ledger and returns the next one together with the writes that make it
durable; `nodeagent.journal` commits those and only then takes the new ledger. Whatever a crash
leaves is therefore one of the ledgers that were returned.

    (nothing) ──begin──► ALLOCATING ──commit──► READY ──retire──► RELEASING ──erase──► (nothing)
                              │                   └──lose──► LOST ────┘▲
                              └───────────────retire───────────────────┘
"""

from collections.abc import Iterable
from dataclasses import replace

from deltaplane.errors import Conflict
from deltaplane.model.addresses import AddressPair, Prefix
from deltaplane.model.objects import PoolObject
from nodeagent import addressing, delegated
from nodeagent.addressing import Block, Progress, Released
from nodeagent.choosing import choose, is_past_fence
from nodeagent.cni.netconf import Attachment, HostPort, PodName
from nodeagent.entries import (
    Begun,
    DropBlock,
    DropInterface,
    DropPool,
    DropReleased,
    InterfaceRecord,
    Kind,
    Ledger,
    PutBlock,
    PutInterface,
    PutPool,
    PutReleased,
    SetCounters,
    SetState,
    State,
    Step,
    Write,
)
from nodeagent.pools import Pool, Request
from nodeagent.restoring import held_back

# --- interfaces ----------------------------------------------------------------------------------


def begin(
    ledger: Ledger,
    attachment: Attachment,
    *,
    attempt: str,
    pod: PodName,
    requests: Iterable[Request],
    host_ports: tuple[HostPort, ...] = (),
) -> Begun:
    """Opens an interface: a number and what is asked for, all or nothing.

    Raises:
        Conflict: the attachment has an interface, an address asked for by number is held, or a
            port of the node leads to somebody else.
        Exhausted: an address of what is asked for cannot be had now.
    """
    if attachment in ledger.attachments:
        raise Conflict(f"{attachment} has an interface; DEL comes first")
    _check_ports(ledger, host_ports)
    taking = _Taking(ledger)
    for request in requests:
        taking.take(request)
    record = InterfaceRecord(
        number=taking.number + 1,
        state=State.ALLOCATING,
        attachment=attachment,
        attempt=attempt,
        pod=pod,
        addresses=AddressPair(ipv4=taking.taken.get(4), ipv6=taking.taken.get(6)),
        kind=taking.kind,
        host_ports=host_ports,
    )
    added = (*taking.gateways, record)
    after = replace(
        ledger,
        last_number=record.number,
        interfaces={**ledger.interfaces, **{new.number: new for new in added}},
        attachments={**ledger.attachments, **{new.attachment: new.number for new in added}},
        blocks=taking.blocks,
    )
    writes = (*taking.writes, *map(PutInterface, added))
    return Begun(Step(after, writes), record, tuple(taking.past_fence))


def _check_ports(ledger: Ledger, wanted: tuple[HostPort, ...]) -> None:
    if not wanted:
        return
    for record in ledger.interfaces.values():
        # One that goes leads nowhere any more.
        if record.state is State.RELEASING:
            continue
        for port in wanted:
            if any(port.overlaps(held) for held in record.host_ports):
                whose = f"{record.pod.namespace}/{record.pod.name}"
                raise Conflict(f"host port {port} leads to {whose}")


class _Taking:
    """What one interface takes, while it is put together."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.number = ledger.last_number
        self.kind = Kind.POD
        self.blocks = dict(ledger.blocks)
        self.taken: dict[int, bytes] = {}
        self.writes: list[Write] = []
        self.past_fence: list[bytes] = []
        self.gateways: list[InterfaceRecord] = []

    def take(self, request: Request) -> None:
        """Takes an address, and the gateway's if the block becomes a network's by that."""
        block, offset = choose(self.ledger, request)
        if is_past_fence(block, offset, self.ledger.progress):
            self.past_fence.append(block.prefix.nth(offset))
        if request.network:
            self.kind = Kind.IPAM
            if not self.ledger.blocks[block.ordinal].network:
                self.number += 1
                self.gateways.append(delegated.gateway(block, request.network, self.number))
                block = self._hold(block, delegated.GATEWAY_OFFSET)
        self.taken[request.family] = block.prefix.nth(offset)
        self.blocks[block.ordinal] = self._hold(block, offset)

    def _hold(self, block: Block, offset: int) -> Block:
        if block.rested >> offset & 1:
            self.writes.append(DropReleased(block.prefix.nth(offset)))
        return addressing.take(block, offset)


def commit(ledger: Ledger, number: int) -> Step:
    """The interface works: ALLOCATING → READY."""
    return _set_state(ledger, number, State.READY)


def lose(ledger: Ledger, number: int) -> Step:
    """Its addresses are not this node's any more: READY → LOST."""
    return _set_state(ledger, number, State.LOST)


def retire(ledger: Ledger, number: int) -> Step:
    """The interface is to go, whatever it takes: → RELEASING; frees its attachment at once."""
    step = _set_state(ledger, number, State.RELEASING)
    record = ledger.interfaces[number]
    if ledger.attachments.get(record.attachment) != number:
        return step
    attachments = dict(ledger.attachments)
    del attachments[record.attachment]
    return Step(replace(step.ledger, attachments=attachments), step.writes)


def erase(ledger: Ledger, number: int, *, revision: int, lineage: bytes, now: float) -> Step:
    """Everything about the interface is undone: forgets it; its addresses wait.

    Args:
        ledger: before.
        number: of a RELEASING interface.
        revision: at it the registry has no such endpoint.
        lineage: of the revision, as far as is known; empty: not.
        now: wall clock, seconds.
    """
    record = ledger.interfaces[number]
    progress = ledger.progress
    if not record.is_registered:
        # No other node has ever heard of it.
        lineage, revision = progress.lineage, 0
    elif lineage != progress.lineage or revision < progress.watermark:
        # What was released just now cannot lie behind what all have passed, unless the registry has
        # got another store than the slicers.
        lineage = b""
    blocks = dict(ledger.blocks)
    writes: list[Write] = [DropInterface(number)]
    for address in record.addresses:
        block = ledger.block_of(address)
        offset = None if block is None else block.offset(address)
        if block is None or offset is None:
            continue  # the block was lost, and the address with it
        gone = Released(offset, revision, lineage, now)
        blocks[block.ordinal] = addressing.give(blocks[block.ordinal], gone)
        writes.append(PutReleased(address, gone))
    interfaces = dict(ledger.interfaces)
    del interfaces[number]
    return Step(replace(ledger, interfaces=interfaces, blocks=blocks), tuple(writes))


# --- blocks --------------------------------------------------------------------------------------


def add_block(
    ledger: Ledger,
    ordinal: int,
    pool: str,
    prefix: Prefix,
    *,
    fixed: bool = False,
    usable_after: int = 0,
    lineage: bytes = b"",
    now: float = 0.0,
) -> Step:
    """Takes over a claimed block; the same block again changes nothing but the counter."""
    last = max(ledger.last_ordinal, ordinal)
    if any(block.prefix == prefix for block in ledger.blocks.values()):
        counted = replace(ledger, last_ordinal=last)
        return Step(counted, (SetCounters(ledger.last_number, last),))
    block = Block(
        ordinal=ordinal,
        pool=pool,
        prefix=prefix,
        fixed=fixed,
        usable_after=usable_after,
        lineage=lineage if lineage == ledger.progress.lineage else b"",
        since=now,
    )
    around = ledger.block_of(prefix.address) if fixed else None
    if around is not None:
        # The answer to the claim was lost, and this node has claimed the block around it since.
        around, block = _moved_out(around, block)
        ledger = _with(ledger, around)
    after = replace(ledger, last_ordinal=last, blocks={**ledger.blocks, ordinal: block})
    if around is not None:
        others = ledger.foreign | after.own_fixed
        after = _with(after, held_back(around, ledger.pools, others))
    # An interface from before the node was deleted may still have an address of it.
    block = _with_holders(after, block)
    block, writes = _learn_foreign(block, after, ledger.foreign, now)
    return Step(_with(after, block), (PutBlock(block), *writes))


def release_block(ledger: Ledger, ordinal: int) -> Step:
    """The block is to be given back: nothing is handed out of it any more.

    Raises:
        Conflict: it holds an address, or waits for one.
    """
    block = ledger.blocks[ordinal]
    if not block.is_idle(ledger.progress):
        raise Conflict(f"{block.prefix} is in use")
    block = replace(block, releasing=True)
    return Step(_with(ledger, block), (PutBlock(block),))


def drop_block(ledger: Ledger, ordinal: int) -> Step:
    """The block is this node's no more. Interfaces keep addresses of it until they are erased."""
    blocks = dict(ledger.blocks)
    block = blocks.pop(ordinal)
    gone: tuple[Write, ...] = tuple(
        DropReleased(block.prefix.nth(old.offset)) for old in block.released
    )
    after = replace(ledger, blocks=blocks)
    if block.network:
        after, dropped = _without_gateway(after, block.prefix.nth(delegated.GATEWAY_OFFSET))
        gone += dropped
    if block.fixed and (around := after.block_of(block.prefix.address)) is not None:
        # Back into the block that it lies in, which this node has claimed since.
        around = _with_holders(after, around)
        others = ledger.foreign | after.own_fixed
        after = _with(after, held_back(around, ledger.pools, others))
    return Step(after, (*gone, DropBlock(ordinal)))


def _without_gateway(ledger: Ledger, address: bytes) -> tuple[Ledger, tuple[Write, ...]]:
    going = [
        record
        for record in ledger.interfaces.values()
        if record.kind is Kind.GATEWAY and address in record.addresses
    ]
    interfaces, attachments = dict(ledger.interfaces), dict(ledger.attachments)
    for record in going:
        del interfaces[record.number], attachments[record.attachment]
    after = replace(ledger, interfaces=interfaces, attachments=attachments)
    return after, tuple(DropInterface(record.number) for record in going)


def strays(ledger: Ledger) -> tuple[int, ...]:
    """Numbers of interfaces with an address in none of the blocks."""
    return tuple(
        record.number
        for record in ledger.interfaces.values()
        if any(ledger.block_of(address) is None for address in record.addresses)
    )


# --- what the cluster says -----------------------------------------------------------------------


def learn_pools(
    ledger: Ledger,
    listed: Iterable[tuple[PoolObject, int]],
    *,
    lineage: bytes,
    revision: int,
    replace_all: bool = False,
) -> Step:
    """Takes over a list of all pools; what the ledger has newer stays.

    Args:
        ledger: before.
        listed: pools and their generations.
        lineage: of the list; empty: not known.
        revision: that the list shows.
        replace_all: what is known stems from a store that may be gone.
    """
    pools = dict(ledger.pools)
    writes: list[Write] = []
    names = set()
    for value, generation in listed:
        names.add(value.name)
        known = pools.get(value.name)
        newer = known is None or replace_all or _is_other(known.lineage, lineage)
        if known is None or newer or generation > known.generation:
            found = Pool(value, generation, lineage)
        else:
            found = replace(known, lineage=known.lineage or lineage)
        if found != known:
            pools[value.name] = found
            writes.append(PutPool(found))
    for name, known in ledger.pools.items():
        old = replace_all or _is_other(known.lineage, lineage) or known.generation <= revision
        if name not in names and old:
            del pools[name]
            writes.append(DropPool(name))
    if not writes:
        return Step(ledger)
    blocks = {
        ordinal: held_back(block, pools, ledger.foreign | ledger.own_fixed)
        for ordinal, block in ledger.blocks.items()
    }
    return Step(replace(ledger, pools=pools, blocks=blocks), tuple(writes))


def observe(ledger: Ledger, progress: Progress, foreign: frozenset[bytes], now: float) -> Step:
    """Takes a barrier in: how far all are, and which single addresses other nodes have claimed.

    Rows of another lineage are given a revision of this one. An address that another node claims
    is written down as one that was released at a revision that nobody knows yet: when it comes
    back, also after a restart, it waits until all know that.
    """
    if progress.lineage != ledger.progress.lineage or foreign != ledger.foreign:
        return _observe(ledger, progress, foreign, now)
    unknown = any(
        gone.lineage != progress.lineage
        for block in ledger.blocks.values()
        for gone in block.released
    )
    unknown |= any(
        block.usable_after and block.lineage != progress.lineage for block in ledger.blocks.values()
    )
    if unknown:
        return _observe(ledger, progress, foreign, now)
    return Step(replace(ledger, progress=progress))


def _observe(ledger: Ledger, progress: Progress, foreign: frozenset[bytes], now: float) -> Step:
    blocks: dict[int, Block] = {}
    writes: list[Write] = []
    for ordinal, old in ledger.blocks.items():
        block, news = _learn_foreign(old, ledger, foreign, now)
        writes += news
        block, stamped = addressing.restamp(block, progress)
        writes += [PutReleased(block.prefix.nth(gone.offset), gone) for gone in stamped]
        if (block.usable_after, block.lineage) != (old.usable_after, old.lineage):
            writes.append(PutBlock(block))
        blocks[ordinal] = block
    after = replace(ledger, progress=progress, foreign=foreign, blocks=blocks)
    return Step(after, tuple(writes))


def _learn_foreign(
    old: Block, ledger: Ledger, foreign: frozenset[bytes], now: float
) -> tuple[Block, list[Write]]:
    """Holds back what others have claimed, and writes that down for the time after."""
    block = held_back(old, ledger.pools, foreign | ledger.own_fixed)
    writes: list[Write] = []
    for offset in addressing.offsets(block.foreign & ~(old.foreign | block.held)):
        address = block.prefix.nth(offset)
        if address in foreign:
            gone = Released(offset, 0, b"", now)
            block = addressing.give(block, gone)
            writes.append(PutReleased(address, gone))
    return block, writes


# --- inside --------------------------------------------------------------------------------------


def _set_state(ledger: Ledger, number: int, state: State) -> Step:
    record = replace(ledger.interfaces[number], state=state)
    after = replace(ledger, interfaces={**ledger.interfaces, number: record})
    return Step(after, (SetState(number, state),))


def _with_holders(ledger: Ledger, block: Block) -> Block:
    """The block with the addresses of it that interfaces have."""
    for record in ledger.interfaces.values():
        for address in record.addresses:
            offset = block.offset(address)
            owner = None if offset is None else ledger.block_of(address)
            if offset is None or owner is None or owner.ordinal != block.ordinal:
                continue
            if not block.held >> offset & 1:
                block = addressing.take(block, offset)
    return block


def _moved_out(around: Block, block: Block) -> tuple[Block, Block]:
    """Both blocks after the second, of one address, has taken over what the first knows of it."""
    offset = around.offset(block.prefix.address)
    assert offset is not None
    gone = addressing.find_released(around, offset)
    if gone is not None:
        block = addressing.give(block, gone._replace(offset=0))
    bit = 1 << offset
    rest = tuple(other for other in around.released if other.offset != offset)
    left = replace(around, held=around.held & ~bit, rested=around.rested & ~bit, released=rest)
    return left, block


def _with(ledger: Ledger, block: Block) -> Ledger:
    return replace(ledger, blocks={**ledger.blocks, block.ordinal: block})


def _is_other(known: bytes, lineage: bytes) -> bool:
    """Whether two lineages are known to differ."""
    return bool(known and lineage and known != lineage)

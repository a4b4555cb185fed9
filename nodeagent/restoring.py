"""A ledger from what is on disk or what the registry knows, and whether one is sound. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from deltaplane.errors import Internal
from deltaplane.model.addresses import format_address
from nodeagent import addressing, delegated
from nodeagent.addressing import Block, Released
from nodeagent.cni.netconf import Attachment
from nodeagent.entries import (
    InterfaceRecord,
    Ledger,
    PutBlock,
    PutInterface,
    PutReleased,
    SetCounters,
    SetRebuilt,
    State,
    Step,
    Write,
)
from nodeagent.pools import Pool


def restore(
    records: Iterable[InterfaceRecord],
    blocks: Iterable[Block],
    pools: Iterable[Pool],
    released: Mapping[bytes, Released],
    *,
    numbers: int,
    ordinals: int,
    is_new: bool = False,
) -> Ledger:
    """The ledger that rows stand for.

    Args:
        records: interfaces.
        blocks: without their addresses.
        pools: as known.
        released: by address; offsets are found out here.
        numbers: highest endpoint number ever given.
        ordinals: highest ordinal ever given.
        is_new: see Ledger.

    Raises:
        ValueError: rows contradict each other.
    """
    interfaces = {record.number: record for record in records}
    known = {pool.name: pool for pool in pools}
    ledger = Ledger(
        last_number=numbers,
        last_ordinal=ordinals,
        interfaces=interfaces,
        attachments=_live(interfaces),
        blocks={block.ordinal: block for block in sorted(blocks, key=lambda b: b.ordinal)},
        pools=known,
        is_new=is_new,
    )
    served = delegated.networks(interfaces.values())
    found = {n: delegated.recognize(block, served) for n, block in ledger.blocks.items()}
    for record in interfaces.values():
        for address in record.addresses:
            block, offset = _place(ledger, address)
            if block is not None:
                found[block.ordinal] = addressing.take(found[block.ordinal], offset)
    for address, gone in sorted(released.items(), key=lambda item: item[1].revision):
        block, offset = _place(ledger, address)
        if block is not None:
            if found[block.ordinal].held >> offset & 1:
                message = f"{format_address(address)} is held and released at once"
                raise ValueError(message)
            moved = gone._replace(offset=offset)
            found[block.ordinal] = addressing.give(found[block.ordinal], moved)
    return replace(
        ledger,
        blocks={n: held_back(b, known, ledger.own_fixed) for n, b in found.items()},
    )


def rebuild(
    before: Ledger,
    records: Iterable[InterfaceRecord],
    blocks: Iterable[Block],
    *,
    numbers: int,
    ordinals: int,
    revision: int,
    now: float,
) -> Step:
    """The ledger of a node that has lost its own: nobody knows whose the other addresses were.

    Args:
        before: an empty one; its pools stay.
        records: interfaces that the registry knows.
        blocks: that this node owns, without their addresses.
        numbers: no endpoint number above it was ever given.
        ordinals: no ordinal above it was ever given.
        revision: the store has reached it; who had the other addresses lost them before.
        now: wall clock, seconds.
    """
    ledger = restore(records, blocks, before.pools.values(), {}, numbers=numbers, ordinals=ordinals)
    writes: list[Write] = [SetRebuilt(), SetCounters(numbers, ordinals)]
    writes += [PutInterface(record) for record in ledger.interfaces.values()]
    found = {}
    for block in ledger.blocks.values():
        writes.append(PutBlock(block))
        gone = tuple(
            Released(offset, revision, b"", now)
            for offset in addressing.offsets(block.full & ~(block.held | block.foreign))
        )
        writes += [PutReleased(block.prefix.nth(old.offset), old) for old in gone]
        rested = block.full & ~(block.held | block.foreign)
        found[block.ordinal] = replace(block, released=gone, rested=rested)
    return Step(replace(ledger, blocks=found, progress=before.progress), tuple(writes))


def held_back(block: Block, pools: Mapping[str, Pool], others: frozenset[bytes]) -> Block:
    """The block with the masks of what its node must not hand out unasked.

    Args:
        block: before.
        pools: by name.
        others: addresses that have been claimed one by one.
    """
    pool = pools.get(block.pool)
    reserved = addressing.mask(block.prefix, pool.value.reserved) if pool else 0
    if block.network:
        reserved |= delegated.not_for_pods(block)
    foreign = 0
    if not block.fixed:
        for address in others:
            if (offset := block.offset(address)) is not None:
                foreign |= 1 << offset
    if (reserved, foreign) == (block.reserved, block.foreign):
        return block
    return replace(block, reserved=reserved, foreign=foreign)


def check(ledger: Ledger) -> None:
    """Whether the parts agree, for tests and for people who doubt.

    Raises:
        Internal: they do not; says where.
    """
    owners: dict[bytes, int] = {}
    for number, record in ledger.interfaces.items():
        for address in record.addresses:
            if (other := owners.setdefault(address, number)) != number:
                raise Internal(f"{format_address(address)} is held by {other} and {number}")
    for block in ledger.blocks.values():
        held = {block.prefix.nth(offset) for offset in addressing.offsets(block.held)}
        if held != {address for address in owners if ledger.block_of(address) is block}:
            raise Internal(f"{block.prefix}: its mask does not say what its interfaces say")
        gone = 0
        for old in block.released:
            gone |= 1 << old.offset
        order = [(old.revision, old.offset) for old in block.released]
        if gone != block.rested or order != sorted(order):
            raise Internal(f"{block.prefix}: {block.released} and mask {block.rested:x}")
        if sum(addressing.counts(block, ledger.progress)) != block.prefix.size:
            raise Internal(f"{block.prefix}: its addresses do not add up")
    if _live(ledger.interfaces) != ledger.attachments:
        raise Internal("the index of attachments is not what the interfaces say")


def _live(interfaces: Mapping[int, InterfaceRecord]) -> dict[Attachment, int]:
    return {
        record.attachment: number
        for number, record in interfaces.items()
        if record.state is not State.RELEASING
    }


def _place(ledger: Ledger, address: bytes) -> tuple[Block | None, int]:
    block = ledger.block_of(address)
    offset = None if block is None else block.offset(address)
    return (None, 0) if offset is None else (block, offset)

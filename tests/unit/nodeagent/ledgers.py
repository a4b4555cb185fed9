"""A node's ledger, and its writes against the ledger they should lead to."""

from dataclasses import replace

from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.objects import PoolObject
from nodeagent import ledger as core
from nodeagent.addressing import Block, Progress, Released
from nodeagent.cni.netconf import Attachment, PodName
from nodeagent.entries import (
    Begun,
    DropBlock,
    DropInterface,
    DropPool,
    DropReleased,
    InterfaceRecord,
    Ledger,
    PutBlock,
    PutInterface,
    PutPool,
    PutReleased,
    SetCounters,
    SetRebuilt,
    SetState,
    Step,
    Write,
)
from nodeagent.pools import Pool, Request
from nodeagent.restoring import check, held_back, restore

POD = PodName(namespace="shop", name="web", uid="u")
A, B = b"A" * 16, b"B" * 16
POOLS = (
    PoolObject(name="pods4", prefix=Prefix.parse("10.0.0.0/24"), block_length=30),
    PoolObject(name="pods6", prefix=Prefix.parse("fd00::/120"), block_length=126),
)
BOTH = (Request(family=4, pools=("pods4",)), Request(family=6, pools=("pods6",)))
ONLY4 = BOTH[:1]


def attachment(number: int) -> Attachment:
    return Attachment(network="net", container_id=f"c{number}", ifname="eth0")


def fixed(text: str) -> tuple[Request, ...]:
    address = parse_address(text)
    return (Request(family=4 if len(address) == 4 else 6, address=address),)


class Rows:
    """What a file would hold: dictionaries that writes are applied to."""

    def __init__(self) -> None:
        self.interfaces: dict[int, InterfaceRecord] = {}
        self.blocks: dict[int, Block] = {}
        self.released: dict[bytes, Released] = {}
        self.pools: dict[str, Pool] = {}
        self.counters = [0, 0]

    def apply(self, write: Write) -> None:  # noqa: C901 - a table
        match write:
            case PutInterface(record):
                assert record.number not in self.interfaces
                self.interfaces[record.number] = record
                self.counters[0] = max(self.counters[0], record.number)
            case SetState(number, state):
                self.interfaces[number] = replace(self.interfaces[number], state=state)
            case DropInterface(number):
                del self.interfaces[number]
            case PutBlock(block):
                bare = replace(block, held=0, rested=0, released=(), reserved=0, foreign=0)
                self.blocks[block.ordinal] = bare
                self.counters[1] = max(self.counters[1], block.ordinal)
            case DropBlock(ordinal):
                del self.blocks[ordinal]
            case PutReleased(address, gone):
                self.released[address] = gone
            case DropReleased(address):
                del self.released[address]
            case PutPool(pool):
                self.pools[pool.name] = pool
            case DropPool(name):
                del self.pools[name]
            case SetRebuilt():
                pass
            case SetCounters(number, ordinal):
                self.counters = [max(self.counters[0], number), max(self.counters[1], ordinal)]

    def restored(self) -> Ledger:
        return restore(
            self.interfaces.values(),
            self.blocks.values(),
            self.pools.values(),
            self.released,
            numbers=self.counters[0],
            ordinals=self.counters[1],
        )


class Node:
    """A ledger and its rows. `foreign` and `progress` are not durable."""

    def __init__(self, *, strict: bool = False) -> None:
        self.ledger, self.rows = Ledger(progress=Progress(only_strict=strict)), Rows()
        self.strict = strict
        listed = [(pool, 1) for pool in POOLS]
        self.take(core.learn_pools(self.ledger, listed, lineage=A, revision=1))

    def take(self, step: Step) -> None:
        for write in step.writes:
            self.rows.apply(write)
        self.ledger = step.ledger
        check(self.ledger)
        foreign = self.ledger.foreign
        blocks = {
            n: held_back(b, self.ledger.pools, foreign | self.ledger.own_fixed)
            for n, b in self.rows.restored().blocks.items()
        }
        restored = replace(self.rows.restored(), blocks=blocks)
        assert restored == replace(self.ledger, progress=Progress(), foreign=frozenset())

    def add_blocks(self) -> "Node":
        self.take(core.add_block(self.ledger, 1, "pods4", Prefix.parse("10.0.0.0/30")))
        self.take(core.add_block(self.ledger, 2, "pods6", Prefix.parse("fd00::/126")))
        return self

    def begin(self, number: int, requests: tuple[Request, ...] = BOTH) -> Begun:
        begun = core.begin(
            self.ledger, attachment(number), attempt=f"a{number}", pod=POD, requests=requests
        )
        self.take(begun.step)
        return begun

    def erase(self, number: int, revision: int, lineage: bytes = A) -> None:
        self.take(core.retire(self.ledger, number))
        self.take(core.erase(self.ledger, number, revision=revision, lineage=lineage, now=0))

    def see(
        self,
        watermark: int,
        *,
        strict: int | None = None,
        head: int = 0,
        lineage: bytes = A,
        foreign: tuple[str, ...] = (),
    ) -> None:
        progress = Progress(
            lineage=lineage,
            head=head or watermark,
            watermark=watermark,
            strict=watermark if strict is None else strict,
            only_strict=self.strict,
        )
        seen = frozenset(map(parse_address, foreign))
        self.take(core.observe(self.ledger, progress, seen, 0))

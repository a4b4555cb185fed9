"""Where an agent's ledger is kept between its lives."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from nodeagent import entries
from nodeagent.addressing import Block, Progress, Released
from nodeagent.entries import InterfaceRecord, Ledger, Write
from nodeagent.pools import Pool
from nodeagent.restoring import restore

K = TypeVar("K")
V = TypeVar("V")


class Book(Protocol):
    """A journal: what was written is there after a crash."""

    def write(self, step: entries.Step) -> None:
        """Makes a step durable, all of it or nothing."""
        ...

    def load(self) -> Ledger:
        """What a fresh process finds."""
        ...


@dataclass
class Rows:
    """A journal of dictionaries. It keeps what the writes say, not the ledger that came with them:
    a write that was forgotten shows at the next load."""

    number: int = 0
    ordinal: int = 0
    interfaces: Mapping[int, InterfaceRecord] = field(default_factory=dict)
    blocks: Mapping[int, Block] = field(default_factory=dict)
    released: Mapping[bytes, Released] = field(default_factory=dict)
    pools: Mapping[str, Pool] = field(default_factory=dict)

    def fork(self) -> "Rows":
        """A copy that goes its own way; the mappings are never written to."""
        return Rows(
            self.number, self.ordinal, self.interfaces, self.blocks, self.released, self.pools
        )

    def write(self, step: entries.Step) -> None:
        """Applies the writes."""
        for write in step.writes:
            self._apply(write)

    def load(self) -> Ledger:
        """Puts a ledger together."""
        return restore(
            self.interfaces.values(),
            self.blocks.values(),
            self.pools.values(),
            self.released,
            numbers=self.number,
            ordinals=self.ordinal,
        )

    def _apply(self, write: Write) -> None:  # noqa: C901 - a table
        match write:
            case entries.PutInterface(record):
                self.interfaces = {**self.interfaces, record.number: record}
                self.number = max(self.number, record.number)
            case entries.SetState(number, state):
                moved = replace(self.interfaces[number], state=state)
                self.interfaces = {**self.interfaces, number: moved}
            case entries.DropInterface(number):
                self.interfaces = _without(self.interfaces, number)
            case entries.PutBlock(block):
                bare = replace(block, held=0, rested=0, released=(), reserved=0, foreign=0)
                self.blocks = {**self.blocks, block.ordinal: bare}
                self.ordinal = max(self.ordinal, block.ordinal)
            case entries.DropBlock(ordinal):
                self.blocks = _without(self.blocks, ordinal)
            case entries.PutReleased(address, gone):
                self.released = {**self.released, address: gone}
            case entries.DropReleased(address):
                self.released = _without(self.released, address)
            case entries.PutPool(pool):
                self.pools = {**self.pools, pool.name: pool}
            case entries.DropPool(name):
                self.pools = _without(self.pools, name)
            case entries.SetRebuilt():
                pass
            case entries.SetCounters(number, ordinal):
                self.number, self.ordinal = number, ordinal


def durable(ledger: Ledger) -> Ledger:
    """What of a ledger survives a crash, in one form whatever has been observed."""
    blocks = {ordinal: replace(block, foreign=0) for ordinal, block in ledger.blocks.items()}
    return replace(ledger, blocks=blocks, progress=Progress(), foreign=frozenset(), is_new=False)


def _without(table: Mapping[K, V], key: K) -> dict[K, V]:
    return {other: value for other, value in table.items() if other != key}

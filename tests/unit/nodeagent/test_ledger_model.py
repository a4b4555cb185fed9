"""The ledger against a dumb model."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deltaplane.errors import Conflict, Exhausted
from deltaplane.model.addresses import Prefix
from nodeagent import ledger as core
from nodeagent.addressing import Progress
from nodeagent.entries import (
    State,
)
from nodeagent.pools import Request
from tests.unit.nodeagent.ledgers import BOTH, ONLY4, A, Node, attachment


class LedgerMachine(RuleBasedStateMachine):
    """Sets of addresses and plain revisions, looked at one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.node = Node()
        self.lineages = [A]
        self.head = self.watermark = 1
        self.owners: dict[bytes, int] = {}
        self.states: dict[int, State] = {}
        self.gone: dict[bytes, tuple[bytes, int]] = {}
        self.foreign: set[bytes] = set()
        self.containers = 0
        self.highest = 0

    @initialize()
    def blocks(self) -> None:
        self.node.add_blocks()
        self.barrier()

    def everything(self, family: int) -> list[bytes]:
        return [
            block.prefix.nth(offset)
            for block in self.node.ledger.blocks.values()
            if block.prefix.is_ipv4 == (family == 4)
            for offset in range(block.prefix.size)
        ]

    def may_be_had(self, family: int) -> set[bytes]:
        return {
            address
            for address in self.everything(family)
            if address not in self.owners
            and address not in self.foreign
            and (
                address not in self.gone
                or (
                    self.gone[address][0] == self.lineages[-1]
                    and self.gone[address][1] <= self.watermark
                )
            )
        }

    def barrier(self) -> None:
        progress = Progress(
            lineage=self.lineages[-1],
            head=self.head,
            watermark=self.watermark,
            strict=self.watermark,
        )
        for address, (lineage, _) in self.gone.items():
            if lineage != self.lineages[-1] and address not in self.foreign:
                self.gone[address] = (self.lineages[-1], self.head)
        self.node.take(core.observe(self.node.ledger, progress, frozenset(self.foreign), 0))

    @rule(container=st.integers(0, 5), families=st.sampled_from([BOTH, ONLY4, BOTH[1:]]))
    def begins(self, container: int, families: tuple[Request, ...]) -> None:
        free = [self.may_be_had(request.family) for request in families]
        known = self.node.ledger.find(attachment(container)) is not None
        try:
            begun = self.node.begin(container, families)
        except Conflict:
            assert known
            return
        except Exhausted:
            assert not all(free)
            return
        assert not known
        record = begun.record
        assert record.number > self.highest
        self.highest = record.number
        for address, allowed in zip(record.addresses, free, strict=True):
            assert address in allowed
            # Never used before used, the longest free before the others.
            if address in self.gone:
                assert not allowed - self.gone.keys()
                lowest = min(self.gone[other][1] for other in allowed)
                assert self.gone.pop(address)[1] == lowest
            self.owners[address] = record.number
        self.states[record.number] = State.ALLOCATING

    @precondition(lambda self: self.states)
    @rule(pick=st.integers(0), name=st.sampled_from(["commit", "retire"]))
    def moves_on(self, pick: int, name: str) -> None:
        number = sorted(self.states)[pick % len(self.states)]
        if self.states[number] is not State.RELEASING:
            self.node.take(getattr(core, name)(self.node.ledger, number))
            self.states[number] = State.READY if name == "commit" else State.RELEASING

    @precondition(lambda self: State.RELEASING in self.states.values())
    @rule(pick=st.integers(0))
    def erases(self, pick: int) -> None:
        leaving = sorted(n for n, state in self.states.items() if state is State.RELEASING)
        number = leaving[pick % len(leaving)]
        self.head += 1
        lineage = self.lineages[-1]
        step = core.erase(self.node.ledger, number, revision=self.head, lineage=lineage, now=0)
        self.node.take(step)
        del self.states[number]
        for address in [a for a, owner in self.owners.items() if owner == number]:
            del self.owners[address]
            self.gone[address] = (lineage, self.head)

    @rule(steps=st.integers(0, 3))
    def watermark_moves(self, steps: int) -> None:
        self.watermark = min(self.head, self.watermark + steps)
        self.barrier()

    @rule()
    def another_etcd(self) -> None:
        self.lineages.append(len(self.lineages).to_bytes(16))
        self.head, self.watermark = 2, 1
        self.barrier()

    @rule(pick=st.integers(0, 7), family=st.sampled_from([4, 6]))
    def another_node_claims_or_gives_back(self, pick: int, family: int) -> None:
        addresses = self.everything(family)
        address = addresses[pick % len(addresses)]
        if address in self.foreign:
            self.foreign.remove(address)
        elif address not in self.owners:
            self.foreign.add(address)
            self.gone[address] = (b"", 0)
        self.head += 1
        self.barrier()

    @rule(ordinal=st.integers(3, 4))
    def claims_or_gives_back(self, ordinal: int) -> None:
        block = self.node.ledger.blocks.get(ordinal)
        if block is None:
            prefix = Prefix.parse(f"10.0.0.{4 * ordinal}/30")
            self.node.take(core.add_block(self.node.ledger, ordinal, "pods4", prefix))
            for address in self.foreign:
                if prefix.contains(address):
                    self.gone[address] = (b"", 0)
            return
        addresses = {block.prefix.nth(offset) for offset in range(4)}
        busy = addresses & self.owners.keys() or any(
            self.gone[address][0] != self.lineages[-1] or self.gone[address][1] > self.watermark
            for address in addresses & self.gone.keys() - self.foreign
        )
        try:
            self.node.take(core.release_block(self.node.ledger, ordinal))
        except Conflict:
            assert busy
            return
        assert not busy
        self.node.take(core.drop_block(self.node.ledger, ordinal))
        for address in addresses:
            self.gone.pop(address, None)

    @invariant()
    def the_ledger_says_what_the_model_says(self) -> None:
        ledger = self.node.ledger
        found = {a: n for n, record in ledger.interfaces.items() for a in record.addresses}
        assert found == self.owners
        assert {n: record.state for n, record in ledger.interfaces.items()} == self.states
        gone = {
            block.prefix.nth(old.offset): (old.lineage, old.revision)
            for block in ledger.blocks.values()
            for old in block.released
        }
        assert gone == self.gone


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)

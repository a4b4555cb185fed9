"""The ledger against a dumb model, and its writes against the ledger they should lead to."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deltaplane.errors import Conflict, Exhausted
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
    State,
    Step,
    Write,
)
from nodeagent.pools import Pool, Request
from nodeagent.restoring import check, held_back, rebuild, restore

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


# --- stories -------------------------------------------------------------------------------------


def test_never_used_addresses_go_first_and_then_the_lowest_revision() -> None:
    node = Node().add_blocks()
    node.see(5)
    for number in (1, 2, 3):
        node.begin(number)
    node.erase(2, revision=30)
    node.erase(1, revision=40)
    node.erase(3, revision=20)
    node.see(50)
    given = [node.begin(number).record.addresses.ipv4 for number in (4, 5, 6, 7)]
    assert [address[3] for address in given if address] == [3, 2, 1, 0]


def test_a_released_address_waits_for_the_watermark_of_its_lineage() -> None:
    node = Node().add_blocks()
    node.see(5)
    for number in range(1, 5):
        node.begin(number)
    node.erase(1, revision=30)

    node.see(29, head=90)
    with pytest.raises(Exhausted) as caught:
        node.begin(9)
    assert str(caught.value) == (
        "no IPv4 address is free: pool pods4: 1 blocks, 3 held, 0 reserved, 0 claimed by other "
        "nodes, 1 quarantined until every live node has acknowledged revision 30 (now at 29)"
    )
    # Another etcd: its revision 100 says nothing about our revision 30.
    node.see(100, head=120, lineage=B)
    with pytest.raises(Exhausted, match="revision 120"):
        node.begin(9)
    node.see(120, lineage=B)
    assert node.begin(9).record.addresses.ipv4 == parse_address("10.0.0.0")


@pytest.mark.parametrize(("strict", "past"), [(True, ()), (False, ("10.0.0.0", "fd00::"))])
def test_a_fenced_node_is_waited_for_only_if_that_is_asked_for(
    strict: bool, past: tuple[str, ...]
) -> None:
    node = Node(strict=strict).add_blocks()
    node.see(5)
    for number in range(1, 5):
        node.begin(number)
    node.erase(1, revision=30)
    node.see(40, strict=20)
    if strict:
        with pytest.raises(Exhausted, match="every registered node"):
            node.begin(9)
        node.see(40, strict=30)
    assert node.begin(9).past_fence == tuple(map(parse_address, past))


@pytest.mark.parametrize(
    ("lineage", "revision", "head", "stamped"),
    [
        # No stream yet: what the registry answered may be newer than what a slicer has scanned.
        (b"", 30, 25, 30),
        (b"", 30, 90, 90),
        # From an etcd that is gone.
        (b"", 9_000_000_000, 25, 25),
        # Below what all have passed before it was released: the registry has another etcd.
        (A, 3, 25, 25),
    ],
)
def test_revisions_of_no_known_lineage_get_one_at_the_next_barrier(
    lineage: bytes, revision: int, head: int, stamped: int
) -> None:
    node = Node().add_blocks()
    node.see(5)
    node.begin(1)
    node.erase(1, revision, lineage)
    node.see(5, head=head)
    assert {old.revision for b in node.ledger.blocks.values() for old in b.released} == {stamped}
    assert {old.lineage for b in node.ledger.blocks.values() for old in b.released} == {A}


def test_a_block_that_was_somebody_elses_waits() -> None:
    node = Node()
    node.see(5)
    prefix = Prefix.parse("10.0.0.0/30")
    node.take(core.add_block(node.ledger, 1, "pods4", prefix, usable_after=20, lineage=A))
    with pytest.raises(Exhausted, match=r"acknowledged revision 20 \(now at 5\)"):
        node.begin(1, ONLY4)
    node.see(20)
    node.begin(1, ONLY4)


def test_reserved_addresses_are_handed_out_only_by_number() -> None:
    node = Node().add_blocks()
    reserved = replace(
        POOLS[0], reserved=(Prefix.parse("10.0.0.0/31"), Prefix.parse("10.0.0.2/32"))
    )
    listed = [(reserved, 2), (POOLS[1], 1)]
    node.take(core.learn_pools(node.ledger, listed, lineage=A, revision=2))
    assert node.begin(1, ONLY4).record.addresses.ipv4 == parse_address("10.0.0.3")
    with pytest.raises(Exhausted, match="3 reserved"):
        node.begin(2, ONLY4)
    assert node.begin(2, fixed("10.0.0.1")).record.addresses.ipv4 == parse_address("10.0.0.1")
    with pytest.raises(Conflict, match=r"10.0.0.1 is held by shop/web"):
        node.begin(3, fixed("10.0.0.1"))
    with pytest.raises(Exhausted, match="in no block"):
        node.begin(3, fixed("10.0.9.1"))


def test_a_draining_pool_gives_nothing() -> None:
    node = Node().add_blocks()
    listed = [(replace(POOLS[0], draining=True), 2), (POOLS[1], 1)]
    node.take(core.learn_pools(node.ledger, listed, lineage=A, revision=2))
    for requests in (ONLY4, fixed("10.0.0.1")):
        with pytest.raises(Exhausted, match="draining"):
            node.begin(1, requests)
    # An older list does not undo it.
    node.take(core.learn_pools(node.ledger, [(POOLS[0], 1)], lineage=A, revision=1))
    assert node.ledger.pools["pods4"].value.draining
    assert "pods6" not in node.ledger.pools


def test_a_list_removes_no_pool_that_is_newer() -> None:
    node = Node()
    node.take(core.learn_pools(node.ledger, [(POOLS[0], 7)], lineage=A, revision=9))
    node.take(core.learn_pools(node.ledger, [], lineage=A, revision=6))
    assert set(node.ledger.pools) == {"pods4"}
    node.take(core.learn_pools(node.ledger, [], lineage=B, revision=6))
    assert not node.ledger.pools


def test_an_address_that_another_node_claims_is_quarantined_when_it_comes_back() -> None:
    node = Node().add_blocks()
    node.see(5, foreign=("10.0.0.0",))
    assert node.begin(1, ONLY4).record.addresses.ipv4 == parse_address("10.0.0.1")
    with pytest.raises(Conflict, match="another node"):
        node.begin(2, fixed("10.0.0.0"))
    node.see(6, head=30)
    with pytest.raises(Exhausted, match="until every live node has acknowledged revision 30"):
        node.begin(2, fixed("10.0.0.0"))
    node.see(30)
    node.begin(2, fixed("10.0.0.0"))


def test_a_fixed_address_of_ours_is_not_had_from_the_block_around_it() -> None:
    node = Node()
    one = Prefix.parse("10.0.0.0/32")
    node.take(core.add_block(node.ledger, 1, "pods4", one, fixed=True, usable_after=3, lineage=A))
    with pytest.raises(Exhausted, match="revision 3"):
        node.begin(1, fixed("10.0.0.0"))
    node.see(3)
    node.take(core.add_block(node.ledger, 2, "pods4", Prefix.parse("10.0.0.0/30")))
    assert node.begin(1, fixed("10.0.0.0")).record.addresses.ipv4 == one.address
    assert node.begin(2, ONLY4).record.addresses.ipv4 == parse_address("10.0.0.1")
    node.erase(1, revision=8)
    with pytest.raises(Conflict, match="in use"):
        core.release_block(node.ledger, 1)
    node.see(8)
    node.take(core.release_block(node.ledger, 1))
    with pytest.raises(Exhausted, match="given back"):
        node.begin(3, fixed("10.0.0.0"))
    node.take(core.drop_block(node.ledger, 1))
    node.begin(3, fixed("10.0.0.0"))


def test_a_lost_block_leaves_its_interfaces_until_they_are_erased() -> None:
    node = Node().add_blocks()
    node.begin(1)
    node.take(core.commit(node.ledger, 1))
    node.take(core.drop_block(node.ledger, 1))
    assert core.strays(node.ledger) == (1,)
    node.take(core.lose(node.ledger, 1))
    assert node.ledger.find(attachment(1)) is not None
    # The same block again: the address is still on an interface.
    node.take(core.add_block(node.ledger, 3, "pods4", Prefix.parse("10.0.0.0/30")))
    assert node.begin(2, ONLY4).record.addresses.ipv4 == parse_address("10.0.0.1")
    node.erase(1, revision=9)


def test_the_same_block_again_changes_only_the_counter() -> None:
    node = Node().add_blocks()
    node.begin(1)
    node.take(core.add_block(node.ledger, 5, "pods4", Prefix.parse("10.0.0.0/30")))
    assert node.ledger.last_ordinal == 5
    assert len(node.ledger.blocks) == 2


def test_a_rebuilt_ledger_quarantines_what_it_does_not_know() -> None:
    node = Node().add_blocks()
    node.begin(4)
    records = list(node.ledger.interfaces.values())
    bare = [replace(block, held=0, rested=0, released=()) for block in node.ledger.blocks.values()]
    again = Node()
    again.take(rebuild(again.ledger, records, bare, numbers=9, ordinals=9, revision=70, now=0))
    listed = [(pool, 1) for pool in POOLS]
    again.take(core.learn_pools(again.ledger, listed, lineage=A, revision=1))
    again.see(69, head=69)
    with pytest.raises(Exhausted, match="3 quarantined"):
        again.begin(5)
    again.see(70)
    assert again.begin(5).record.number == 10


# --- a model -------------------------------------------------------------------------------------


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

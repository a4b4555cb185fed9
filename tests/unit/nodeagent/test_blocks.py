import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deltaplane.errors import Conflict, DeltaplaneError, Exhausted, Invalid, Refused, Unavailable
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.runtime.clock import SystemClock
from nodeagent.addressing import Progress
from nodeagent.blocks import Blocks, claim_numbers, fixed_request_id, ordinal_of, request_id
from nodeagent.cni.netconf import Attachment, PodName
from nodeagent.control import BlockWish, ClaimedBlock, NodeFacts
from nodeagent.entries import InterfaceRecord
from nodeagent.journal import Journal
from nodeagent.worker import Worker
from tests.unit.nodeagent.worlds import LINEAGE, OWN, FakeControl, pair

FACTS = NodeFacts(name="n1", uid="u1", addresses=pair("192.0.2.1"), boot_id="b")
POD = PodName(namespace="shop", name="web", uid="u")


def attachment(number: int) -> Attachment:
    return Attachment(network="net", container_id=f"c{number}", ifname="eth0")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "j.db")
    yield opened
    opened.close()


def blocks(journal: Journal, control: FakeControl, *pools: str) -> Blocks:
    return Blocks(
        journal,
        Worker("journal"),
        control,
        FACTS,
        chosen=frozenset(pools),
        lineage=lambda: LINEAGE,
        clock=SystemClock(),
    )


def reach(journal: Journal, watermark: int) -> None:
    progress = Progress(lineage=LINEAGE, head=watermark, watermark=watermark, strict=watermark)
    journal.observe(progress, frozenset(), 0)


def claimed(control: FakeControl, pool: str, number: int) -> ClaimedBlock:
    found = control.claim(BlockWish(pool, request_id(pool, number)))
    assert isinstance(found, ClaimedBlock)
    return found


def begin(journal: Journal, keeper: Blocks, number: int) -> InterfaceRecord:
    return journal.begin(
        attachment(number), attempt=str(number), pod=POD, requests=keeper.requests()
    ).record


async def test_both_families_get_a_block_and_the_next_before_it_is_used_up(
    journal: Journal,
) -> None:
    control = FakeControl()
    keeper = blocks(journal, control)
    assert keeper.families == frozenset()
    await keeper.settle()
    assert keeper.families == {4, 6}
    assert [block.pool for block in journal.blocks] == ["pods4", "pods6"]
    for number in range(3):
        begin(journal, keeper, number)
    await keeper.settle()
    assert len(journal.blocks) == 4
    await keeper.settle()
    assert len(journal.blocks) == 4
    # One request for all that is missing, whichever the pools.
    assert control.requests == [("pods4", "pods6")] * 2
    # A restart knows the families before it can ask.
    assert blocks(journal, control).families == {4, 6}


async def test_only_the_chosen_pools(journal: Journal) -> None:
    control = FakeControl()
    await blocks(journal, control, "pods6").settle()
    assert {block.pool for block in journal.blocks} == {"pods6"}
    with pytest.raises(Exhausted, match="--pools names other; there are pods4, pods6"):
        blocks(journal, control, "other").requests()


async def test_an_empty_pool_does_not_keep_the_other_family_waiting(journal: Journal) -> None:
    control = FakeControl()
    control.free["pods4"].clear()
    with pytest.raises(Exhausted, match="pods4"):
        await blocks(journal, control).settle()
    assert [block.pool for block in journal.blocks] == ["pods6"]


async def test_an_add_asks_for_all_families_at_once_and_goes_on_with_the_next_pools(
    journal: Journal,
) -> None:
    control = FakeControl()
    other = replace(control.known["pods4"], name="spare4", prefix=Prefix.parse("10.1.0.0/16"))
    control.known["spare4"] = other
    control.free |= {"pods4": [], "spare4": [Prefix.parse("10.1.0.0/30")]}
    keeper = blocks(journal, control)
    await keeper.learn_pools()
    await keeper.claim_for(keeper.requests())
    assert control.requests == [("pods4", "pods6"), ("spare4",)]
    assert {block.pool for block in journal.blocks} == {"spare4", "pods6"}
    begin(journal, keeper, 1)


async def test_a_refused_claim_costs_the_other_families_nothing(journal: Journal) -> None:
    control = FakeControl()
    control.free["pods4"].clear()
    keeper = blocks(journal, control)
    await keeper.learn_pools()
    with pytest.raises(Exhausted, match="pool pods4 has no free block"):
        await keeper.claim_for(keeper.requests())
    assert [block.pool for block in journal.blocks] == ["pods6"]
    control.free["pods4"] = [Prefix.parse("10.0.9.0/30")]
    await keeper.claim_for(keeper.requests())
    assert len(control.claims) == 2


async def test_the_name_of_a_claim_that_was_granted_does_not_come_again(journal: Journal) -> None:
    class Fickle(FakeControl):
        refusals = 0

        def claim(self, wish: BlockWish) -> ClaimedBlock | DeltaplaneError:
            if self.refusals:
                self.refusals -= 1
                return Exhausted("not now")
            return super().claim(wish)

    control = Fickle()
    # Blocks of four addresses are taken for half of what is needed: two are missing at once.
    control.known["pods4"] = replace(control.known["pods4"], block_length=31)
    keeper = blocks(journal, control, "pods4")
    await keeper.settle()
    for number in range(4):
        begin(journal, keeper, number)
    control.refusals = 1
    with pytest.raises(Exhausted, match="not now"):
        await keeper.settle()
    assert len(journal.blocks) == 2
    await keeper.settle()
    assert control.requests == [("pods4",), ("pods4", "pods4"), ("pods4",)]
    assert len(control.claims) == len(journal.blocks) == 3


def test_claims_are_counted_by_pool() -> None:
    assert claim_numbers(7, ["a", "b", "a", "c", "b", "a"]) == [7, 7, 8, 7, 8, 9]


async def test_a_claim_whose_answer_got_lost_gives_the_same_block(journal: Journal) -> None:
    control = FakeControl()
    lost = claimed(control, "pods4", 1)
    await blocks(journal, control, "pods4").settle()
    assert [block.prefix for block in journal.blocks] == [lost.prefix]


async def test_what_is_not_needed_goes_back_and_a_restart_goes_on_with_it(
    journal: Journal,
) -> None:
    control = FakeControl()
    keeper = blocks(journal, control, "pods4")
    await keeper.settle()
    await keeper.claim_for(())
    record = begin(journal, keeper, 1)
    for number in (2, 3):
        begin(journal, keeper, number)
    await keeper.settle()
    assert len(control.claims) == 2
    for number in (2, 3):
        journal.retire(number)
        journal.erase(number, revision=20, lineage=b"", now=0)
    reach(journal, 20)

    control.failure = Unavailable("away")
    with pytest.raises(Unavailable):
        await keeper.settle()
    assert [block.releasing for block in journal.blocks] == [False, True]
    assert len(control.claims) == 2
    # The same from here on as after a restart.
    control.failure = None
    await blocks(journal, control, "pods4").settle()
    [left] = journal.blocks
    assert left.prefix.contains(record.addresses.ipv4 or b"")
    assert [block.prefix for block in control.claims.values()] == [left.prefix]
    # A late answer to the claim of the one that is gone would not be taken for the next.
    assert journal.next_ordinal() == 3


async def test_an_add_that_finds_nothing_claims_once_while_a_block_is_coming(
    journal: Journal,
) -> None:
    control = FakeControl()
    control.usable_after = 30
    keeper = blocks(journal, control, "pods4")
    await keeper.learn_pools()
    reach(journal, 10)
    for _ in range(3):
        with contextlib.suppress(Exhausted):
            await keeper.claim_for(keeper.requests())
        with pytest.raises(Exhausted, match="acknowledged revision 30"):
            begin(journal, keeper, 1)
    assert len(control.claims) == 1
    reach(journal, 30)
    begin(journal, keeper, 1)


async def test_a_static_pool_gives_one_block(journal: Journal) -> None:
    control = FakeControl()
    control.known["pods4"] = replace(control.known["pods4"], is_static=True)
    keeper = blocks(journal, control, "pods4")
    await keeper.settle()
    for number in range(4):
        begin(journal, keeper, number)
    await keeper.settle()
    with pytest.raises(Exhausted, match="4 held"):
        await keeper.claim_for(keeper.requests())
    assert len(control.claims) == 1


async def test_an_address_is_claimed_once_for_all_attempts(journal: Journal) -> None:
    control = FakeControl()
    keeper = blocks(journal, control)
    await keeper.learn_pools()
    address = parse_address("10.0.77.7")
    for _ in range(2):
        await keeper.claim_address(address, attachment(1))
    assert control.claiming == [fixed_request_id(attachment(1), address)]
    [block] = journal.blocks
    assert (block.fixed, block.usable_after) == (True, 1001)
    with pytest.raises(Invalid, match="in no pool"):
        await keeper.claim_address(parse_address("192.0.2.77"), attachment(1))
    control.taken.add(parse_address("10.0.77.8"))
    with pytest.raises(Conflict, match="taken"):
        await keeper.claim_address(parse_address("10.0.77.8"), attachment(1))


async def test_the_journal_is_made_to_agree_with_what_the_node_owns(journal: Journal) -> None:
    control = FakeControl()
    keeper = blocks(journal, control)
    await keeper.settle()
    begin(journal, keeper, 1)
    lost, kept = journal.blocks
    del control.claims[request_id("pods4", 1)]
    late = claimed(control, "pods4", 9)
    assert await keeper.reconcile(OWN) == (lost.prefix,)
    assert [block.prefix for block in journal.blocks] == [kept.prefix, late.prefix]
    assert await keeper.reconcile(OWN) == ()


async def test_a_block_that_is_somebody_elses_now_is_forgotten(journal: Journal) -> None:
    class Other(FakeControl):
        async def release_block(self, prefix: Prefix, node: NodeFacts) -> None:
            raise Refused(f"{prefix} belongs to n2, not to {node.name}")

    control = Other()
    keeper = blocks(journal, control, "pods4")
    await keeper.settle()
    journal.release_block(1)
    await keeper.settle()
    assert [block.ordinal for block in journal.blocks] == [2]


def test_request_ids_are_short_and_differ() -> None:
    found = {request_id(pool, n) for pool in ("a" * 63, "a" * 62) for n in (1, 2)}
    found |= {fixed_request_id(attachment(n), bytes(16)) for n in (1, 2)}
    assert len(found) == 6
    assert all(len(text) <= 64 for text in found)
    assert [ordinal_of(text) for text in (request_id("p", 17), "x", "a-b")] == [17, 0, 0]

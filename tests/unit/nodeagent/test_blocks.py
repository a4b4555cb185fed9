from pathlib import Path

import pytest

from deltaplane.errors import Exhausted
from deltaplane.runtime.clock import SystemClock
from nodeagent.blocks import Blocks, request_id
from nodeagent.control import NodeFacts
from nodeagent.journal import Journal
from nodeagent.worker import Worker
from tests.unit.nodeagent.worlds import FakeControl, pair

FACTS = NodeFacts(name="n1", uid="u1", addresses=pair("192.0.2.1"), boot_id="b")


def blocks(journal: Journal, control: FakeControl, *pools: str) -> Blocks:
    return Blocks(
        journal,
        Worker("journal"),
        control,
        FACTS,
        wanted_pools=frozenset(pools),
        clock=SystemClock(),
    )


async def test_both_families_get_what_is_asked_for(tmp_path: Path) -> None:
    journal, control = Journal(tmp_path / "j.db"), FakeControl()
    keeper = blocks(journal, control)
    assert keeper.families == frozenset()
    await keeper.ensure(6)
    assert keeper.families == {4, 6}
    assert [journal.available(family, 0) for family in (4, 6)] == [8, 8]
    await keeper.ensure(6)
    assert len(journal.blocks) == 4
    # A restart knows the families before it can ask.
    assert blocks(journal, control).families == {4, 6}
    journal.close()


async def test_only_the_wanted_pools(tmp_path: Path) -> None:
    journal, control = Journal(tmp_path / "j.db"), FakeControl()
    await blocks(journal, control, "pods6").ensure(1)
    assert {block.pool for block in journal.blocks} == {"pods6"}
    with pytest.raises(Exhausted, match="no address pool"):
        await blocks(journal, control, "other").ensure(1)
    journal.close()


async def test_an_empty_pool_does_not_keep_the_other_family_waiting(tmp_path: Path) -> None:
    journal, control = Journal(tmp_path / "j.db"), FakeControl()
    control.free["pods4"].clear()
    with pytest.raises(Exhausted, match="pods4"):
        await blocks(journal, control).ensure(1)
    assert journal.available(6, 0) == 4
    journal.close()


async def test_a_claim_whose_answer_got_lost_gives_the_same_block(tmp_path: Path) -> None:
    journal, control = Journal(tmp_path / "j.db"), FakeControl()
    lost = await control.claim_block("pods4", FACTS, request_id("pods4", 1))
    await blocks(journal, control, "pods4").ensure(1)
    assert [block.state.prefix for block in journal.blocks] == [lost]
    journal.close()


def test_request_ids_are_short_and_differ() -> None:
    found = {request_id(pool, n) for pool in ("a" * 63, "a" * 62) for n in (1, 2)}
    assert len(found) == 4
    assert all(len(text) <= 64 for text in found)

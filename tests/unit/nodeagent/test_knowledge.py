"""What barriers say about addresses comes into the journal, if not at once, then later."""

from pathlib import Path

import pytest

from deltaplane.delta.changes import Upsert
from deltaplane.delta.view import View
from deltaplane.errors import Unavailable
from deltaplane.model.addresses import Prefix
from deltaplane.model.objects import PoolObject
from deltaplane.runtime.clock import SystemClock
from nodeagent.journal import Journal
from nodeagent.knowledge import Knowledge
from nodeagent.stream import BarrierReached
from nodeagent.worker import Worker

POOLS = 200


def reached(revision: int, *, pools: int) -> BarrierReached:
    view = View()
    for number in range(pools):
        prefix = Prefix.parse(f"10.{number}.0.0/16")
        view.apply(
            Upsert(PoolObject(name=f"pool-{number}", prefix=prefix, block_length=26), revision)
        )
    return BarrierReached(
        revision=revision,
        lineage=b"L" * 16,
        view=view,
        changed=frozenset(),
        complete=True,
        head_revision=revision,
        head_unix_ns=0,
    )


async def test_what_a_full_disk_did_not_take_is_written_with_the_next_barrier(
    tmp_path: Path,
) -> None:
    journal, writer = Journal(tmp_path / "journal"), Worker("journal")
    knowledge = Knowledge(journal, writer, only_strict=False, clock=SystemClock())
    try:
        limit = "PRAGMA max_page_count"
        (before,) = journal._database.execute(limit).fetchone()
        (pages,) = journal._database.execute("PRAGMA page_count").fetchone()
        journal._database.execute(f"{limit}={pages}")
        with pytest.raises(Unavailable, match="cannot be written: database or disk is full"):
            await knowledge.take(reached(5, pools=POOLS), own_index=1)
        assert not journal.ledger.pools

        journal._database.execute(f"{limit}={before}")
        assert await knowledge.take(reached(6, pools=POOLS), own_index=1)
        assert len(journal.ledger.pools) == POOLS
        assert journal.ledger.progress.head == 6
    finally:
        writer.close()
        journal.close()

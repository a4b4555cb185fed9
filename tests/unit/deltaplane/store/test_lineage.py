import pytest

from deltaplane.errors import Refused
from deltaplane.store import keys, lineage
from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import Put


async def test_a_new_store_gets_a_lineage_and_keeps_it() -> None:
    store = MemoryStore()
    made = await lineage.ensure(store)
    assert len(made) == 16
    assert await lineage.ensure(store) == made
    assert await lineage.ensure(MemoryStore()) != made


async def test_an_answer_that_got_lost_does_not_make_a_second_one() -> None:
    store = MemoryStore()
    store.lose_next_answer()
    made = await lineage.ensure(store)
    stored = await store.get(keys.LINEAGE)
    assert stored is not None
    assert stored.value == made
    assert await store.head() == stored.create_revision


async def test_a_store_of_somebody_else_is_refused() -> None:
    store = MemoryStore()
    await store.transact([], [Put(keys.LINEAGE, b"hello")])
    with pytest.raises(Refused, match="5 bytes"):
        await lineage.ensure(store)


async def test_only_the_expected_lineage_will_do_and_nothing_is_written_otherwise() -> None:
    store = MemoryStore()
    with pytest.raises(Refused, match=r"no lineage.*ffff"):
        await lineage.ensure(store, b"\xff" * 16)
    assert await store.get(keys.LINEAGE) is None
    made = await lineage.ensure(store)
    assert await lineage.ensure(store, made) == made
    with pytest.raises(Refused, match=made.hex()):
        await lineage.ensure(store, b"\xff" * 16)

"""A fence that goes and a watermark that comes, at the same time: one of the two is decided anew.

Replica A has seen that the fenced node agrees with the store up to the watermark. Before it says
so, replica B, for which the node is fenced, moves the watermark on. Were the fence deleted all the
same, a live node would be behind the watermark: it still maps what others may hand out by now.
"""

from collections.abc import Mapping

import pytest

from deltaplane.store import keys
from deltaplane.store.port import Put, Store
from services.slicer.repository import Repository
from services.slicer.watermark import Fence, Watermark, decode_watermark
from services.slicer.wire import fence_to_record

LINEAGE = b"L" * 16
NODE = "node-1"


async def fenced(store: Store) -> Fence:
    """The node's fence, as a replica knows it."""
    fence = Fence(node=NODE, node_index=1, node_uid="uid", joining=False, created=0)
    written = await store.transact([], [Put(keys.fence(NODE), fence_to_record(fence))])
    return Fence(node=NODE, node_index=1, node_uid="uid", joining=False, created=written.revision)


async def stamps(repository: Repository) -> Mapping[str, int]:
    """What the watch of a replica shows now."""
    items, _ = await repository.progress()
    return {item.key: item.mod_revision for item in items}


async def watermark(store: Store) -> Watermark:
    stored = await store.get(keys.WATERMARK)
    return decode_watermark(stored.value if stored else None, LINEAGE)


@pytest.fixture(params=[0, 20], ids=["the first watermark", "a later one"])
async def repository(any_store: Store, request: pytest.FixtureRequest) -> Repository:
    made = Repository(any_store)
    if before := request.param:
        assert await made.advance(LINEAGE, Watermark(live=before), stamps={})
    return made


async def test_a_fence_stays_if_the_watermark_has_moved_on(
    any_store: Store, repository: Repository
) -> None:
    fence, seen = await fenced(any_store), await stamps(repository)
    assert await repository.advance(LINEAGE, Watermark(live=30), stamps=seen)

    assert not await repository.unfence([fence], stamps=seen)

    assert await any_store.get(keys.fence(NODE)) is not None
    assert await any_store.get(keys.FENCE_EPOCH) is None
    # Nothing else was in the way.
    assert await repository.unfence([fence], stamps=await stamps(repository))
    assert await any_store.get(keys.fence(NODE)) is None


async def test_a_watermark_that_left_out_the_node_is_computed_anew_once_its_fence_is_gone(
    any_store: Store, repository: Repository
) -> None:
    fence, seen = await fenced(any_store), await stamps(repository)
    before = await watermark(any_store)
    assert await repository.unfence([fence], stamps=seen)

    assert not await repository.advance(LINEAGE, Watermark(live=30), stamps=seen)

    assert await watermark(any_store) == before
    assert await repository.advance(LINEAGE, Watermark(live=30), stamps=await stamps(repository))


async def test_a_fence_that_came_again_meanwhile_is_another_one(
    any_store: Store, repository: Repository
) -> None:
    """The node was renewed after the first of the two, which says nothing about the second."""
    first, seen = await fenced(any_store), await stamps(repository)
    assert await repository.unfence([first], stamps=seen)
    await fenced(any_store)

    assert not await repository.unfence([first], stamps=await stamps(repository))

    assert await any_store.get(keys.fence(NODE)) is not None

import asyncio

import pytest

from deltaplane.errors import Conflict, Invalid
from deltaplane.store import keys
from deltaplane.store.port import Delete, Put
from deltaplane.v1 import audit_pb2 as pb
from deltaplane.v1 import service_pb2
from tests.services.plane import Plane, endpoint, failure, ok, pod, release
from tests.services.test_registry_services import one, service


async def records(plane: Plane, size: int = 0) -> dict[str, pb.StoredRecord]:
    found: dict[str, pb.StoredRecord] = {}
    request = pb.ListRecordsRequest(page_size=size)
    revisions = set()
    while True:
        answer = await ok(plane.records.ListRecords(request))
        assert len(answer.records) <= (size or 2000)
        revisions.add(answer.revision)
        for item in answer.records:
            assert item.key not in found
            found[item.key] = item
        if not answer.next_page_token:
            assert len(revisions) == 1
            return found
        request.page_token = answer.next_page_token


async def repair(plane: Plane, *repairs: pb.PointerRepair) -> list[str]:
    request = pb.RepairPointersRequest(repairs=repairs)
    return list((await ok(plane.records.RepairPointers(request))).repaired)


async def populated(plane: Plane) -> None:
    await plane.ready_node()
    await plane.apply_pods(pod("web"), pod("db"))
    await plane.register(endpoint(1))
    await plane.register(endpoint(2, pod="db"))


@pytest.mark.parametrize("size", [0, 1, 3])
async def test_everything_about_addresses_is_listed_at_one_revision(
    any_plane: Plane, size: int
) -> None:
    await populated(any_plane)
    await one(any_plane, service("web", kind=service_pb2.SERVICE_TYPE_NODE_PORT))
    listed = await records(any_plane, size)
    stored = await any_plane.keys()
    wanted = (
        *("state/nodes", "state/pools", "state/blocks", "state/endpoints"),
        *("registry/node-endpoints", "registry/addresses", "registry/block-requests"),
        *("state/services", "registry/cluster-ips", "registry/node-ports"),
    )
    assert listed.keys() == {
        key for key in stored if key.removeprefix(keys.ROOT).startswith(wanted)
    }
    assert {key: item.value for key, item in listed.items()} == {
        key: value for key, value in stored.items() if key in listed
    }


async def test_pages_stay_at_their_revision(any_plane: Plane) -> None:
    await populated(any_plane)
    before = await records(any_plane)
    request = pb.ListRecordsRequest(page_size=2)
    first = await ok(any_plane.records.ListRecords(request))
    await any_plane.release(release(endpoint(1)))
    request.page_token = first.next_page_token
    request.page_size = 5000
    rest = await ok(any_plane.records.ListRecords(request))
    assert rest.revision == first.revision
    assert [item.key for item in (*first.records, *rest.records)] == list(before)


async def test_a_listing_is_checked(memory_plane: Plane) -> None:
    for request, field in [
        (pb.ListRecordsRequest(page_size=5001), "page_size"),
        (pb.ListRecordsRequest(page_token="!!"), "page_token"),
        (pb.ListRecordsRequest(page_token="NyAvc29tZXRoaW5n"), "page_token"),
    ]:
        error = await failure(memory_plane.records.ListRecords(request))
        assert isinstance(error, Invalid)
        assert error.field == field


@pytest.mark.parametrize(
    "pointer",
    [
        keys.address(bytes([10, 244, 0, 99])),
        keys.node_endpoint("node-1", 99),
        keys.block_request("uid-of-node-1", "99"),
        keys.fixed_address(bytes([10, 244, 0, 99])),
        keys.cluster_ip(bytes([10, 96, 0, 99])),
        keys.node_port(30099),
    ],
)
async def test_a_pointer_to_nothing_is_deleted_once(any_plane: Plane, pointer: str) -> None:
    await populated(any_plane)
    before = await any_plane.keys()
    for target in (keys.endpoint("shop", "gone", "node-1", 9), next(iter(before)), "nonsense"):
        done = await any_plane.store.transact([], [Put(pointer, target.encode())])
        wrong = pb.PointerRepair(key=pointer, mod_revision=done.revision)
        assert await repair(any_plane, wrong) == [pointer]
        assert await repair(any_plane, wrong) == []
        assert await any_plane.keys() == before


async def test_a_pointer_that_is_right_stays(any_plane: Plane) -> None:
    await populated(any_plane)
    before = await records(any_plane)
    wrong = [
        pb.PointerRepair(key=key, mod_revision=item.meta.mod_revision)
        for key, item in before.items()
        if key.startswith(keys.REGISTRY)
    ]
    assert len(wrong) == 5
    assert await repair(any_plane, *wrong) == []
    assert await records(any_plane) == before


async def test_a_missing_pointer_is_written_for_its_record_only(any_plane: Plane) -> None:
    await populated(any_plane)
    before = await any_plane.keys()
    for pointer, target in before.items():
        if not pointer.startswith((keys.NODE_ENDPOINTS, keys.ADDRESSES, keys.BLOCK_REQUESTS)):
            continue
        await any_plane.store.transact([], [Delete(pointer)])
        stranger = next(key for key in before if key.startswith(keys.NODES))
        assert await repair(any_plane, pb.PointerRepair(key=pointer, target=stranger)) == []
        right = pb.PointerRepair(key=pointer, target=target.decode())
        assert await repair(any_plane, right) == [pointer]
        assert await any_plane.keys() == before


async def test_a_misdirected_pointer_is_turned(any_plane: Plane) -> None:
    await populated(any_plane)
    before = await any_plane.keys()
    pointer = keys.address(bytes([10, 244, 0, 1]))
    other = keys.endpoint("shop", "db", "node-1", 2)
    done = await any_plane.store.transact([], [Put(pointer, other.encode())])
    turned = pb.PointerRepair(
        key=pointer, mod_revision=done.revision, target=before[pointer].decode()
    )
    assert await repair(any_plane, turned) == [pointer]
    assert await any_plane.keys() == before


async def test_what_has_changed_since_it_was_seen_is_left_alone(any_plane: Plane) -> None:
    await populated(any_plane)
    pointer = keys.address(bytes([10, 244, 0, 9]))
    first = await any_plane.store.transact([], [Put(pointer, b"nothing")])
    await any_plane.store.transact([], [Delete(pointer)])
    await any_plane.register(endpoint(9, pod="db"))
    late = pb.PointerRepair(key=pointer, mod_revision=first.revision)
    assert await repair(any_plane, late) == []
    assert pointer in await any_plane.keys(keys.ADDRESSES)


async def test_repairs_meet_registrations(any_plane: Plane) -> None:
    await populated(any_plane)
    for number in range(3, 13):
        pointer = keys.address(bytes([10, 244, 0, number]))
        done = await any_plane.store.transact([], [Put(pointer, b"nothing")])
        wrong = pb.PointerRepair(key=pointer, mod_revision=done.revision)
        message = endpoint(number, pod="db")
        await asyncio.gather(
            repair(any_plane, wrong), ok(any_plane.registration(message)), return_exceptions=True
        )
        await any_plane.register(message)
        assert await repair(any_plane, wrong) == []
    stored = await any_plane.keys()
    assert sum(key.startswith(keys.ADDRESSES) for key in stored) == 12


async def test_a_registration_says_that_a_pointer_is_wrong(any_plane: Plane) -> None:
    await populated(any_plane)
    await any_plane.store.transact([], [Put(keys.address(bytes([10, 244, 0, 9])), b"nothing")])
    error = await failure(any_plane.registration(endpoint(9, pod="db")))
    assert isinstance(error, Conflict)
    assert str(error).endswith(
        'is held by "nothing", which is no endpoint; see `deltaplane ipam check`'
    )


async def test_a_mark_that_a_claim_looks_at_stays(any_plane: Plane) -> None:
    await populated(any_plane)
    marks = [
        keys.FREED_BLOCKS + text for text in ("10.244.0.0-26", "10.244.0.9-32", "192.0.2.0-26")
    ]
    done = await any_plane.store.transact([], [Put(mark, b"") for mark in marks])
    repairs = [pb.PointerRepair(key=key, mod_revision=done.revision) for key in marks]
    assert await repair(any_plane, *repairs) == []
    assert list(await any_plane.keys(keys.FREED_BLOCKS)) == marks


async def test_only_pointers_are_repaired(memory_plane: Plane) -> None:
    request = pb.RepairPointersRequest(repairs=[pb.PointerRepair(key=keys.node("node-1"))])
    error = await failure(memory_plane.records.RepairPointers(request))
    assert isinstance(error, Invalid)
    assert error.field == "repairs[0].key"


async def test_leftovers_of_a_node_go(any_plane: Plane) -> None:
    await populated(any_plane)
    await any_plane.store.transact([], [Delete(keys.node("node-1"))])
    request = pb.RemoveLeftoversRequest(node="node-1")
    assert (await ok(any_plane.records.RemoveLeftovers(request))).endpoints_removed == 2
    assert (await ok(any_plane.records.RemoveLeftovers(request))).endpoints_removed == 0
    listed = await records(any_plane)
    assert [key for key in listed if not key.startswith((keys.POOLS, keys.FREED_BLOCKS))] == []

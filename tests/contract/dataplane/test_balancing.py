"""What every data plane does with services."""

from array import array
from collections.abc import Callable

import pytest

from nodeagent.dataplane import abi
from nodeagent.dataplane.balancing import (
    NODE_PORT_IPV4,
    NODE_PORT_IPV6,
    Backend,
    Balancing,
    Frontend,
    FrontendKey,
    Member,
    Slot,
    SourceRange,
)
from nodeagent.dataplane.port import CapacityError
from tests.contract.dataplane.conftest import Plane, Restart

TCP, UDP = 6, 17
NOTHING = Balancing(
    frontends=frozenset(),
    slots=frozenset(),
    members=frozenset(),
    sources=frozenset(),
    tables={},
)
PART = abi.TABLE_PART_SLOTS
TABLE = array("H", (n % 7 for n in range(PART))).tobytes()
OTHER_TABLE = array("H", (2**16 - 1 - n for n in range(PART))).tobytes()
LARGE_TABLE = TABLE + OTHER_TABLE + TABLE


def service(number: int) -> bytes:
    return bytes(10) + b"\xff\xff\x0a\x60" + number.to_bytes(2)


def backend(number: int, port: int = 8080) -> Backend:
    return Backend(address=b"\xfd" + bytes(13) + number.to_bytes(2), port=port)


def key(number: int, protocol: int = TCP, port: int = 80) -> FrontendKey:
    return FrontendKey(address=service(number), protocol=protocol, port=port)


def frontend(number: int, count: int = 1) -> Frontend:
    return Frontend(key=key(number), service=number, list_id=number, count=count)


def slot(list_id: int, place: int) -> Slot:
    return Slot(list_id=list_id, slot=place, backend=backend(place))


def source(number: int, length: int = 128) -> SourceRange:
    return SourceRange(service=1, address=service(number), length=length)


RICH = Frontend(
    key=FrontendKey(address=NODE_PORT_IPV6, protocol=UDP, port=65535),
    service=2**32 - 1,
    list_id=2**32 - 2,
    count=4000,
    outside_list=2**32 - 3,
    outside_count=3999,
    affinity_seconds=86400,
    check_source=True,
    local=True,
)


def test_new_plane_has_no_services(plane: Plane) -> None:
    assert plane.balancing() == NOTHING


def test_frontends_are_replaced_whole(plane: Plane) -> None:
    same_port_of_ipv4 = Frontend(
        key=FrontendKey(address=NODE_PORT_IPV4, protocol=UDP, port=65535),
        service=7,
        list_id=3,
        count=0,
        local=True,
    )
    checked = Frontend(key=key(9), service=9, list_id=9, count=1, check_source=True)
    plane.upsert_frontends([frontend(1, count=5), RICH, same_port_of_ipv4, checked])
    plane.upsert_frontends([frontend(1, count=0)])
    held = {frontend(1, count=0), RICH, same_port_of_ipv4, checked}
    assert plane.balancing().frontends == held
    plane.delete_frontends([RICH.key, key(1, protocol=UDP), key(1, port=81)])
    assert plane.balancing().frontends == held - {RICH}


def test_slots_are_written_replaced_and_removed(plane: Plane) -> None:
    plane.upsert_slots([slot(1, n) for n in range(1500)])
    moved = Slot(list_id=1, slot=3, backend=backend(3, port=65535))
    plane.upsert_slots([moved, slot(2, 3)])
    plane.delete_slots([(1, n) for n in range(1490) if n != 3])
    expected = {moved, slot(2, 3), *(slot(1, n) for n in range(1490, 1500))}
    assert plane.balancing().slots == expected


def test_members_are_of_one_list(plane: Plane) -> None:
    held = [Member(list_id=n, backend=backend(4)) for n in (1, 2)]
    other = Member(list_id=1, backend=backend(4, port=8081))
    plane.upsert_members([*held, other, held[0]])
    assert plane.balancing().members == {*held, other}
    plane.delete_members([held[0], Member(list_id=3, backend=backend(4))])
    assert plane.balancing().members == {held[1], other}


def test_sources_of_one_address_differ_by_length_and_service(plane: Plane) -> None:
    wide, narrow = source(1, 112), source(1, 128)
    everything = SourceRange(service=2, address=bytes(16), length=0)
    plane.upsert_sources([wide, narrow, everything, wide])
    assert plane.balancing().sources == {wide, narrow, everything}
    plane.delete_sources([narrow, SourceRange(service=3, address=bytes(16), length=0)])
    assert plane.balancing().sources == {wide, everything}


def test_tables_are_replaced_whole(plane: Plane) -> None:
    plane.write_tables([(1, TABLE), (2**32 - 1, TABLE)])
    plane.write_tables([(1, OTHER_TABLE)])
    assert plane.balancing().tables == {1: OTHER_TABLE, 2**32 - 1: TABLE}
    plane.write_tables([])
    plane.delete_tables([2**32 - 1, 3])
    assert plane.balancing().tables == {1: OTHER_TABLE}


def test_a_table_grows_and_shrinks(plane: Plane) -> None:
    plane.write_tables([(1, TABLE), (2, LARGE_TABLE)])
    plane.write_tables([(1, LARGE_TABLE), (2, OTHER_TABLE)])
    assert plane.balancing().tables == {1: LARGE_TABLE, 2: OTHER_TABLE}


def test_more_tables_than_go_at_once(plane: Plane) -> None:
    # The last word on a list counts, also when it is said twice.
    plane.write_tables([*((n % 2, TABLE) for n in range(600)), (0, OTHER_TABLE)])
    assert plane.balancing().tables == {0: OTHER_TABLE, 1: TABLE}


@pytest.mark.parametrize("wrong", [b"", TABLE[2:], TABLE + bytes(2)])
def test_table_of_no_whole_parts_is_refused(plane: Plane, wrong: bytes) -> None:
    plane.write_tables([(1, TABLE)])
    with pytest.raises(ValueError, match=f"{len(wrong)} bytes are no table"):
        plane.write_tables([(1, wrong)])
    assert plane.balancing().tables == {1: TABLE}


def test_absent_services_do_not_stop_a_removal(plane: Plane) -> None:
    plane.delete_frontends([key(1)])
    plane.delete_slots([(1, 0), (1, 1)])
    plane.delete_members([Member(list_id=1, backend=backend(1))])
    plane.delete_sources([source(1)])
    plane.delete_tables([1, 2])
    for nothing in (plane.upsert_frontends, plane.upsert_slots, plane.upsert_members):
        nothing([])
    assert plane.balancing() == NOTHING


def test_nobody_has_asked_for_a_service_yet(plane: Plane) -> None:
    plane.upsert_frontends([frontend(1)])
    plane.delete_service_counts([1, 2])
    assert plane.service_counts() == ()


def test_nothing_was_remembered_of_backends(plane: Plane) -> None:
    assert plane.forget_backends([(UDP, backend(1)), (TCP, backend(2))]) == 0
    assert plane.forget_backends([]) == 0


@pytest.mark.parametrize(
    ("name", "capacity", "fill"),
    [
        ("frontends", 2048, lambda p: p.upsert_frontends([frontend(n) for n in range(4000)])),
        ("slots", 2048, lambda p: p.upsert_slots([slot(1, n) for n in range(4000)])),
        (
            "members",
            2048,
            lambda p: p.upsert_members(
                [Member(list_id=1, backend=backend(n)) for n in range(4000)]
            ),
        ),
        ("sources", 16, lambda p: p.upsert_sources([source(n) for n in range(40)])),
        ("tables", 2, lambda p: p.write_tables([(n, TABLE) for n in range(1, 4)])),
    ],
    ids=["frontends", "slots", "members", "sources", "tables"],
)
def test_full_table_of_services_says_which(
    plane: Plane, name: str, capacity: int, fill: Callable[[Plane], None]
) -> None:
    with pytest.raises(CapacityError) as caught:
        fill(plane)
    assert (caught.value.map_name, caught.value.capacity) == (name, capacity)


def test_restarted_agent_finds_the_services(plane: Plane, restart: Restart) -> None:
    plane.upsert_slots([slot(1, 0), slot(1, 1)])
    plane.upsert_members([Member(list_id=1, backend=backend(1))])
    plane.upsert_sources([source(1, 112)])
    plane.write_tables([(1, TABLE), (7, LARGE_TABLE)])
    plane.upsert_frontends([RICH, frontend(1)])
    before = plane.balancing()
    assert before.frontends == {RICH, frontend(1)}
    assert restart().balancing() == before

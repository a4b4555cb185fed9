from deltaplane.store import keys
from deltaplane.store.port import Event, KeyValue
from services.slicer.progress import Board
from services.slicer.watermark import Coverage, Group, Watermark, encode_coverage, encode_watermark

LINEAGE = b"L" * 16
SERVER = keys.coverage("other")


def coverage(*nodes: int, lineage: bytes = LINEAGE) -> bytes:
    groups = (Group(revision=7, nodes=frozenset(nodes)),)
    return encode_coverage(Coverage(lineage=lineage, groups=groups))


def event(key: str, value: bytes | None, revision: int) -> Event:
    return Event(key=key, value=value, create_revision=revision, mod_revision=revision)


def test_a_node_that_was_covered_for_a_moment_is_witnessed() -> None:
    board = Board(LINEAGE)
    come_and_gone = [event(SERVER, coverage(1), 10), event(SERVER, coverage(2), 11)]
    board.take([*come_and_gone, event(SERVER, None, 12)], 12)
    assert board.coverages == {}
    assert board.witnessed == {"other": {1, 2}}
    assert not board.has_gap


def test_what_a_listing_hides_is_a_gap() -> None:
    board = Board(LINEAGE)
    board.take([event(keys.FENCE_EPOCH, b"", 9)], 9)
    stored = KeyValue(key=SERVER, value=coverage(1), create_revision=10, mod_revision=11)
    board.replace([stored], 12)
    assert board.has_gap
    assert (board.stamps, board.epoch) == ({SERVER: 11}, 0)
    assert board.coverages["other"].nodes == {1}


def test_another_lineage_and_bytes_that_are_none_of_ours_do_not_count() -> None:
    board = Board(LINEAGE)
    board.take(
        [
            event(SERVER, coverage(1, lineage=b"M" * 16), 10),
            event(keys.coverage("broken"), b"?", 11),
            event(keys.WATERMARK, encode_watermark(b"M" * 16, Watermark(live=5, strict=5)), 12),
        ],
        12,
    )
    assert (board.coverages, board.watermark) == ({}, Watermark())
    assert board.stamps[keys.WATERMARK] == 12  # it is overwritten, comparing this

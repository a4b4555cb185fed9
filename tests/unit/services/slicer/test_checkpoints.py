from services.slicer import checkpoints
from services.slicer.checkpoints import Checkpoint


def test_one_a_minute_is_added_and_old_ones_go() -> None:
    known: tuple[Checkpoint, ...] = ()
    for second in range(0, 3600, 20):
        known = checkpoints.following(known, Checkpoint(second, 100 + second)) or known
    assert [c.at for c in known] == list(range(2400, 3600, 60))


def test_a_restored_store_forgets_what_is_ahead_of_it() -> None:
    known = (Checkpoint(0, 100), Checkpoint(60, 200))
    assert checkpoints.following(known, Checkpoint(70, 150)) == (known[0], Checkpoint(70, 150))


def test_a_start_reaches_back_ten_minutes() -> None:
    known = (Checkpoint(0, 100), Checkpoint(500, 200), Checkpoint(1000, 300))
    assert checkpoints.start(known, 1050) == 200
    assert checkpoints.start(known, 5000) is None
    assert checkpoints.start(known, 900) == 200, "a clock that is ahead is nobody's checkpoint"
    assert checkpoints.start((), 0) is None


def test_what_cannot_be_read_is_no_checkpoint() -> None:
    for data in (b"", b"{}", b"[[1]]", b'[["x", 2]]', b"[3]"):
        assert checkpoints.decode(data) == ()
    known = (Checkpoint(1, 2), Checkpoint(3, 4))
    assert checkpoints.decode(checkpoints.encode(known)) == known

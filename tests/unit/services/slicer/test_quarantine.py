from services.slicer.quarantine import Quarantine, Release


def address(number: int) -> bytes:
    return bytes((10, 0, 0, number))


def release(revision: int, *numbers: int) -> Release:
    return Release(tuple(map(address, numbers)), 1, revision)


def test_the_oldest_release_comes_first_and_goes_first() -> None:
    quarantine = Quarantine()
    quarantine.add([release(12, 3), release(10, 1, 2)], 5)
    assert [w.address for w in quarantine.oldest(2)] == [address(1), address(2)]
    assert (quarantine.total, quarantine.newest) == (3, 12)
    quarantine.free(11)
    assert [(w.revision, w.seen_ns) for w in quarantine.oldest(9)] == [(12, 5)]
    quarantine.free(12)
    assert (quarantine.total, quarantine.newest) == (0, 12)


def test_what_waits_without_an_address_is_expected_all_the_same() -> None:
    quarantine = Quarantine()
    quarantine.expect(20)
    quarantine.expect(10)
    assert (quarantine.total, quarantine.newest) == (0, 20)


def test_beyond_the_limit_they_are_only_counted() -> None:
    quarantine = Quarantine(listed_at_most=300)
    for revision in range(1, 1001):
        quarantine.add([release(revision, revision % 250)], 0)
    assert len(list(quarantine.oldest(2000))) == 300
    assert quarantine.total == 1000
    assert len(quarantine._beyond) <= 5
    quarantine.free(300)
    assert (list(quarantine.oldest(9)), quarantine.total) == ([], 700)
    quarantine.free(999)
    assert 0 < quarantine.total <= 700  # merged with the newest, late but never early
    quarantine.free(1000)
    assert quarantine.total == 0

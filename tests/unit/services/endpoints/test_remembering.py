from deltaplane.store.port import KeyValue, Unchanged
from services.endpoints.repository.remembering import AGE_SECONDS, Fact, Memory


def stored(key: str, revision: int = 1) -> KeyValue:
    return KeyValue(key=key, value=b"", create_revision=1, mod_revision=revision)


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def memory(clock: Clock, limit: int = 10) -> Memory[int]:
    return Memory(
        lambda it: Fact(it.mod_revision, Unchanged(it.key, it.mod_revision)),
        limit=limit,
        now=clock,
    )


def test_the_newest_reading_counts_until_it_is_forgotten() -> None:
    facts = memory(Clock())
    assert facts.get("a") is None
    facts.learn(stored("a", 5))
    facts.learn(stored("a", 7))
    assert facts.get("a") == Fact(7, Unchanged("a", 7))
    facts.forget("a")
    facts.forget("a")
    assert facts.get("a") is None


def test_what_was_read_long_ago_is_read_again() -> None:
    clock = Clock()
    facts = memory(clock)
    facts.learn(stored("a"))
    clock.seconds += AGE_SECONDS - 1
    assert facts.get("a") is not None
    clock.seconds += 1
    assert facts.get("a") is None


def test_it_holds_so_many_and_the_oldest_goes_first() -> None:
    facts = memory(Clock(), limit=2)
    for name in ("a", "b", "a", "c"):
        facts.learn(stored(name))
    assert [name for name in "abc" if facts.get(name)] == ["a", "c"]

"""One ledger against a dictionary that stands for the registry, which may refuse and fail."""

import random
from dataclasses import dataclass, field

import pytest

from services.kubernetes.brake import ENTRIES
from services.kubernetes.ledger import Batch, Ledger, Limits, Wanted
from services.kubernetes.translating import Mode


def wanted(text: str, mode: Mode = Mode.ALWAYS) -> Wanted:
    return Wanted(text.encode(), mode)


NOTHING = Wanted(None)


@dataclass
class Registry:
    """Takes batches whole or not at all."""

    records: dict[str, bytes] = field(default_factory=dict)
    poison: set[str] = field(default_factory=set)
    calls: int = 0

    def settle(self, ledger: Ledger, now: float = 0.0) -> list[Batch]:
        """Until there is nothing to do."""
        batches = []
        while batch := ledger.next(now):
            batches.append(batch)
            self.calls += 1
            assert self.calls < 10_000, "it never ends"
            if self.poison & set(batch.keys):
                ledger.refuse(batch, "not like this", now)
                continue
            self.take(batch)
            ledger.done(batch)
        return batches

    def take(self, batch: Batch) -> None:
        self.records.update(batch.applies)
        for key in batch.deletes:
            self.records.pop(key, None)


def opened(
    records: dict[str, bytes] | None = None, limits: Limits | None = None
) -> tuple[Ledger, Registry]:
    registry = Registry(dict(records or {}))
    ledger = Ledger(limits=limits or Limits())
    ledger.adopt(registry.records)
    return ledger, registry


def many(count: int, prefix: str = "ns/pod") -> dict[str, Wanted]:
    return {f"{prefix}-{number}": wanted(f"v{number}") for number in range(count)}


def test_nothing_is_written_before_both_sides_are_known() -> None:
    ledger = Ledger()
    ledger.upsert("a", wanted("1"))
    assert ledger.next(0.0) is None
    ledger.replace({"a": wanted("1")})
    assert ledger.next(0.0) is None
    assert ledger.due(0.0) is None
    ledger.adopt({})
    assert ledger.next(0.0) == Batch(applies=(("a", b"1"),))


def test_only_what_differs_is_written() -> None:
    ledger, registry = opened({"same": b"1", "old": b"1", "gone": b"1"})
    ledger.replace({"same": wanted("1"), "old": wanted("2"), "new": wanted("3")})
    batches = registry.settle(ledger)
    assert [batch.keys for batch in batches] == [("old", "new"), ("gone",)]
    assert registry.records == {"same": b"1", "old": b"2", "new": b"3"}
    assert ledger.due(0.0) is None


def test_an_object_that_changed_back_is_not_written() -> None:
    ledger, registry = opened({"a": b"1"})
    ledger.replace({"a": wanted("1")})
    ledger.upsert("a", wanted("2"))
    ledger.upsert("a", wanted("1"))
    assert registry.settle(ledger) == []


def test_what_changes_under_way_is_written_again() -> None:
    ledger, registry = opened()
    ledger.replace({"a": wanted("1")})
    batch = ledger.next(0.0)
    assert batch is not None
    ledger.upsert("a", wanted("2"))
    assert ledger.next(0.0) is None, "one key is never under way twice"
    registry.take(batch)
    ledger.done(batch)
    registry.settle(ledger)
    assert registry.records == {"a": b"2"}


def test_what_is_deleted_while_it_is_created_goes() -> None:
    ledger, registry = opened()
    ledger.replace({"a": wanted("1")})
    batch = ledger.next(0.0)
    assert batch is not None
    ledger.remove("a")
    registry.take(batch)
    ledger.done(batch)
    registry.settle(ledger)
    assert registry.records == {}


def test_a_batch_of_unknown_outcome_is_repeated() -> None:
    ledger, registry = opened()
    ledger.replace({"a": wanted("1")})
    batch = ledger.next(0.0)
    assert batch is not None
    ledger.undone(batch)
    assert ledger.next(0.0) == batch
    ledger.undone(batch)
    registry.settle(ledger)
    assert registry.records == {"a": b"1"}


def test_calls_that_nobody_answers_become_smaller_until_somebody_does() -> None:
    ledger, registry = opened(limits=Limits(applies=64))
    ledger.replace(many(1000))
    sizes = []
    for _ in range(8):
        batch = ledger.next(0.0)
        assert batch is not None
        sizes.append(len(batch.keys))
        ledger.undone(batch)
    assert sizes == [64, 32, 16, 8, 4, 2, 2, 2]
    assert ledger.is_slow
    assert [len(it.keys) for it in registry.settle(ledger)][:7] == [2, 4, 8, 16, 32, 64, 64]
    assert not ledger.is_slow


def test_an_object_of_which_nothing_is_wanted_is_removed_without_the_brake() -> None:
    ledger, registry = opened({f"job/{number}": b"1" for number in range(ENTRIES * 3)})
    ledger.replace({f"job/{number}": NOTHING for number in range(ENTRIES * 3)})
    assert ledger.sweep is None
    registry.settle(ledger)
    assert registry.records == {}


def test_batches_end_at_their_limits() -> None:
    ledger, registry = opened(limits=Limits(applies=3, bytes=10))
    ledger.replace({f"k{n}": wanted("x" * size) for n, size in enumerate((1, 1, 1, 1, 9, 20, 2))})
    sizes = [[len(value) for _, value in batch.applies] for batch in registry.settle(ledger)]
    assert sizes == [[1, 1, 1], [1, 9], [20], [2]]


def test_neither_kind_of_change_waits_for_ever() -> None:
    ledger, registry = opened({"old": b"1"}, Limits(applies=1))
    ledger.replace({})
    for number in range(4):
        ledger.upsert(f"new-{number}", wanted("1"))
        batch = ledger.next(0.0)
        assert batch is not None
        registry.take(batch)
        ledger.done(batch)
    assert "old" not in registry.records


@pytest.mark.parametrize("deletes_first", [False, True])
def test_which_kind_of_change_goes_first(deletes_first: bool) -> None:
    ledger = Ledger(deletes_first=deletes_first)
    ledger.adopt({"old": b"1"})
    ledger.replace({"new": wanted("1")})
    first = ledger.next(0.0)
    assert first is not None
    assert bool(first.deletes) is deletes_first


# --- modes ---------------------------------------------------------------------------------------


def test_what_cannot_be_programmed_leaves_what_is_stored() -> None:
    ledger, registry = opened({"policy": b"version 1"})
    ledger.replace({"policy": wanted("stand-in", Mode.IF_ABSENT)})
    assert registry.settle(ledger) == []
    ledger.upsert("policy", Wanted(None, Mode.IF_ABSENT))
    assert registry.settle(ledger) == []
    assert registry.records == {"policy": b"version 1"}


def test_where_nothing_is_stored_a_stand_in_is_written_once() -> None:
    ledger, registry = opened()
    ledger.replace({"policy": wanted("stand-in", Mode.IF_ABSENT)})
    registry.settle(ledger)
    assert registry.records == {"policy": b"stand-in"}
    ledger.upsert("policy", wanted("another", Mode.IF_ABSENT))
    assert registry.settle(ledger) == []
    ledger.upsert("policy", wanted("version 2"))
    registry.settle(ledger)
    assert registry.records == {"policy": b"version 2"}


def test_what_may_only_change_is_not_created() -> None:
    ledger, registry = opened({"old": b"1"})
    ledger.replace({"old": wanted("2", Mode.IF_PRESENT), "new": wanted("2", Mode.IF_PRESENT)})
    registry.settle(ledger)
    assert registry.records == {"old": b"2"}


def test_a_ledger_that_does_not_create_only_removes() -> None:
    ledger = Ledger(creates=False)
    ledger.adopt({"node-1": b"", "node-2": b""})
    untouched = Wanted(None, Mode.IF_ABSENT)
    ledger.replace({"node-1": untouched, "node-3": untouched})
    assert ledger.next(0.0) == Batch(deletes=("node-2",))


# --- refusals ------------------------------------------------------------------------------------


def test_one_bad_object_costs_the_others_nothing() -> None:
    ledger, registry = opened()
    registry.poison = {"ns/pod-37"}
    ledger.replace(many(100))
    registry.settle(ledger)
    assert registry.records.keys() == many(100).keys() - registry.poison
    assert ledger.refused.keys() == registry.poison
    # Halved seven times, not tried one by one.
    assert registry.calls < 20


def test_a_refused_object_is_tried_again_alone_and_later_each_time() -> None:
    ledger, registry = opened()
    registry.poison = {"ns/pod-0"}
    ledger.replace(many(10))
    registry.settle(ledger)
    pauses, now = [], 0.0
    for _ in range(10):
        pause = ledger.due(now)
        assert pause
        pauses.append(pause)
        now += pause
        ledger.upsert("ns/other", wanted(str(now)))
        batches = registry.settle(ledger, now)
        assert ("ns/pod-0",) in [batch.keys for batch in batches]
        assert registry.records["ns/other"] == str(now).encode()
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300, 300]


def test_a_refused_object_is_tried_at_once_when_it_changes() -> None:
    ledger, registry = opened()
    registry.poison = {"a"}
    ledger.replace({"a": wanted("bad")})
    registry.settle(ledger)
    registry.poison = set()
    assert registry.settle(ledger) == []
    ledger.upsert("a", wanted("good"))
    registry.settle(ledger)
    assert registry.records == {"a": b"good"}
    assert not ledger.refused


# --- the brake -----------------------------------------------------------------------------------


def stored(count: int) -> dict[str, bytes]:
    return {key: item.value or b"" for key, item in many(count).items()}


@pytest.mark.parametrize(
    ("there", "listed", "is_held"),
    [(1001, 900, True), (1010, 910, False), (100, 0, False), (101, 0, True), (2000, 1800, False)],
)
def test_a_large_sweep_is_held(there: int, listed: int, is_held: bool) -> None:
    ledger, registry = opened(stored(there))
    ledger.replace(many(listed))
    registry.settle(ledger)
    assert (ledger.sweep is not None) is is_held
    assert len(registry.records) == (there if is_held else listed)


def test_what_a_watch_says_is_gone_goes_though_the_brake_is_on() -> None:
    ledger, registry = opened(stored(500))
    ledger.replace(many(100))
    ledger.remove("ns/pod-7")
    ledger.remove("ns/pod-400")
    registry.settle(ledger)
    assert stored(500).keys() - registry.records.keys() == {"ns/pod-7", "ns/pod-400"}


def test_a_list_of_more_takes_the_brake_off() -> None:
    ledger, registry = opened(stored(500))
    ledger.replace({})
    registry.settle(ledger)
    ledger.replace(many(490))
    registry.settle(ledger)
    assert registry.records.keys() == many(490).keys()


def test_what_comes_back_one_by_one_takes_the_brake_off() -> None:
    ledger, registry = opened(stored(500))
    ledger.replace({})
    for key, item in many(450).items():
        ledger.upsert(key, item)
    registry.settle(ledger)
    assert registry.records.keys() == many(450).keys()


def test_a_confirmed_sweep_happens_even_if_it_is_listed_anew_meanwhile() -> None:
    ledger, registry = opened(stored(500), Limits(deletes=100))
    ledger.replace({})
    assert not ledger.confirm(499)
    assert ledger.confirm(500)
    assert not ledger.confirm(500), "nothing is held any more"
    batch = ledger.next(0.0)
    assert batch is not None
    registry.take(batch)
    ledger.done(batch)
    ledger.adopt(registry.records)
    ledger.replace({})
    registry.settle(ledger)
    assert registry.records == {}


# --- all of it -----------------------------------------------------------------------------------


KEYS = [f"ns-{number % 3}/pod-{number}" for number in range(12)]


class Story:
    """A cluster, a registry and a ledger between them, to which things happen by chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.registry = Registry(dict.fromkeys(self.chance.sample(KEYS, 6), b"0"))
        self.ledger = Ledger(
            limits=Limits(applies=3, deletes=2), deletes_first=self.chance.random() < 0.5
        )
        self.cluster: dict[str, Wanted] = {}
        self.flying: list[Batch] = []

    def step(self) -> None:
        happens = [self.change] * 3 + [self.send, self.land] * 2
        self.chance.choice([*happens, self.relist, self.adopt, self.interfere])()

    def change(self) -> None:
        key = self.chance.choice(KEYS)
        if self.chance.random() < 0.3:
            self.cluster.pop(key, None)
            self.ledger.remove(key)
        else:
            self.cluster[key] = self.chance.choice([self._version(), NOTHING])
            self.ledger.upsert(key, self.cluster[key])

    def relist(self) -> None:
        """The watch was broken while things changed."""
        for key in self.chance.sample(KEYS, 3):
            self.cluster.pop(key, None)
            if self.chance.random() < 0.5:
                self.cluster[key] = self._version()
        self.ledger.replace(self.cluster)

    def adopt(self) -> None:
        if not self.flying:
            self.ledger.adopt(self.registry.records)

    def interfere(self) -> None:
        """Somebody else writes the registry; nobody knows before it is listed again."""
        self.registry.records[self.chance.choice(KEYS)] = b"foreign"
        self.adopt()

    def send(self) -> None:
        if batch := self.ledger.next(0.0):
            assert not set(batch.keys) & {key for other in self.flying for key in other.keys}
            self.flying.append(batch)

    def land(self) -> None:
        if not self.flying:
            return
        batch = self.flying.pop(self.chance.randrange(len(self.flying)))
        outcome = self.chance.random()
        if outcome < 0.7:
            self.registry.take(batch)
        if outcome < 0.6:
            self.ledger.done(batch)
        elif outcome < 0.8:
            self.ledger.undone(batch)
        else:
            self.ledger.refuse(batch, "no", 0.0)

    def end(self) -> None:
        """Everything that is under way succeeds, and nothing happens any more."""
        for batch in self.flying:
            self.registry.take(batch)
            self.ledger.done(batch)
        self.ledger.replace(self.cluster)
        self.ledger.adopt(self.registry.records)
        now = 0.0
        while (pause := self.ledger.due(now)) is not None:
            now += pause
            self.registry.settle(self.ledger, now)

    def _version(self) -> Wanted:
        return wanted(str(self.chance.randrange(3)))


@pytest.mark.parametrize("seed", range(50))
def test_in_the_end_the_registry_holds_what_is_wanted(seed: int) -> None:
    story = Story(seed)
    for _ in range(300):
        story.step()
    story.end()
    wanted_records = {key: it.value for key, it in story.cluster.items() if it.value is not None}
    assert story.registry.records == wanted_records
    assert story.ledger.pending == 0
    assert not story.ledger.refused

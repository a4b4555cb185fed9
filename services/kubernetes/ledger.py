"""One kind: what the registry should hold, what it is known to hold, and what to write next. Pure.

    events ──► wanted ┐
                      ├── differ? ──► queue ──► Batch ──► done / failed
    listing ─► stored ┘

It follows the level: a key stands in the queue once, however often its object changes, and what is
written is what is wanted when a batch is cut. Nothing is written before both the cluster and the
registry have been listed.
"""

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass, field

from services.kubernetes.brake import Sweep
from services.kubernetes.translating import Mode

Key = str
"""Of an object within its kind: "namespace/name", or "name" where there are no namespaces."""

Same = Callable[[bytes, bytes], bool]
"""Whether a record that is wanted and one that is stored mean the same."""

FIRST_RETRY = 5.0
LONGEST_RETRY = 300.0
"""Seconds until an object that the registry refused is tried again, though it has not changed."""

LEAST_SHARE = 1 / 32
"""Of the limits, after calls that nobody answered in time."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the registry should hold for an object.

    Attributes:
        value: the record; None: nothing of it, but with IF_ABSENT whatever is there.
        mode: when it is written.
        uid: of the object, for Events about it.
    """

    value: bytes | None
    mode: Mode = Mode.ALWAYS
    uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Objects of one call; either kind of change, not both."""

    applies: tuple[tuple[Key, bytes], ...] = ()
    deletes: tuple[Key, ...] = ()

    @property
    def keys(self) -> tuple[Key, ...]:
        """Of all its objects."""
        return self.deletes or tuple(key for key, _ in self.applies)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the registry does not take an object, and when it is asked again (seconds)."""

    reason: str
    attempts: int
    retry_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of batches of a kind.

    Attributes:
        applies, deletes: objects of one call.
        bytes: of its records together.
    """

    applies: int = 1000
    deletes: int = 1000
    bytes: int = 3 << 20


@dataclass(slots=True)
class Ledger:
    """What is known of one kind.

    Attributes:
        limits: of batches.
        creates: the bridge writes objects of this kind; False: it only removes them.
        deletes_first: removals go before what may need their addresses or names.
        weigh: how much goes with some keys, for the brake; None: themselves.
        wanted: by key; complete once `is_listed`.
        stored: by key, as listed or written last; complete once `is_adopted`.
        held: keys that the brake keeps from being removed.
        refused: what the registry does not take.
    """

    limits: Limits = field(default_factory=Limits)
    creates: bool = True
    deletes_first: bool = False
    weigh: Callable[[Iterable[Key]], int] | None = None
    wanted: dict[Key, Wanted] = field(default_factory=dict)
    stored: dict[Key, bytes] = field(default_factory=dict)
    held: set[Key] = field(default_factory=set)
    refused: dict[Key, Refusal] = field(default_factory=dict)
    is_listed: bool = False
    is_adopted: bool = False
    # Keys to look at, in the order in which they came.
    _queue: dict[Key, None] = field(default_factory=dict)
    _flying: set[Key] = field(default_factory=set)
    # Keys that a watch said were gone, until they are.
    _removed: set[Key] = field(default_factory=set)
    # Keys of calls that failed: what is stored under them may be from before or after.
    _unsure: set[Key] = field(default_factory=set)
    # Groups of which a call was refused: halved until the culprit stands alone.
    _suspects: list[tuple[Key, ...]] = field(default_factory=list)
    # Objects in each namespace.
    _population: Counter[str] = field(default_factory=Counter)
    # Whether removals are cut next where there are both: neither kind of change waits for ever.
    _is_deleting: bool = False
    # Part of the limits that is used: a registry that is slow answers small calls in time.
    _share: float = 1.0

    # --- what is wanted --------------------------------------------------------------------------

    def replace(self, wanted: Mapping[Key, Wanted]) -> None:
        """The cluster was listed: these objects, and no others."""
        for key in self.wanted.keys() - wanted.keys():
            self._drop(key)
            self._queue[key] = None
        for key, item in wanted.items():
            self.upsert(key, item)
        self.is_listed = True
        self._brake()

    def upsert(self, key: Key, item: Wanted) -> None:
        """An object is there, perhaps changed."""
        before = self.wanted.get(key)
        if before == item:
            return
        if before is None:
            self._population[_namespace(key)] += 1
        self.wanted[key] = item
        self.refused.pop(key, None)
        self.held.discard(key)
        self._removed.discard(key)
        self._queue[key] = None

    def remove(self, key: Key) -> None:
        """Somebody has deleted an object."""
        self._drop(key)
        self.held.discard(key)
        if key in self.stored or key in self._flying or key in self._unsure:
            self._removed.add(key)
            self._queue[key] = None

    def has_objects_in(self, namespace: str) -> bool:
        """Whether the cluster has any there."""
        return self._population[namespace] > 0

    def _drop(self, key: Key) -> None:
        if self.wanted.pop(key, None) is not None:
            namespace = _namespace(key)
            self._population[namespace] -= 1
            if not self._population[namespace]:
                del self._population[namespace]
        self.refused.pop(key, None)

    # --- what is stored --------------------------------------------------------------------------

    def adopt(self, stored: Mapping[Key, bytes], same: Same = operator.eq) -> None:
        """The registry was listed; no batch may be under way.

        Args:
            stored: all that it holds.
            same: whether what is wanted and what is stored mean the same.
        """
        assert not self._flying, "a listing beside a batch shows neither before nor after"
        for key in (*self.stored.keys(), *stored.keys(), *self.wanted.keys()):
            self._queue[key] = None
        self.stored = {key: self._adopted(key, value, same) for key, value in stored.items()}
        self._removed &= stored.keys()
        self._unsure.clear()
        self.is_adopted = True
        self._brake()

    def _adopted(self, key: Key, value: bytes, same: Same) -> bytes:
        """One object instead of two equal ones: that is half of the memory."""
        item = self.wanted.get(key)
        is_same = item is not None and item.value is not None and same(item.value, value)
        return item.value if item and item.value is not None and is_same else value

    def forget(self, keys: Iterable[Key]) -> None:
        """Something else has removed these from the registry."""
        for key in keys:
            if self.stored.pop(key, None) is not None:
                self._removed.discard(key)
                self.held.discard(key)
                self._queue[key] = None

    # --- the brake -------------------------------------------------------------------------------

    @property
    def sweep(self) -> Sweep | None:
        """What the brake holds; None: nothing."""
        return self._sweep(self.held) if self.held else None

    def confirm(self, entries: int) -> bool:
        """Lets what is held go, if that is so many entries or fewer; False: it is not."""
        if not self.held or self._sweep(self.held).entries > entries:
            return False
        # Now somebody has removed them, as if they had done it one by one.
        self._removed |= self.held
        self._queue.update(dict.fromkeys(self.held))
        self.held = set()
        return True

    def _brake(self) -> None:
        if not (self.is_listed and self.is_adopted):
            return
        gone = self.stored.keys() - self.wanted.keys() - self._removed
        self.held = gone if self._sweep(gone).is_too_much else set()
        self._queue.update(dict.fromkeys(gone))

    def _sweep(self, gone: set[Key]) -> Sweep:
        weigh = self.weigh or _count
        return Sweep(weigh(gone), weigh(self.stored))

    # --- batches ---------------------------------------------------------------------------------

    def next(self, now: float, may_delete: Callable[[Key], bool] | None = None) -> Batch | None:
        """Cuts the next batch; None: there is nothing to do now.

        Args:
            now: seconds.
            may_delete: whether a key may go already; what may not stays in the queue.
        """
        if not (self.is_listed and self.is_adopted):
            return None
        if self.held and not self._sweep(self.held).is_too_much:
            # What was missing has come back, but for some.
            self._queue.update(dict.fromkeys(self.held))
            self.held = set()
        self._retry(now)
        while self._suspects:
            group = [key for key in self._suspects.pop() if key in self._queue]
            if group and (batch := self._cut(group, may_delete)):
                return batch
        return self._cut(list(self._queue), may_delete) if self._queue else None

    def done(self, batch: Batch) -> None:
        """The registry has taken a batch."""
        self._land(batch)
        self._share = min(1.0, self._share * 2)
        self._unsure.difference_update(batch.keys)
        for key, value in batch.applies:
            self.stored[key] = value
            self.refused.pop(key, None)
        for key in batch.deletes:
            self.stored.pop(key, None)
            self._removed.discard(key)
            self.refused.pop(key, None)

    def undone(self, batch: Batch) -> None:
        """Nobody knows what became of a batch: it is written again, in smaller ones."""
        self._land(batch)
        self._unsure.update(batch.keys)
        self._share = max(LEAST_SHARE, self._share / 2)

    def refuse(self, batch: Batch, reason: str, now: float) -> Key | None:
        """The registry does not take a batch; returns whose fault it is, None: not known yet."""
        self._land(batch)
        self._unsure.update(batch.keys)
        keys = batch.keys
        if len(keys) > 1:
            middle = len(keys) // 2
            self._suspects += [keys[middle:], keys[:middle]]
            return None
        key = keys[0]
        before = self.refused.get(key)
        attempts = before.attempts + 1 if before else 1
        pause = min(FIRST_RETRY * 2.0 ** min(attempts - 1, 10), LONGEST_RETRY)
        self.refused[key] = Refusal(reason=reason, attempts=attempts, retry_at=now + pause)
        self._queue.pop(key, None)
        return key

    def due(self, now: float) -> float | None:
        """Seconds until there may be something to do; None: not before something happens."""
        if not (self.is_listed and self.is_adopted):
            return None
        if self._suspects or self._queue.keys() - self._flying:
            return 0.0
        retries = [refusal.retry_at for refusal in self.refused.values()]
        return max(0.0, min(retries) - now) if retries else None

    @property
    def is_slow(self) -> bool:
        """Whether calls have gone unanswered lately: one at a time is enough then."""
        return self._share < 1.0

    @property
    def is_busy(self) -> bool:
        """Whether a batch is under way."""
        return bool(self._flying)

    @property
    def pending(self) -> int:
        """Keys that wait or are under way."""
        return len(self._queue.keys() | self._flying)

    def _land(self, batch: Batch) -> None:
        for key in batch.keys:
            self._flying.discard(key)
            # Looked at again: it may have changed meanwhile.
            self._queue[key] = None

    def _retry(self, now: float) -> None:
        for key, refusal in self.refused.items():
            if refusal.retry_at <= now and key not in self._queue:
                self._queue[key] = None
                # Alone: with others it would have all of them refused once more.
                self._suspects.append((key,))

    def _cut(self, keys: list[Key], may_delete: Callable[[Key], bool] | None) -> Batch | None:
        most_applies = max(1, int(self.limits.applies * self._share))
        most_deletes = max(1, int(self.limits.deletes * self._share))
        applies: list[tuple[Key, bytes]] = []
        deletes: list[Key] = []
        size = 0
        for key in keys:
            if key in self._flying:
                continue
            value = self._to_write(key)
            if value is not None:
                size += len(value)
                if applies and (size > self.limits.bytes or len(applies) == most_applies):
                    break
                applies.append((key, value))
            elif not self._is_gone(key):
                del self._queue[key]
                self.refused.pop(key, None)
            elif may_delete is None or may_delete(key):
                deletes.append(key)
                if len(deletes) == most_deletes:
                    break
        if deletes and (self.deletes_first or self._is_deleting or not applies):
            self._is_deleting = False
            return self._send(Batch(deletes=tuple(deletes)))
        self._is_deleting = True
        return self._send(Batch(applies=tuple(applies))) if applies else None

    def _send(self, batch: Batch) -> Batch:
        for key in batch.keys:
            self._queue.pop(key, None)
            self._flying.add(key)
        return batch

    def _to_write(self, key: Key) -> bytes | None:
        item = self.wanted.get(key)
        if item is None or item.value is None or not self.creates:
            return None
        if key in self._unsure:
            return item.value
        stored = self.stored.get(key)
        match item.mode:
            case Mode.ALWAYS:
                return None if stored == item.value else item.value
            case Mode.IF_ABSENT:
                return item.value if stored is None else None
            case Mode.IF_PRESENT:
                return None if stored is None or stored == item.value else item.value

    def _is_gone(self, key: Key) -> bool:
        """Whether what is stored under a key is to be removed."""
        if (key not in self.stored and key not in self._unsure) or key in self.held:
            return False
        item = self.wanted.get(key)
        return item is None or (item.value is None and item.mode is not Mode.IF_ABSENT)


def _namespace(key: Key) -> str:
    return key.partition("/")[0]


def _count(keys: Iterable[Key]) -> int:
    return len(keys) if isinstance(keys, Sized) else sum(1 for _ in keys)

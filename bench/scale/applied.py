"""When an agent had which change: what each agent writes down, and what follows from it. Pure."""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

SUB_BITS = 5
"""A bucket is 1/32 of a power of two wide: 3 %."""


@dataclass(slots=True)
class Histogram:
    """Numbers of samples by size; samples are whole microseconds."""

    counts: dict[int, int] = field(default_factory=dict)

    def add(self, microseconds: int) -> None:
        """Counts a sample; one below 0 counts as 0."""
        self.add_many(microseconds, 1)

    def add_many(self, microseconds: int, count: int) -> None:
        """Counts so many samples of one size."""
        bucket = _bucket(max(0, microseconds))
        self.counts[bucket] = self.counts.get(bucket, 0) + count

    @staticmethod
    def upper(bucket: int) -> int:
        """The largest sample of a bucket, microseconds."""
        shift, rest = bucket >> SUB_BITS + 1, bucket & (1 << SUB_BITS + 1) - 1
        return (rest + 1 << shift) - 1

    def merge(self, counts: Mapping[int, int]) -> None:
        """Counts what another one has counted."""
        for bucket, count in counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    @property
    def total(self) -> int:
        """Samples."""
        return sum(self.counts.values())

    def quantile(self, fraction: float) -> float:
        """The upper end, in milliseconds, of the bucket that so many samples do not exceed."""
        wanted = fraction * self.total
        passed = 0
        for bucket in sorted(self.counts):
            passed += self.counts[bucket]
            if passed >= wanted:
                return self.upper(bucket) / 1000
        return 0.0


def _bucket(value: int) -> int:
    shift = max(0, value.bit_length() - SUB_BITS - 1)
    return (shift << SUB_BITS + 1) + (value >> shift)


@dataclass(slots=True)
class Log:
    """What one agent applied since the log was cleared.

    Attributes:
        entries: (when, nanoseconds of the machine's monotonic clock; endpoints that came or
            changed; endpoints that went), by endpoint keys. The arrays are never changed.
    """

    entries: list[tuple[int, "array[int]", "array[int]"]] = field(default_factory=list)

    def note(self, now_ns: int, came: "array[int]", went: "array[int]") -> None:
        """Notes what is in memory now."""
        if came or went:
            self.entries.append((now_ns, came, went))


@dataclass(slots=True)
class Measured:
    """How long changes took.

    Attributes:
        spread: one sample for each change and agent, from etcd's answer to the writer on.
        from_begin: the same from the begin of the write on, etcd's part included.
        last: the time of the last agent, nanoseconds, by change.
        agents: how many agents had it, by change.
    """

    spread: Histogram = field(default_factory=Histogram)
    from_begin: Histogram = field(default_factory=Histogram)
    last: dict[int, int] = field(default_factory=dict)
    agents: dict[int, int] = field(default_factory=dict)

    def merge(self, other: "Measured") -> None:
        """Takes what other agents measured."""
        self.spread.merge(other.spread.counts)
        self.from_begin.merge(other.from_begin.counts)
        for change, when in other.last.items():
            self.last[change] = max(self.last.get(change, 0), when)
        for change, count in other.agents.items():
            self.agents[change] = self.agents.get(change, 0) + count


def change_key(endpoint: int, *, gone: bool) -> int:
    """A change as one number: an endpoint comes once and goes once."""
    return endpoint << 1 | gone


def measure(logs: Iterable[Log], times: Mapping[int, tuple[int, int]]) -> Measured:
    """Measures the changes that agents applied.

    Args:
        logs: of the agents.
        times: when the write of each change began and when it was answered, nanoseconds, by
            `change_key`.
    """
    found = Measured()
    add, add_begin = found.spread.add, found.from_begin.add
    last, agents = found.last, found.agents
    for log in logs:
        for when, came, went in log.entries:
            for shift, keys in ((0, came), (1, went)):
                for key in keys:
                    change = key << 1 | shift
                    at = times.get(change)
                    if at is None:
                        continue
                    add_begin((when - at[0]) // 1000)
                    add((when - at[1]) // 1000)
                    agents[change] = agents.get(change, 0) + 1
                    if when > last.get(change, 0):
                        last[change] = when
    return found

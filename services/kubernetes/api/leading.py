"""Who leads, without I/O: several processes, one Lease, and no clock that two of them share.

A record holds for its duration *from when we saw it change*, by our own clock: the times in it are
for people. A holder stops `LeaseTimes.renew` after it began its last successful write; the others
wait `LeaseTimes.lease` after they saw that write: the difference is what a pause between the check
and the deed may last.

    kill -9      the others saw the last write at most one retry later, and take over one lease
                 after that: 10 s + 2.4 s with the defaults, where client-go's would be 19 s
    clean stop   the record is released: at most one retry
"""

from collections.abc import Callable
from dataclasses import dataclass

from deltaplane.errors import Invalid
from services.kubernetes.api.events import micro_time
from services.kubernetes.api.types import Body, Lease

RELEASED_SECONDS = 1
"""Duration in a record that nobody holds; 0 is refused by the API."""

_RETRY_SPREAD = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """Seconds.

    Attributes:
        lease: others wait for so long before they take what was not renewed.
        renew: a holder that could not renew for so long holds no more.
        retry: between two tries of either.
    """

    lease: int = 10
    renew: float = 7.0
    retry: float = 2.0

    def __post_init__(self) -> None:
        if not self.lease > self.renew > self.retry * (1 + _RETRY_SPREAD) > 0:
            raise Invalid("lease", "must be longer than renew, and renew than 1.2 times retry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Look at the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """There is no record: make one."""

    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace:
    """Write the record, if it is still what we saw."""

    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Do nothing for so many seconds."""

    seconds: float


Step = Read | Create | Replace | Wait


class Election:
    """One candidate's view of one Lease.

    `next` says what to do. Every step but Wait is followed by one of `saw`, `wrote` and `failed`.
    """

    def __init__(
        self, name: str, identity: str, chance: Callable[[], float], times: LeaseTimes
    ) -> None:
        """Knows nothing yet.

        Args:
            name: of the Lease.
            identity: of this process; two that live at the same time never have the same.
            chance: gives numbers in [0, 1).
            times: how long is what.
        """
        if not identity:
            raise Invalid("identity", "must not be empty: that is how nobody is called")
        self._name = name
        self._identity = identity
        self._chance = chance
        self._times = times
        self._seen: Lease | None = None
        self._seen_at = float("-inf")
        self._missing = False
        # False: what we know may be old, look before anything is written.
        self._current = False
        self._waited = True
        self._held_until = float("-inf")

    def holds(self, now: float) -> bool:
        """We lead, for sure, at this moment. Seconds of a clock that never goes back."""
        return now < self._held_until

    def seconds_left(self, now: float) -> float:
        """How much longer we lead without another write; 0 when we do not."""
        return max(0.0, self._held_until - now)

    @property
    def holder(self) -> str:
        """Whom we saw lead; empty: nobody."""
        return (self._seen.spec.holder_identity or "") if self._seen else ""

    @property
    def term(self) -> int:
        """How often the holder has changed: a later leader has a greater number."""
        return (self._seen.spec.lease_transitions or 0) if self._seen else 0

    def next(self, now: float, wall_ns: int) -> Step:
        """What to do now.

        Args:
            now: seconds of a clock that never goes back.
            wall_ns: nanoseconds since 1970-01-01 UTC, for people who read the record.
        """
        if not self._waited:
            self._waited = True
            return Wait(seconds=self._pause(now))
        if not self._current:
            return Read()
        self._current = False
        if self._missing:
            self._waited = False
            return Create(body=self._record(wall_ns))
        if self.holder not in {"", self._identity} and now < self._expires_at():
            return Wait(seconds=self._pause(now))
        self._waited = False
        return Replace(body=self._record(wall_ns))

    def saw(self, lease: Lease | None, now: float) -> None:
        """The record was read; None: there is none."""
        self._current = True
        self._missing = lease is None
        if lease is not None and lease != self._seen:
            self._seen, self._seen_at = lease, now
            if self.holder != self._identity:
                self._held_until = float("-inf")

    def wrote(self, lease: Lease, *, began: float) -> None:
        """A write succeeded that was begun at this time: from then on we lead."""
        self._seen, self._seen_at = lease, began
        self._missing = False
        # Who holds writes again without reading: a rival's write would make it fail.
        self._current = True
        self._held_until = began + self._times.renew

    def failed(self, *, conflict: bool) -> None:
        """A step failed. Whether a write was applied is not known unless somebody was faster."""
        self._current = False
        # Somebody was faster: look at once who. Anything else: not again before a pause.
        self._waited = conflict

    def release(self, wall_ns: int) -> Replace | None:
        """The write that lets the next one lead at once; None if we do not hold the record."""
        if self._seen is None or self.holder != self._identity:
            return None
        self._held_until = float("-inf")
        spec: Body = {
            "holderIdentity": "",
            "leaseDurationSeconds": RELEASED_SECONDS,
            "renewTime": micro_time(wall_ns),
            "leaseTransitions": self.term,
        }
        return Replace(body=self._body(spec, self._seen))

    # --- inside ----------------------------------------------------------------------------------

    def _expires_at(self) -> float:
        spec = self._seen.spec if self._seen else None
        return self._seen_at + ((spec.lease_duration_seconds if spec else None) or 0)

    def _pause(self, now: float) -> float:
        """Until the next try; who waits for an end looks exactly then."""
        retry = self._times.retry * (1 + _RETRY_SPREAD * self._chance())
        if self.holder in {"", self._identity}:
            return retry
        left = self._expires_at() - now
        return min(retry, left) if left > 0 else retry

    def _record(self, wall_ns: int) -> Body:
        moment = micro_time(wall_ns)
        same = self._seen is not None and self.holder == self._identity
        acquired = self._seen.spec.acquire_time if self._seen and same else None
        spec: Body = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._times.lease,
            "acquireTime": acquired or moment,
            "renewTime": moment,
            "leaseTransitions": self.term if same or self._seen is None else self.term + 1,
        }
        return self._body(spec, None if self._missing else self._seen)

    def _body(self, spec: Body, base: Lease | None) -> Body:
        metadata: Body = {"name": self._name}
        if base is not None:
            metadata["resourceVersion"] = base.metadata.resource_version
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": spec,
        }

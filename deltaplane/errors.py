"""The exception tree. `deltaplane.runtime` translates it to gRPC status in one table, and back.

DeltaplaneError
├── Invalid          the caller's fault: INVALID_ARGUMENT
├── NotFound         the named thing does not exist: NOT_FOUND
├── Conflict         the named thing belongs to somebody else or has changed: ALREADY_EXISTS
├── Refused          not in this state: FAILED_PRECONDITION
│   └── Forbidden    not for this caller: PERMISSION_DENIED
├── Exhausted        no more of it: RESOURCE_EXHAUSTED
├── Unavailable      try again: UNAVAILABLE
│   └── Throttled    try again, but later: RESOURCE_EXHAUSTED
├── Compacted        history is gone, list again: OUT_OF_RANGE
└── Internal         our bug: INTERNAL
"""


class DeltaplaneError(Exception):
    """Base of all errors that Deltaplane raises on purpose.

    The message says what to do about it.
    """


class Invalid(DeltaplaneError):
    """A value is wrong.

    Attributes:
        field: path of the field, for example "spec.ingress[0].ports[1].port"; empty when there is
            none.
        reason: what is wrong and what would be right.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


class NotFound(DeltaplaneError):
    """The named thing does not exist."""


class Conflict(DeltaplaneError):
    """The named thing belongs to somebody else or has changed meanwhile."""


class Refused(DeltaplaneError):
    """The call is not possible in this state."""


class Forbidden(Refused):
    """The caller's certificate does not allow the call."""


class Exhausted(DeltaplaneError):
    """There is no more of it."""


class Unavailable(DeltaplaneError):
    """Something could not be reached in time; the call may be repeated."""


class Throttled(Unavailable):
    """The caller calls too often.

    Attributes:
        seconds: after which it may call again.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many calls; again in {seconds:.2f} s")
        self.seconds = seconds


class Compacted(DeltaplaneError):
    """The history that was asked for is gone.

    Attributes:
        compact_revision: oldest revision that is still there.
    """

    def __init__(self, compact_revision: int) -> None:
        super().__init__(f"history before revision {compact_revision} is compacted")
        self.compact_revision = compact_revision


class Internal(DeltaplaneError):
    """A bug of ours."""

"""From an answer that is no success to a typed error; the only place that reads status codes.

| HTTP | error |
|---|---|
| 400, 405, 406, 413, 415, 422 | Invalid |
| 401, 403 | Refused |
| 404 | NotFound |
| 409 | Conflict |
| 410 | Expired, a Compacted |
| 429, and 5xx that say when to come again | Throttled, an Unavailable |
| everything else | Unavailable |
"""

from collections.abc import Mapping

import msgspec

from deltaplane.errors import (
    Compacted,
    Conflict,
    DeltaplaneError,
    Invalid,
    NotFound,
    Refused,
    Unavailable,
)
from services.kubernetes.api.types import UNDECODABLE, Status

LONGEST_RETRY_AFTER_SECONDS = 60.0
"""A server may ask for more; nobody is served by a bridge that sleeps for an hour."""

SHORTEST_RETRY_AFTER_SECONDS = 1.0
"""Also where the server says 0, or what we cannot read."""

_MESSAGE_BYTES = 300
_INVALID = frozenset({400, 405, 406, 413, 415, 422})
_decoder = msgspec.json.Decoder(Status)


class Expired(Compacted):
    """The history, or the snapshot that a list was read from, is gone: list again.

    Kubernetes does not say from where on there is history; `compact_revision` is 0.
    """

    def __init__(self, message: str) -> None:
        super().__init__(0)
        self.args = (message,)


class Silent(Unavailable):
    """A stream that was accepted has brought nothing for too long."""


class Throttled(Unavailable):
    """The server asks to come again later.

    Attributes:
        retry_after_seconds: when, at the earliest.
    """

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


def of_answer(
    what: str, code: int, body: bytes, headers: Mapping[str, str] | None = None
) -> DeltaplaneError:
    """The error for an answer.

    Args:
        what: the request, for people: "list pods".
        code: HTTP status.
        body: a Status in JSON; proxies in between answer with anything.
        headers: of the answer; Retry-After is read.
    """
    status = _status(body)
    return of_status(what, status, code=code, retry_after=_retry_after(status, headers or {}))


def of_event(what: str, body: bytes) -> DeltaplaneError:
    """The error for an ERROR line of a watch."""
    status = _status(body)
    return of_status(what, status, code=status.code, retry_after=_retry_after(status, {}))


def of_status(
    what: str, status: Status, *, code: int, retry_after: float | None
) -> DeltaplaneError:
    """The error for a Status; `retry_after` is None where the server asks for nothing."""
    message = f"{what}: {code} {status.reason}: {status.message}"
    # A watch that lags says Gone or Expired, with or without the code.
    if code == 410 or status.reason in {"Expired", "Gone"}:
        return Expired(message)
    if code == 429 or (code >= 500 and retry_after is not None):
        return Throttled(message, retry_after or SHORTEST_RETRY_AFTER_SECONDS)
    if code in _INVALID:
        return Invalid("", message)
    match code:
        case 401 | 403:
            return Refused(message)
        case 404:
            return NotFound(message)
        case 409:
            return Conflict(message)
        case _:
            return Unavailable(message)


def _status(body: bytes) -> Status:
    try:
        return _decoder.decode(body)
    except UNDECODABLE:
        return Status(message=body[:_MESSAGE_BYTES].decode(errors="replace").strip())


def _retry_after(status: Status, headers: Mapping[str, str]) -> float | None:
    """Seconds; the header may also be a date, which the API server never sends."""
    text = headers.get("retry-after", "")
    seconds = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not seconds and status.details is not None:
        seconds = status.details.retry_after_seconds
    if not seconds and not text:
        return None
    return min(max(float(seconds), SHORTEST_RETRY_AFTER_SECONDS), LONGEST_RETRY_AFTER_SECONDS)

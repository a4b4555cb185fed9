"""Spans of sampled requests, from CNI ADD to a map on another node.

    with tracing.root("cni ADD", {"pod": "shop/cart-1"}) as span:   # decides: 1 in 100 by default
        with tracing.child("address"):                              # of the span around it
            ...
        call(metadata=tracing.metadata())                           # goes on in another process

Whoever starts a trace decides whether it is recorded; everybody else goes by the flag of the
traceparent. What is not recorded costs a look at one variable. Finished spans stay in a ring of
this process, which /traces of the admin HTTP shows, and go to a collector if one is configured.
The SDK is loaded only where something can be recorded.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token
from typing import Protocol

from deltaplane.runtime import trace
from deltaplane.runtime.trace import Traceparent

Value = str | int | float | bool
Attributes = Mapping[str, Value]
Event = tuple[str, int]
"""What happened inside a span, and when, Unix ns."""

MAX_LINKS = 16
"""Of a span that serves many traces: it is the first one's child and names so many others."""


class Span(Protocol):
    """A span under way, or nothing in its place."""

    @property
    def traceparent(self) -> str:
        """What goes on from here names this; empty: nothing is recorded."""
        ...

    def note(self, attributes: Attributes) -> None:
        """Adds attributes."""
        ...

    def fail(self, reason: str) -> None:
        """Says that it came to nothing, and why."""
        ...


class OwnSpan(Span, Protocol):
    """A span that its maker has to end."""

    def end(self, at_ns: int | None = None) -> None:
        """Ends it. at_ns: Unix ns; None: now."""
        ...


class Recorder(Protocol):
    """Where spans are kept; `deltaplane.runtime.recording` has the one."""

    ratio: float

    def start(
        self,
        name: str,
        *,
        parent: Traceparent | None = None,
        links: Sequence[Traceparent] = (),
        attributes: Attributes | None = None,
        events: Sequence[Event] = (),
        start_ns: int | None = None,
    ) -> OwnSpan:
        """Starts a span; without a parent a new trace."""
        ...

    def spans(self, trace_id: str) -> list[Mapping[str, object]]:
        """Finished spans as JSON values, oldest first; of one trace, linked ones included."""
        ...

    def close(self) -> None:
        """Sends what is left to the collector, for a bounded time."""
        ...


class _NoSpan:
    """Records nothing."""

    traceparent = ""

    def note(self, attributes: Attributes) -> None:
        pass

    def fail(self, reason: str) -> None:
        pass


class _Running:
    """Makes a span the current one for a block, and ends it."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: OwnSpan) -> None:
        self._span = span

    def __enter__(self) -> Span:
        self._token: Token[OwnSpan | None] = _current.set(self._span)
        return self._span

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        _current.reset(self._token)
        if error is not None:
            self._span.fail(str(error) or type(error).__name__)
        self._span.end()


_NOTHING: AbstractContextManager[Span] = nullcontext(_NoSpan())
_recorder: Recorder | None = None
_current: ContextVar[OwnSpan | None] = ContextVar("span", default=None)


@contextmanager
def recording(recorder: Recorder | None) -> Iterator[None]:
    """Records into a recorder for a block, then closes it. None: nothing is recorded."""
    global _recorder  # noqa: PLW0603 - one per process, like the log
    _recorder = recorder
    try:
        yield
    finally:
        _recorder = None
        if recorder is not None:
            recorder.close()


def is_on() -> bool:
    """Whether anything can be recorded in this process."""
    return _recorder is not None


def root(name: str, attributes: Attributes | None = None) -> AbstractContextManager[Span]:
    """Starts a trace, or does not, by the ratio of this process."""
    recorder = _recorder
    if recorder is None or random.random() >= recorder.ratio:  # noqa: S311 - keeps no secret
        return _NOTHING
    return _Running(recorder.start(name, attributes=attributes))


def child(name: str, attributes: Attributes | None = None) -> AbstractContextManager[Span]:
    """A part of the current span; nothing where there is none."""
    if (around := _current.get()) is None or (recorder := _recorder) is None:
        return _NOTHING
    parent = trace.parse(around.traceparent)
    return _Running(recorder.start(name, parent=parent, attributes=attributes))


def continued(
    name: str, traceparent: str, attributes: Attributes | None = None
) -> AbstractContextManager[Span]:
    """Goes on with a caller's trace, if it is sampled. traceparent: as it came; may be empty."""
    if (recorder := _recorder) is None or (parent := sampled(traceparent)) is None:
        return _NOTHING
    return _Running(recorder.start(name, parent=parent, attributes=attributes))


def shared(
    name: str, traceparents: Iterable[str], attributes: Attributes | None = None
) -> AbstractContextManager[Span]:
    """Work for many at once: child of the first that is sampled, with links to others."""
    if (recorder := _recorder) is None or not (parents := some_of(traceparents)):
        return _NOTHING
    first, *others = parents
    return _Running(recorder.start(name, parent=first, links=others, attributes=attributes))


def record(
    name: str,
    parents: Sequence[Traceparent],
    *,
    start_ns: int,
    end_ns: int,
    events: Sequence[Event] = (),
    attributes: Attributes | None = None,
) -> None:
    """Records what is over: child of the first, with links to the others. None: nothing."""
    if (recorder := _recorder) is None or not parents:
        return
    span = recorder.start(
        name,
        parent=parents[0],
        links=parents[1:],
        attributes=attributes,
        events=events,
        start_ns=start_ns,
    )
    span.end(end_ns)


def metadata() -> tuple[tuple[str, str], ...] | None:
    """Metadata of a gRPC call that belongs to the current span; None where there is none."""
    span = _current.get()
    return None if span is None else (("traceparent", span.traceparent),)


def sampled(traceparent: str) -> Traceparent | None:
    """The position that a text names; None where it is none, or is not recorded."""
    parsed = trace.parse(traceparent) if traceparent else None
    return parsed if parsed is not None and parsed.sampled else None


def some_of(traceparents: Iterable[str]) -> list[Traceparent]:
    """The first positions that are recorded: one for a parent, MAX_LINKS for links."""
    found: list[Traceparent] = []
    for text in traceparents:
        if text and (parsed := sampled(text)) is not None and parsed not in found:
            found.append(parsed)
            if len(found) > MAX_LINKS:
                break
    return found


def finished(trace_id: str = "") -> Mapping[str, object]:
    """What /traces answers. trace_id: only of that trace; empty: everything in the ring."""
    if (recorder := _recorder) is None:
        return {"ratio": 0.0, "spans": []}
    return {"ratio": recorder.ratio, "spans": recorder.spans(trace_id)}

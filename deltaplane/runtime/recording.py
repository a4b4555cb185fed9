"""Spans by the OpenTelemetry SDK: a ring in this process, and a collector if there is one."""

import os
import socket
from collections import deque
from collections.abc import Mapping, Sequence

import msgspec
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

from deltaplane.runtime.trace import Traceparent
from deltaplane.runtime.tracing import Attributes, Event

RING_SPANS = 4096
"""Measured with 521 bytes each: 2 MiB; the spans of some 400 ADDs in an agent."""

FLUSH_MILLISECONDS = 2000
"""For the last spans of a process that ends."""


class Ring(SpanProcessor):
    """The last finished spans, each as text.

    The SDK's are 11 objects each, which the garbage collector would look at again and again.
    """

    def __init__(self, size: int, names: Mapping[str, str]) -> None:
        """names: what every span of this process says of it."""
        self._spans: deque[tuple[tuple[int, ...], bytes]] = deque(maxlen=size)
        self._names = names

    def on_end(self, span: ReadableSpan) -> None:
        """Keeps it, instead of the oldest one."""
        assert span.context is not None
        traces = (span.context.trace_id, *(link.context.trace_id for link in span.links))
        text = msgspec.json.encode({**self._names, **_as_json(span)})
        self._spans.append((traces, text))

    def spans(self, trace_id: int) -> list[Mapping[str, object]]:
        """As JSON values, oldest first. trace_id: only what belongs or links to it; 0: all."""
        return [
            msgspec.json.decode(text)
            for traces, text in tuple(self._spans)
            if not trace_id or trace_id in traces
        ]


class SdkRecorder:
    """See `tracing.Recorder`.

    Args:
        process: short name, for example "slicer".
        instance: which of them: a node's name; empty: host and pid.
        ratio: part of the traces started here that is recorded, 0..1.
        collector: host:port of OTLP over gRPC, in plaintext; empty: none.
        ring_spans: finished spans that are kept.
    """

    def __init__(
        self,
        *,
        process: str,
        instance: str = "",
        ratio: float,
        collector: str = "",
        ring_spans: int = RING_SPANS,
    ) -> None:
        self.ratio = ratio
        self._names = {
            "process": process,
            "instance": instance or f"{socket.gethostname()}:{os.getpid()}",
        }
        resource = {
            "service.namespace": "deltaplane",
            "service.name": f"deltaplane-{process}",
            "service.instance.id": self._names["instance"],
        }
        # Whoever starts a trace has decided already; nothing else is handed to the SDK.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=Resource(resource), shutdown_on_exit=False
        )
        self._ring = Ring(ring_spans, self._names)
        self._provider.add_span_processor(self._ring)
        if collector:
            self._provider.add_span_processor(_exporter(collector))
        self._tracer = self._provider.get_tracer("deltaplane")

    def start(
        self,
        name: str,
        *,
        parent: Traceparent | None = None,
        links: Sequence[Traceparent] = (),
        attributes: Attributes | None = None,
        events: Sequence[Event] = (),
        start_ns: int | None = None,
    ) -> "RecordedSpan":
        """Starts a span; without a parent a new trace."""
        # An empty context: whatever another library thinks is current is no parent of ours.
        context = Context()
        if parent is not None:
            context = api.set_span_in_context(NonRecordingSpan(_position(parent)), context)
        span = self._tracer.start_span(
            name,
            context=context,
            attributes=attributes,
            links=[Link(_position(link)) for link in links],
            start_time=start_ns,
        )
        for event, at_ns in events:
            span.add_event(event, timestamp=at_ns)
        return RecordedSpan(span)

    def spans(self, trace_id: str) -> list[Mapping[str, object]]:
        """Finished spans as JSON values, oldest first; of one trace, linked ones included."""
        return self._ring.spans(int(trace_id, 16) if trace_id else 0)

    def close(self) -> None:
        """Sends what is left to the collector, for a bounded time."""
        self._provider.force_flush(FLUSH_MILLISECONDS)
        self._provider.shutdown()


class RecordedSpan:
    """A span of the SDK."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: api.Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-01"

    def note(self, attributes: Attributes) -> None:
        """Adds attributes."""
        self._span.set_attributes(attributes)

    def fail(self, reason: str) -> None:
        """Says that it came to nothing, and why."""
        self._span.set_status(Status(StatusCode.ERROR, reason))

    def end(self, at_ns: int | None = None) -> None:
        """Ends it. at_ns: Unix ns; None: now."""
        self._span.end(at_ns)


def _exporter(collector: str) -> SpanProcessor:
    # An extra: whoever names no collector need not install it.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    return BatchSpanProcessor(OTLPSpanExporter(endpoint=collector, insecure=True))


def _position(place: Traceparent) -> SpanContext:
    return SpanContext(
        trace_id=int(place.trace_id, 16),
        span_id=int(place.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def _as_json(span: ReadableSpan) -> Mapping[str, object]:
    assert span.context is not None
    failed = span.status.status_code is StatusCode.ERROR
    return {
        "name": span.name,
        "trace": f"{span.context.trace_id:032x}",
        "span": f"{span.context.span_id:016x}",
        "parent": "" if span.parent is None else f"{span.parent.span_id:016x}",
        "links": [
            {"trace": f"{link.context.trace_id:032x}", "span": f"{link.context.span_id:016x}"}
            for link in span.links
        ],
        "start_unix_ns": span.start_time,
        "end_unix_ns": span.end_time,
        "attributes": dict(span.attributes or {}),
        "events": [{"name": event.name, "unix_ns": event.timestamp} for event in span.events],
        "error": (span.status.description or "failed") if failed else "",
    }

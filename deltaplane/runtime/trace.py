"""W3C traceparent: the 55 characters that tie a request, its record and its delta together."""

import re
import secrets
from dataclasses import dataclass, replace

_PATTERN = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01


@dataclass(frozen=True, slots=True, kw_only=True)
class Traceparent:
    """One position in a trace. trace_id: 32 hex digits, span_id: 16; neither is all zeros."""

    trace_id: str
    span_id: str
    sampled: bool

    def child(self) -> "Traceparent":
        """A new span of the same trace."""
        return replace(self, span_id=secrets.token_hex(8))

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


def make(*, sampled: bool) -> Traceparent:
    """The first span of a new trace."""
    return Traceparent(
        trace_id=secrets.token_hex(16), span_id=secrets.token_hex(8), sampled=sampled
    )


def parse(text: str) -> Traceparent | None:
    """Reads a traceparent; None where the text is none: it comes from strangers.

    https://www.w3.org/TR/trace-context/#traceparent-header: version ff is invalid, a later version
    may carry more fields.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more):
        return None
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    return Traceparent(trace_id=trace_id, span_id=span_id, sampled=bool(int(flags, 16) & _SAMPLED))

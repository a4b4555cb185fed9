"""Events: what the bridge tells people on the objects that could not be programmed."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from deltaplane.errors import Invalid
from services.kubernetes.api.resource import Resource
from services.kubernetes.api.types import Body, ObjectMeta

# Limits of the API for events.k8s.io/v1.
_REASON_BYTES = 128
_NOTE_BYTES = 1024

CLUSTER_NAMESPACE = "default"
"""Where events about objects without a namespace live, by convention of Kubernetes."""


class EventType(Enum):
    """How bad it is."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Who reports.

    Attributes:
        controller: qualified name, for example "deltaplane.dev/bridge".
        instance: which of several, for example the pod's name.
    """

    controller: str
    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Something to say about an object.

    Attributes:
        reason: one word in upper camel case, for machines: "PolicyRefused".
        note: for people; what is longer than 1 kB is cut.
        action: what was tried, one word: "Program".
    """

    resource: Resource
    metadata: ObjectMeta
    type: EventType
    reason: str
    note: str
    action: str = "Program"

    def __post_init__(self) -> None:
        for field, text in (("reason", self.reason), ("action", self.action)):
            if not text or len(text.encode()) > _REASON_BYTES:
                raise Invalid(field, f"must have 1 to {_REASON_BYTES} bytes")

    @property
    def namespace(self) -> str:
        """Where the event is created."""
        return self.metadata.namespace or CLUSTER_NAMESPACE


def micro_time(wall_ns: int) -> str:
    """RFC 3339 with microseconds, as events and leases have it.

    Args:
        wall_ns: nanoseconds since 1970-01-01 UTC.
    """
    seconds, rest = divmod(wall_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def body(report: Report, reporter: Reporter, wall_ns: int) -> Body:
    """The event as the API wants it; the server gives it a name."""
    metadata = report.metadata
    regarding = {
        "apiVersion": report.resource.api_version,
        "kind": report.resource.kind,
        "name": metadata.name,
        "namespace": metadata.namespace,
        "uid": metadata.uid,
        "resourceVersion": metadata.resource_version,
    }
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        # The server cuts it where the generated name would be too long. A dot at its end, as in the
        # names that client-go makes, would have it refused: a prefix must be a name but for a dash.
        "metadata": {"generateName": f"{metadata.name}-", "namespace": report.namespace},
        "eventTime": micro_time(wall_ns),
        "type": report.type.value,
        "reason": report.reason,
        "action": report.action,
        "note": report.note.encode()[:_NOTE_BYTES].decode(errors="ignore"),
        "regarding": {name: value for name, value in regarding.items() if value},
        "reportingController": reporter.controller,
        "reportingInstance": reporter.instance,
    }

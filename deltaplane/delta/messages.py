"""The messages of the stream as plain values: fields and units as in deltaplane/v1/slicer.proto."""

import enum
from dataclasses import dataclass

from deltaplane.delta.changes import Change
from deltaplane.delta.span import EMPTY, Scope
from deltaplane.errors import Refused
from deltaplane.model.objects import Kind

PROTOCOL = 1
"""The only version of the protocol so far."""


class StreamBroken(Refused):
    """The stream cannot go on: the other side broke the protocol. Close it and connect again."""


class Drift(StreamBroken):
    """The agent's view is not the server's view at the same revision: it needs a new snapshot."""


class Mode(enum.IntEnum):
    """How a server brings an agent up to date: numbers of deltaplane.v1.Welcome.Mode."""

    RESUME = 1
    PATCH = 2
    REPAIR = 3
    SNAPSHOT = 4


# --- agent → server ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Who the agent is and what it holds.

    Attributes:
        lineage: lineage of the view held, or without a view that of the kernel state; empty for
            neither.
        applied_revision: revision of the view held, which is applied; 0 when a snapshot is wanted.
        floor_revision: smallest revision that the kernel state may stem from.
        root_digest: 16 bytes, or empty without a view.
        held: span of the view held.
    """

    node: str
    node_uid: str
    boot_id: str = ""
    protocol_min: int = PROTOCOL
    protocol_max: int = PROTOCOL
    lineage: bytes = b""
    applied_revision: int = 0
    root_digest: bytes = b""
    credit_bytes: int = 0
    floor_revision: int = 0
    held: Scope = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Cumulative acknowledgement.

    renewals: snapshots and repairs of this stream that what is applied contains.
    """

    applied_revision: int
    received_revision: int
    added_credit_bytes: int = 0
    worst_apply_us: int = 0
    renewals: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Nack:
    """An object of a barrier that could not be applied and is held closed."""

    revision: int
    kind: Kind
    key: bytes
    reason: str
    retryable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Interest:
    """All identities whose policies the agent wants in advance, instead of those before."""

    number: int
    identities: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """Digests of what the agent holds.

    Attributes:
        revision: barrier at which they were taken.
        buckets: 256 of 16 bytes, little endian.
    """

    revision: int
    buckets: tuple[bytes, ...]


ClientMessage = Hello | Interest | Ack | Nack | Digests


# --- server → agent ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """How the server will bring the agent up to date."""

    lineage: bytes
    server_id: str
    mode: Mode
    head_revision: int
    bookmark_period_ms: int
    ack_interval_ms: int
    protocol: int = PROTOCOL
    node_index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Changes of (previous_revision, revision]; continues: the next frame belongs to it, too."""

    previous_revision: int
    revision: int
    oldest_change_unix_ns: int
    changes: tuple[Change, ...]
    continues: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Barrier:
    """Everything through revision has been sent.

    Attributes:
        root_digest: of the view at revision, or empty.
        bookmark: a mere sign of life, not to be acknowledged by itself.
    """

    revision: int
    head_revision: int
    head_unix_ns: int
    watermark_revision: int = 0
    strict_watermark_revision: int = 0
    interest_number: int = 0
    span_version: int = 0
    root_digest: bytes = b""
    bookmark: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotBegin:
    """A snapshot of the view at revision follows."""

    id: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotChunk:
    """Part of a snapshot; sequence counts up from 0."""

    id: int
    sequence: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotEnd:
    """What a complete snapshot amounts to."""

    id: int
    chunks: int
    objects: int
    root_digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestRequest:
    """Asks for Digests of what the agent holds, which is what the barrier before this one shows."""

    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketReplace:
    """All that a bucket holds at a revision. last: the view is that of the revision now."""

    revision: int
    bucket: int
    changes: tuple[Change, ...]
    last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """The server is about to stop."""

    deadline_ms: int
    retry_after_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """The stream cannot go on."""

    reason: str
    retry_after_ms: int = 0


Control = Welcome | Barrier | SnapshotBegin | SnapshotEnd | DigestRequest | Drain | Reset
"""Messages without changes."""

ServerMessage = Control | Frame | SnapshotChunk | BucketReplace

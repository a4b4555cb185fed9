"""Checkpoints: where a replica that starts begins its view, so that it knows what happened lately.

Whoever comes back from another replica with a revision of the last minutes is then brought up to
date by what has changed since, and not asked for all that it holds.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

EVERY_SECONDS = 60
"""Between two checkpoints."""

REACH_SECONDS = 600
"""How far back a replica begins; etcd keeps its history for longer (30 minutes)."""


class Checkpoint(NamedTuple):
    """The store was at a revision at a time. at: Unix seconds, by the clock of who wrote it."""

    at: int
    revision: int


def decode(data: bytes) -> tuple[Checkpoint, ...]:
    """Checkpoints, ascending; none for what is not readable: they are only a help."""
    try:
        found = [Checkpoint(int(at), int(revision)) for at, revision in json.loads(data)]
    except (ValueError, TypeError):
        return ()
    return tuple(sorted(found))


def encode(checkpoints: Sequence[Checkpoint]) -> bytes:
    """The record of checkpoints."""
    return json.dumps(checkpoints, separators=(",", ":")).encode()


def following(known: Sequence[Checkpoint], now: Checkpoint) -> tuple[Checkpoint, ...] | None:
    """What is known with a new one; None: it is not due. Too old ones are dropped."""
    if known and known[-1].at + EVERY_SECONDS > now.at and known[-1].revision <= now.revision:
        return None
    # After a restored backup, revisions are met again.
    kept = (c for c in known if c.at > now.at - 2 * REACH_SECONDS and c.revision < now.revision)
    return (*kept, now)


def start(known: Sequence[Checkpoint], now: int) -> int | None:
    """The revision to begin at: the oldest within reach; None: there is none. now: Unix seconds."""
    return next((c.revision for c in known if now - REACH_SECONDS <= c.at <= now), None)

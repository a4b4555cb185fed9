"""Where the time of an ADD goes: a histogram per stage, and spans of an ADD that is traced.

address ─┬─ link ─── program ─── commit ─── waiting ─┬─ policy ─── span
         └─ register ────────────────────────────────┘

`waiting` is what is left to wait for the registry's answer once the interface is there;
`policy` is the wait until the pod's policies are in force, `span`, if it is configured, until other
nodes know the pod. A call without these three is the work of this node alone.
"""

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from deltaplane.runtime import metrics, tracing

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Seconds."""


class Stage(enum.StrEnum):
    """A part of an ADD; see the module."""

    ADDRESS = "address"
    LINK = "link"
    PROGRAM = "program"
    REGISTER = "register"
    POLICY = "policy"
    SPAN = "span"
    WAITING = "waiting"
    COMMIT = "commit"


_SECONDS = metrics.histogram(
    "cni_add_stage_seconds", "Parts of CNI ADD inside the agent", ("stage",), BUCKETS
)
_CHILDREN = {stage: _SECONDS.labels(stage.value) for stage in Stage}


@contextmanager
def timed(stage: Stage) -> Iterator[None]:
    """Observes how long the block takes, also when it fails; a child of the current span."""
    started = perf_counter()
    try:
        with tracing.child(stage.value):
            yield
    finally:
        _CHILDREN[stage].observe(perf_counter() - started)

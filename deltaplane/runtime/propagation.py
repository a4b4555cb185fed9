"""How long a change takes from its registration to the kernels, as one histogram with stages.

    endpoints   register_to_commit   the request is here → its record is in etcd
    slicer      seen_to_cut          the watch has delivered the write → its tick is cut
                cut_to_sent          → the writers of all agents that keep up have written it
                cut_to_acked         one agent's acknowledgement has come; once per agent and Ack
    agent       received_to_applied  the first frame is decoded → the kernel agrees with its barrier

Each process measures by its own clock what happens in it; between two of them lies the network.
"""

import enum
from collections.abc import Callable

from deltaplane.runtime import metrics

BUCKETS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0),
)
"""Seconds."""


class Stage(enum.StrEnum):
    """A part of the way; see the module."""

    REGISTER_TO_COMMIT = "register_to_commit"
    SEEN_TO_CUT = "seen_to_cut"
    CUT_TO_SENT = "cut_to_sent"
    CUT_TO_ACKED = "cut_to_acked"
    RECEIVED_TO_APPLIED = "received_to_applied"


_SECONDS = metrics.histogram(
    "propagation_seconds",
    "Parts of the way of a change from its registration to the kernels",
    ("stage",),
    BUCKETS,
)


def observer(stage: Stage) -> Callable[[float], None]:
    """Takes durations of a stage, seconds. Ask once: a process shows the stages it asked for."""
    observe: Callable[[float], None] = _SECONDS.labels(stage.value).observe
    return observe

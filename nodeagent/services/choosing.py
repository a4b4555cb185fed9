"""Which backends of a service port apply on a node: what kube-proxy chooses. Pure.

    cluster  ready ones: those that hints name for this node, else for its zone, else all;
             nobody is ready: those that go but still answer
    local    the same of this node's own, without hints

Hints count only if every ready backend has one, and one of them names this node (its zone).
Whether one change of a backend changes the choice of the others is told by counts alone.
"""

import enum
from dataclasses import dataclass

from deltaplane.model.objects import BackendObject, BackendState


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """The node that chooses.

    Attributes:
        node_index: its number; 0: not registered yet, nothing is local.
        node: its name.
        zone: its zone; "": none.
    """

    node_index: int
    node: str
    zone: str = ""


class Mode(enum.Enum):
    """Which of the backends apply."""

    TERMINATING = enum.auto()
    """Nobody is ready: those that go."""
    EVERY = enum.auto()
    """All that are ready."""
    ZONE = enum.auto()
    """Those for our zone."""
    NODE = enum.auto()
    """Those for our node."""


class Tally:
    """Counts of backends that decide about modes.

    Attributes:
        ready: how many may be given new connections.
        local_ready: how many of them are on this node.
    """

    __slots__ = (
        "_for_node",
        "_for_zone",
        "_where",
        "_without_node",
        "_without_zone",
        "local_ready",
        "ready",
    )

    def __init__(self, where: Where) -> None:
        self._where = where
        self.ready = self.local_ready = 0
        self._without_zone = self._for_zone = self._without_node = self._for_node = 0

    def count(self, backend: BackendObject, times: int) -> None:
        """Takes a backend in (times 1) or out (-1)."""
        if backend.state is not BackendState.READY:
            return
        self.ready += times
        self.local_ready += times * is_local(backend, self._where)
        self._without_zone += times * (not backend.zones)
        self._for_zone += times * (self._where.zone in backend.zones)
        self._without_node += times * (not backend.nodes)
        self._for_node += times * (self._where.node in backend.nodes)

    @property
    def cluster(self) -> Mode:
        """What applies of all."""
        if not self.ready:
            return Mode.TERMINATING
        if not self._without_node and self._for_node:
            return Mode.NODE
        if not self._without_zone and self._for_zone:
            return Mode.ZONE
        return Mode.EVERY

    @property
    def local(self) -> Mode:
        """What applies of this node's own."""
        return Mode.EVERY if self.local_ready else Mode.TERMINATING


def is_local(backend: BackendObject, where: Where) -> bool:
    """Whether it is on this node."""
    return backend.node_index == where.node_index != 0


def applies(backend: BackendObject, mode: Mode, where: Where) -> bool:
    """Whether a mode takes a backend."""
    if mode is Mode.TERMINATING:
        return backend.state is BackendState.TERMINATING
    if backend.state is not BackendState.READY:
        return False
    if mode is Mode.ZONE:
        return where.zone in backend.zones
    return mode is Mode.EVERY or where.node in backend.nodes

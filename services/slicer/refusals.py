"""Streams that are refused or broken: counted always, logged once per node and minute. Bounded."""

QUIET_SECONDS = 60.0
NODES_AT_MOST = 10_000
"""Names that are remembered: a stranger may make up any number of them."""


class Refusals:
    """When something was last said about which node."""

    def __init__(self) -> None:
        self._said_at: dict[str, float] = {}

    def is_news(self, node: str, now: float) -> bool:
        """Whether to log a refusal of this node; noted as said then. now: seconds."""
        last = self._said_at.get(node)
        if last is not None and now < last + QUIET_SECONDS:
            return False
        self._said_at.pop(node, None)  # the oldest are in front
        self._said_at[node] = now
        if len(self._said_at) > NODES_AT_MOST:
            del self._said_at[next(iter(self._said_at))]
        return True

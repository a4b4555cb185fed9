"""Registered nodes that the cluster does not know. Pure.

An agent may register before the watch of nodes has told of its Node: such a node counts as known to
the registry, and can be removed for being absent, only after a while.
"""

from collections.abc import Collection

GRACE_SECONDS = 60.0


class Strangers:
    """Remembers since when a registered node has been unknown."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def admit(self, registered: Collection[str], known: Collection[str], now: float) -> set[str]:
        """The registered nodes without those that are unknown for less than the grace.

        Args:
            registered: names, as the registry lists them.
            known: names of the cluster's nodes.
            now: seconds.
        """
        unknown = set(registered) - set(known)
        self._since = {name: self._since.get(name, now) for name in unknown}
        return set(registered) - {
            name for name, since in self._since.items() if now - since < GRACE_SECONDS
        }

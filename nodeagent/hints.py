"""What the pods of a namespace asked for last: a guess that the registry puts right. Bounded."""

from collections import OrderedDict

from nodeagent.pools import NO_WISH, Wish

MAX_NAMESPACES = 256
"""More than a node has pods."""


class Hints:
    """Namespace → wish; those that ask for nothing take no room."""

    def __init__(self, limit: int = MAX_NAMESPACES) -> None:
        self._limit = limit
        self._wishes: OrderedDict[str, Wish] = OrderedDict()

    def get(self, namespace: str) -> Wish:
        """What to try first."""
        if namespace not in self._wishes:
            return NO_WISH
        self._wishes.move_to_end(namespace)
        return self._wishes[namespace]

    def put(self, namespace: str, wish: Wish) -> None:
        """Remembers what was right; forgets what has been of no use for longest."""
        self._wishes.pop(namespace, None)
        if wish != NO_WISH:
            self._wishes[namespace] = wish
        if len(self._wishes) > self._limit:
            self._wishes.popitem(last=False)

"""The ledgers of all kinds, and the order in which their batches are written. Pure.

A round is a set of batches that may be under way together, of different objects all. A namespace is
removed in a round of its own, and only when the cluster has nothing in it any more: the registry
removes with it all that it holds there.
"""

from collections.abc import Iterable

from services.kubernetes.kinds import Kind
from services.kubernetes.ledger import Batch, Key, Ledger, Limits

PODS_AT_ONCE = 4
"""Batches of pods in one round: there are as many of them as of all the rest together."""

_POLICY_LIMITS = Limits(applies=500, deletes=500)
_LIMITS = {
    # Each of its removals takes the node's endpoints and blocks along.
    Kind.NODE: Limits(deletes=4),
    Kind.NAMESPACE: Limits(deletes=100),
    Kind.POD: Limits(applies=500),
    Kind.SERVICE: Limits(applies=200),
    Kind.ENDPOINT_SLICE: Limits(applies=100),
}


class Books:
    """One ledger a kind."""

    def __init__(self) -> None:
        self.ledgers = {kind: self._ledger(kind) for kind in Kind}

    def __getitem__(self, kind: Kind) -> Ledger:
        return self.ledgers[kind]

    def _ledger(self, kind: Kind) -> Ledger:
        return Ledger(
            limits=_LIMITS.get(kind, _POLICY_LIMITS),
            # Agents register their nodes; the bridge only sees them go.
            creates=kind is not Kind.NODE,
            # Two services never have one address: who gives it up goes first. Of two policies, who
            # takes over what another one closes.
            deletes_first=kind is Kind.SERVICE,
            weigh=self._weigh_namespaces if kind is Kind.NAMESPACE else None,
        )

    def plan(self, now: float) -> tuple[tuple[Kind, Batch], ...]:
        """The next round; empty: there is nothing to do now."""
        batches: list[tuple[Kind, Batch]] = []
        first = self[Kind.NAMESPACE].next(now, self._is_empty)
        if first is not None:
            batches.append((Kind.NAMESPACE, first))
            if first.deletes:
                return tuple(batches)
        for kind, ledger in self.ledgers.items():
            for _ in range(PODS_AT_ONCE if kind is Kind.POD and not ledger.is_slow else 1):
                batch = None if kind is Kind.NAMESPACE else ledger.next(now)
                if batch is None:
                    break
                batches.append((kind, batch))
        return tuple(batches)

    def done(self, kind: Kind, batch: Batch) -> None:
        """The registry has taken a batch."""
        self[kind].done(batch)
        if kind is Kind.NAMESPACE and batch.deletes:
            gone = set(batch.deletes)
            for other, ledger in self.ledgers.items():
                if other.resource.namespaced:
                    ledger.forget([key for key in ledger.stored if _namespace(key) in gone])

    def due(self, now: float) -> float | None:
        """Seconds until there may be something to do; None: not before something happens."""
        times = [due for ledger in self.ledgers.values() if (due := ledger.due(now)) is not None]
        return min(times) if times else None

    def _is_empty(self, namespace: Key) -> bool:
        return not any(
            ledger.has_objects_in(namespace)
            for kind, ledger in self.ledgers.items()
            if kind.resource.namespaced
        )

    def _weigh_namespaces(self, names: Iterable[Key]) -> int:
        """With what the registry holds in them."""
        wanted = set(names)
        return len(wanted) + sum(
            _namespace(key) in wanted
            for kind, ledger in self.ledgers.items()
            if kind.resource.namespaced
            for key in ledger.stored
        )


def _namespace(key: Key) -> str:
    return key.partition("/")[0]

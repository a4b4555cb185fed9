"""What cannot be programmed as its object says, and whom that has been told. Pure.

A problem is told once: when it is first seen, and again when its text changes. It has ended when
the object can be programmed, or is gone.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from services.kubernetes.kinds import Kind
from services.kubernetes.ledger import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why an object is not programmed as it is.

    Attributes:
        uid: of the object.
        text: for people.
    """

    kind: Kind
    key: Key
    uid: str
    text: str


class Problems:
    """Problems of all kinds, two of one object at most: how it reads, and the registry's answer."""

    def __init__(self) -> None:
        self._known: dict[Kind, dict[Key, Problem]] = {kind: {} for kind in Kind}
        self._untold: dict[tuple[Kind, Key], Problem] = {}

    def of(self, kind: Kind) -> AbstractSet[Key]:
        """Objects of a kind with a problem."""
        return self._known[kind].keys()

    def all_of(self, kind: Kind) -> list[Problem]:
        """Those of a kind, ordered by object."""
        return [problem for _, problem in sorted(self._known[kind].items())]

    def report(self, kind: Kind, key: Key, uid: str, text: str) -> None:
        """An object has this problem now; "": none."""
        if not text:
            if key in self._known[kind]:
                self.forget(kind, (key,))
            return
        problem = Problem(kind=kind, key=key, uid=uid, text=text)
        if self._known[kind].get(key) != problem:
            self._known[kind][key] = problem
            self._untold[kind, key] = problem

    def forget(self, kind: Kind, keys: Iterable[Key]) -> None:
        """These are gone, or fine."""
        for key in tuple(keys):
            self._known[kind].pop(key, None)
            self._untold.pop((kind, key), None)

    def take(self) -> Problem | None:
        """The next one to tell people of; None: they know all."""
        if not self._untold:
            return None
        return self._untold.pop(next(iter(self._untold)))

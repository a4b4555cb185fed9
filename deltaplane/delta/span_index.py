"""The spans of all nodes, kept up to date change by change.

What is shared is kept once: which identities are where, which subjects name a peer set, which sets
an identity is in. A node has nothing of its own here but the counts of its endpoints' identities
and its last span, whose parts are shared by the nodes that have the same.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TypeVar

from deltaplane.delta.span import Scope, peer_sets_of
from deltaplane.model.objects import EndpointObject, PeerSet, StreamObject, SubjectPolicy

_K = TypeVar("_K")
_M = TypeVar("_M")

_NO_KEYS: frozenset[bytes] = frozenset()
_NO_NUMBERS: frozenset[int] = frozenset()


class SpanIndex:
    """Takes every change of a view by `replace`; answers for the view as it is.

    Attributes:
        unsettled: nodes whose span may have changed since somebody emptied this.
    """

    def __init__(self, objects: Iterable[StreamObject] = ()) -> None:
        self.unsettled: set[int] = set()
        self._identities_on: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self._nodes_with: defaultdict[int, set[int]] = defaultdict(set)
        self._sets_named_by: dict[int, frozenset[bytes]] = {}
        self._subjects_naming: defaultdict[bytes, set[int]] = defaultdict(set)
        self._members: dict[bytes, frozenset[int]] = {}
        self._sets_with: defaultdict[int, set[bytes]] = defaultdict(set)
        self._prefetched: dict[int, frozenset[int]] = {}
        self._prefetching: defaultdict[int, set[int]] = defaultdict(set)
        # Forgotten whenever something changes that they depend on.
        self._told: dict[int, frozenset[int]] = {}
        self._shared: dict[frozenset[bytes], frozenset[int]] = {}
        for value in objects:
            self.replace(None, value)
        self.unsettled.clear()

    # --- changes ---------------------------------------------------------------------------------

    def replace(self, old: StreamObject | None, new: StreamObject | None) -> None:
        """An object has come (old is None), gone (new is None) or changed."""
        match old or new:
            case EndpointObject():
                assert not isinstance(old, PeerSet | SubjectPolicy)
                self._endpoint(old, new)  # type: ignore[arg-type]  # one key, one kind
            case SubjectPolicy(identity=subject):
                named = peer_sets_of(new) if isinstance(new, SubjectPolicy) else _NO_KEYS
                self._policy(subject, named)
            case PeerSet(set_key=key):
                members = frozenset(new.identities) if isinstance(new, PeerSet) else _NO_NUMBERS
                self._peer_set(key, members)
            case _:
                pass

    def prefetch(self, node_index: int, identities: frozenset[int]) -> None:
        """Takes what a node wants in advance, instead of what it wanted before."""
        before = self._prefetched.pop(node_index, _NO_NUMBERS)
        if identities:
            self._prefetched[node_index] = identities
        if before != identities:
            self.unsettled.add(node_index)
        for number in before - identities:
            _drop(self._prefetching, number, node_index)
        for number in identities - before:
            self._prefetching[number].add(node_index)

    def _endpoint(self, old: EndpointObject | None, new: EndpointObject | None) -> None:
        was = None if old is None else (old.node_index, old.identity)
        now = None if new is None else (new.node_index, new.identity)
        if was == now:
            return
        if now is not None:
            node, identity = now
            self._identities_on[node][identity] += 1
            if self._identities_on[node][identity] == 1:
                self._nodes_with[identity].add(node)
                self._moved(node, identity)
        if was is not None:
            node, identity = was
            self._identities_on[node][identity] -= 1
            if not self._identities_on[node][identity]:
                del self._identities_on[node][identity]
                if not self._identities_on[node]:
                    del self._identities_on[node]
                _drop(self._nodes_with, identity, node)
                self._moved(node, identity)

    def _moved(self, node: int, identity: int) -> None:
        """An identity has come to a node, or left it."""
        self.unsettled.add(node)
        if self._sets_named_by.get(identity):
            self._told.clear()

    def _policy(self, subject: int, named: frozenset[bytes]) -> None:
        before = self._sets_named_by.pop(subject, _NO_KEYS)
        if named:
            self._sets_named_by[subject] = named
        if before == named:
            return
        for key in before - named:
            _drop(self._subjects_naming, key, subject)
        for key in named - before:
            self._subjects_naming[key].add(subject)
        self.unsettled |= self._nodes_with.get(subject, set())
        self.unsettled |= self._prefetching.get(subject, set())
        self._told.clear()

    def _peer_set(self, key: bytes, members: frozenset[int]) -> None:
        before = self._members.pop(key, _NO_NUMBERS)
        if members:
            self._members[key] = members
        if before == members:
            return
        for number in before - members:
            _drop(self._sets_with, number, key)
        for number in members - before:
            self._sets_with[number].add(key)
        for subject in self._subjects_naming.get(key, ()):
            self.unsettled |= self._nodes_with.get(subject, set())
        self._told.clear()
        self._shared.clear()

    # --- answers ---------------------------------------------------------------------------------

    def scope(self, node_index: int) -> Scope:
        """The span of a node; equal to `span.span` of the view."""
        local = self._identities_on.get(node_index, Counter())
        prefetched = self._prefetched.get(node_index, _NO_NUMBERS)
        by_local = self._named(local)
        named = by_local | self._named(prefetched)
        return Scope(frozenset(local) | prefetched, named, self._peers(by_local))

    def identities_on(self, node_index: int) -> Iterable[int]:
        """Identities of a node's endpoints."""
        return self._identities_on.get(node_index, {}).keys()

    def nodes_with(self, identity: int) -> Iterable[int]:
        """Nodes that have endpoints of an identity."""
        return self._nodes_with.get(identity, ())

    def told(self, identity: int) -> frozenset[int]:
        """Nodes that are told of an identity's endpoints wherever these are."""
        if (found := self._told.get(identity)) is None:
            nodes: set[int] = set()
            for key in self._sets_with.get(identity, ()):
                for subject in self._subjects_naming.get(key, ()):
                    nodes |= self._nodes_with.get(subject, set())
            found = self._told[identity] = frozenset(nodes)
        return found

    def naming(self, key: bytes) -> set[int]:
        """Nodes whose policies name a peer set."""
        nodes: set[int] = set()
        for subject in self._subjects_naming.get(key, ()):
            nodes |= self.enforcing(subject)
        return nodes

    def enforcing(self, subject: int) -> set[int]:
        """Nodes that enforce, or want in advance, the policies of a subject."""
        return self._nodes_with.get(subject, set()) | self._prefetching.get(subject, set())

    def _named(self, subjects: Iterable[int]) -> frozenset[bytes]:
        found = [self._sets_named_by[n] for n in subjects if n in self._sets_named_by]
        return found[0] if len(found) == 1 else _NO_KEYS.union(*found)

    def _peers(self, keys: frozenset[bytes]) -> frozenset[int]:
        if not keys:
            return _NO_NUMBERS
        if (found := self._shared.get(keys)) is None:
            parts = (self._members.get(key, _NO_NUMBERS) for key in keys)
            found = self._shared[keys] = _NO_NUMBERS.union(*parts)
        return found


def _drop(table: defaultdict[_K, set[_M]], key: _K, member: _M) -> None:
    table[key].discard(member)
    if not table[key]:
        del table[key]

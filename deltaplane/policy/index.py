"""Which terms match which identities, kept up while both change.

A term is filed under the facts of one of its anchors and an identity under all of its facts, so
that a new term looks at few identities and a new identity at few terms.

    term      ──anchor──►  fact  ◄──every fact──  identity
"""

from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import TypeVar

from deltaplane.model.identity import Identity
from deltaplane.policy.terms import Candidate, Fact, Term, facts_of

_T = TypeVar("_T")

_NOBODY: frozenset[int] = frozenset()


class MatchIndex:
    """Terms by identity and identities by term.

    The sets it returns are its own: read them, do not keep them.
    """

    def __init__(self) -> None:
        self._candidates: dict[int, Candidate] = {}
        self._members: dict[Term, set[int]] = {}
        self._terms: dict[int, set[Term]] = {}
        self._anchors: dict[Term, tuple[Fact, ...]] = {}
        self._terms_by_fact: defaultdict[Fact, set[Term]] = defaultdict(set)
        self._identities_by_fact: defaultdict[Fact, set[int]] = defaultdict(set)

    def members(self, term: Term) -> AbstractSet[int]:
        """Identities that an indexed term matches."""
        return self._members[term]

    def terms(self, identity: int) -> AbstractSet[Term]:
        """Indexed terms that match an indexed identity."""
        return self._terms[identity]

    def add_term(self, term: Term) -> None:
        """Indexes a term that is not there yet."""
        anchors = sorted(term.anchors(), key=self._identities_under)
        anchor = self._anchors[term] = anchors[0]
        members = set(self._under(anchor))
        for other in anchors[1:]:
            members &= self._under(other)
        if not term.is_anchored:
            members = {n for n in members if term.matches(self._candidates[n])}
        self._members[term] = members
        for fact in anchor:
            self._terms_by_fact[fact].add(term)
        for number in members:
            self._terms[number].add(term)

    def remove_term(self, term: Term) -> None:
        """Forgets an indexed term."""
        _discard(self._terms_by_fact, self._anchors.pop(term), term)
        for number in self._members.pop(term):
            self._terms[number].discard(term)

    def add_identity(self, identity: Identity) -> AbstractSet[Term]:
        """Indexes an identity that is not there yet; returns the terms that match it."""
        candidate = Candidate.of(identity.label_set)
        facts = tuple(facts_of(identity.label_set))
        terms = {term for fact in facts for term in self._terms_by_fact.get(fact, ())}
        matching = {term for term in terms if term.matches(candidate)}
        for fact in facts:
            self._identities_by_fact[fact].add(identity.id)
        for term in matching:
            self._members[term].add(identity.id)
        self._candidates[identity.id] = candidate
        self._terms[identity.id] = matching
        return matching

    def remove_identity(self, number: int) -> AbstractSet[Term]:
        """Forgets an indexed identity; returns the terms that matched it."""
        _discard(self._identities_by_fact, facts_of(self._candidates.pop(number).label_set), number)
        matching = self._terms.pop(number)
        for term in matching:
            self._members[term].discard(number)
        return matching

    def _under(self, anchor: tuple[Fact, ...]) -> AbstractSet[int]:
        if len(anchor) == 1:
            return self._identities_by_fact.get(anchor[0], _NOBODY)
        return _NOBODY.union(*(self._identities_by_fact.get(fact, _NOBODY) for fact in anchor))

    def _identities_under(self, anchor: Iterable[Fact]) -> int:
        return sum(len(self._identities_by_fact.get(fact, ())) for fact in anchor)


def _discard(table: defaultdict[Fact, set[_T]], facts: Iterable[Fact], item: _T) -> None:
    for fact in facts:
        table[fact].discard(item)
        if not table[fact]:
            del table[fact]

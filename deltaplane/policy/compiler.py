"""The incremental policy compiler.

Changes mark dirt, `flush` recomputes what is dirty and returns what became different. The outcome
is a function of the policies and identities alone, whatever the order in which they were learnt.

    policy ──► templates ──► terms ──┐
                                     ├──► SubjectPolicy of each identity ──► the PeerSets it names
    identity ──► matching terms ─────┘
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakValueDictionary

from deltaplane.model.identity import Identity
from deltaplane.model.objects import (
    DirectionPolicy,
    Kind,
    PeerSet,
    SubjectPolicy,
)
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.ports import NamedPort
from deltaplane.model.tiers import Policy, Rule, Tier
from deltaplane.policy import rules
from deltaplane.policy.directions import Part, direction
from deltaplane.policy.index import MatchIndex
from deltaplane.policy.rules import PortName, Template
from deltaplane.policy.terms import Term
from deltaplane.policy.translate import of_network_policy

_K = TypeVar("_K")

Output = PeerSet | SubjectPolicy
OutputKey = tuple[Kind, bytes]


@dataclass(frozen=True, slots=True)
class Compiled:
    """What changed.

    Attributes:
        upserts: new or different objects: peer sets before subject policies, each ascending by key.
        removals: objects that are gone, ascending.
    """

    upserts: tuple[Output, ...]
    removals: tuple[OutputKey, ...]


@dataclass(slots=True)
class _Installed:
    """A policy, what it was turned into, and which terms it holds in the index."""

    policy: Policy
    subject: Term
    ingress: tuple[Template, ...]
    egress: tuple[Template, ...]
    terms: tuple[Term, ...]
    # By the subject's ports that its rules name. Filled when a subject asks.
    ingress_parts: dict[tuple[NamedPort, ...], Part] = field(default_factory=dict)
    # None until a subject asks, and again when a division of a named port appears or disappears.
    egress_part: Part | None = None
    applies_to_ingress: bool = field(init=False)
    applies_to_egress: bool = field(init=False)
    # Names of the subject's own ports, and names whose meaning depends on the destination.
    own_names: frozenset[PortName] = field(init=False)
    port_names: frozenset[PortName] = field(init=False)

    def __post_init__(self) -> None:
        policy = self.policy
        self.applies_to_ingress = policy.isolates_ingress or bool(policy.ingress)
        self.applies_to_egress = policy.isolates_egress or bool(policy.egress)
        self.own_names = _names(self.ingress)
        self.port_names = _names(self.egress)


class Compiler:
    """Policies and identities in, peer sets and subject policies out."""

    def __init__(self) -> None:
        self._index = MatchIndex()
        self._identities: dict[int, Identity] = {}
        self._policies: dict[str, _Installed] = {}
        # Who uses a term: as its subject, and at all (an index entry lives while anyone does).
        self._selecting: defaultdict[Term, set[str]] = defaultdict(set)
        self._term_users: defaultdict[Term, set[str]] = defaultdict(set)
        # Numbers that a port name has anywhere, and the policies whose egress rules use the name.
        self._numbers: defaultdict[PortName, Counter[int]] = defaultdict(Counter)
        self._name_users: defaultdict[PortName, set[str]] = defaultdict(set)
        # Terms in use, and templates of installed policies: what is equal is there once.
        self._terms: dict[Term, Term] = {}
        self._terms_by_key: dict[bytes, Term] = {}
        self._templates: WeakValueDictionary[tuple[Tier, bool, Rule], Template] = (
            WeakValueDictionary()
        )
        # How many subject policies name a peer set; only those that one names exist.
        self._named_by: Counter[bytes] = Counter()
        self._dirty_subjects: set[int] = set()
        self._dirty_sets: set[bytes] = set()
        self._now: dict[OutputKey, Output] = {}
        # What was there at the last flush, for everything that was touched since; None: nothing.
        self._before: dict[OutputKey, Output | None] = {}

    def set_policy(self, policy: NetworkPolicy | Policy) -> None:
        """Adds a policy, or replaces the one with its reference."""
        if isinstance(policy, NetworkPolicy):
            policy = of_network_policy(policy)
        installed = self._policies.get(policy.reference)
        if installed is None:
            self._install(policy)
        elif installed.policy != policy:
            self._uninstall(policy.reference)
            self._install(policy)

    def delete_policy(self, reference: str) -> None:
        """Removes a policy; nothing happens if there is none with this reference."""
        if reference in self._policies:
            self._uninstall(reference)

    def set_identity(self, identity: Identity) -> None:
        """Adds an identity, or replaces what its number stands for."""
        if self._identities.get(identity.id) == identity:
            return
        self.delete_identity(identity.id)
        self._identities[identity.id] = identity
        self._dirty_subjects.add(identity.id)
        for term in self._index.add_identity(identity):
            self._membership_changed(term, became=1)
        for port in identity.label_set.named_ports:
            numbers = self._numbers[port.name, port.protocol]
            numbers[port.number] += 1
            if numbers[port.number] == 1:
                self._reinstall_users((port.name, port.protocol))

    def delete_identity(self, number: int) -> None:
        """Removes an identity; nothing happens if there is none."""
        identity = self._identities.pop(number, None)
        if identity is None:
            return
        self._dirty_subjects.add(number)
        for term in self._index.remove_identity(number):
            self._membership_changed(term, became=0)
        for port in identity.label_set.named_ports:
            name = (port.name, port.protocol)
            self._numbers[name][port.number] -= 1
            # Policies keep the empty division of a number that is gone until they are reinstalled:
            # it has no members, so no rule names it.
            if not self._numbers[name][port.number]:
                del self._numbers[name][port.number]
            if not self._numbers[name]:
                del self._numbers[name]

    def flush(self) -> Compiled:
        """What changed since the last flush."""
        self._refresh()
        upserts: list[Output] = []
        removals: list[OutputKey] = []
        for key, before in sorted(self._before.items(), key=lambda item: item[0]):
            now = self._now.get(key)
            if now is None:
                if before is not None:
                    removals.append(key)
            elif now != before:
                upserts.append(now)
        self._before.clear()
        return Compiled(tuple(upserts), tuple(removals))

    def all(self) -> tuple[Output, ...]:
        """Everything now, ascending by kind and key; the next flush is not affected."""
        self._refresh()
        return tuple(value for _, value in sorted(self._now.items(), key=lambda item: item[0]))

    # --- policies in and out of the index ---------------------------------------------------------

    def _install(self, policy: Policy) -> None:
        reference = policy.reference
        subject = self._interned(rules.term(policy.subject))
        ingress = tuple(self._template(policy, rule) for rule in policy.ingress)
        egress = tuple(self._template(policy, rule) for rule in policy.egress)
        terms = {subject}
        for template in (*ingress, *egress):
            terms.update(template.terms)
        for template in egress:
            for term in template.named_terms:
                for name in template.port_names:
                    terms.update(self._divisions(term, name))
        installed = _Installed(policy, subject, ingress, egress, tuple(terms))
        self._policies[reference] = installed
        for term in terms:
            self._use(term, reference)
        for name in installed.port_names:
            self._name_users[name].add(reference)
        self._selecting[subject].add(reference)
        self._dirty_subjects.update(self._index.members(subject))

    def _interned(self, term: Term) -> Term:
        """The term in use that equals this one: it knows its hash and key already."""
        return self._terms.get(term, term)

    def _template(self, policy: Policy, rule: Rule) -> Template:
        """The template of a rule; equal rules of policies of one tier share it."""
        key = (policy.tier, policy.audit, rule)
        if (found := self._templates.get(key)) is None:
            found = rules.template(policy, rule, self._interned)
            self._templates[key] = found
        return found

    def _uninstall(self, reference: str) -> None:
        installed = self._policies.pop(reference)
        self._dirty_subjects.update(self._index.members(installed.subject))
        _drop(self._selecting, installed.subject, reference)
        for name in installed.port_names:
            _drop(self._name_users, name, reference)
        for term in installed.terms:
            _drop(self._term_users, term, reference)
            if term not in self._term_users:
                self._index.remove_term(term)
                del self._terms[term]
                del self._terms_by_key[term.key]
                self._dirty_sets.add(term.key)

    def _use(self, term: Term, reference: str) -> None:
        if term not in self._term_users:
            self._index.add_term(term)
            self._terms[term] = term
            self._terms_by_key[term.key] = term
            self._dirty_sets.add(term.key)
        self._term_users[term].add(reference)

    def _reinstall_users(self, name: PortName) -> None:
        """A port name got a number that it had nowhere: there is one more division of each term."""
        for reference in tuple(self._name_users.get(name, ())):
            policy = self._policies[reference].policy
            self._uninstall(reference)
            self._install(policy)

    def _divisions(self, term: Term, name: PortName) -> Iterator[Term]:
        for number in self._numbers.get(name, ()):
            yield term.with_port(NamedPort(name[0], name[1], number))

    def _membership_changed(self, term: Term, *, became: int) -> None:
        """An identity joined (became=1) or left (became=0) a term."""
        self._dirty_sets.add(term.key)
        if term.named_port is None or len(self._index.members(term)) != became:
            return
        # A division is named by rules only while it has members.
        for reference in self._term_users[term]:
            installed = self._policies[reference]
            installed.egress_part = None
            self._dirty_subjects.update(self._index.members(installed.subject))

    # --- dirt to output ---------------------------------------------------------------------------

    def _refresh(self) -> None:
        cache: dict[tuple[object, ...], DirectionPolicy] = {}
        for number in self._dirty_subjects:
            identity = self._identities.get(number)
            value = None if identity is None else self._subject_policy(identity, cache)
            self._put((Kind.SUBJECT_POLICY, number.to_bytes(4)), value)
        self._dirty_subjects.clear()
        for key in self._dirty_sets:
            term = self._terms_by_key.get(key) if self._named_by[key] else None
            members = None if term is None else tuple(sorted(self._index.members(term)))
            value_of_set = None if members is None else PeerSet(set_key=key, identities=members)
            self._put((Kind.PEER_SET, key), value_of_set)
        self._dirty_sets.clear()

    def _put(self, key: OutputKey, value: Output | None) -> None:
        old = self._now.get(key)
        if old == value:
            return
        self._before.setdefault(key, old)
        if value is None:
            del self._now[key]
        else:
            self._now[key] = value
        if isinstance(old, SubjectPolicy):
            self._count_names(old, -1)
        if isinstance(value, SubjectPolicy):
            self._count_names(value, 1)

    def _count_names(self, policy: SubjectPolicy, step: int) -> None:
        for key in _peer_sets_of(policy):
            self._named_by[key] += step
            self._dirty_sets.add(key)
            if not self._named_by[key]:
                del self._named_by[key]

    def _subject_policy(
        self, identity: Identity, cache: dict[tuple[object, ...], DirectionPolicy]
    ) -> SubjectPolicy:
        references = sorted(
            reference
            for term in self._index.terms(identity.id)
            for reference in self._selecting.get(term, ())
        )
        ports = identity.label_set.named_ports
        ingress = tuple(r for r in references if self._policies[r].applies_to_ingress)
        egress = tuple(r for r in references if self._policies[r].applies_to_egress)
        # Most subjects share their policies with others of the same flush.
        if (into := ("ingress", ingress, ports)) not in cache:
            cache[into] = direction(ingress, [self._ingress(r, ports) for r in ingress])
        if (out := ("egress", egress)) not in cache:
            cache[out] = direction(egress, [self._egress(r) for r in egress])
        return SubjectPolicy(identity=identity.id, ingress=cache[into], egress=cache[out])

    def _ingress(self, reference: str, ports: tuple[NamedPort, ...]) -> Part:
        installed = self._policies[reference]
        names = installed.own_names
        relevant = tuple(port for port in ports if (port.name, port.protocol) in names)
        if (part := installed.ingress_parts.get(relevant)) is None:
            found = (
                (number, rules.ingress_rule(template, relevant))
                for number, template in enumerate(installed.ingress)
            )
            said = tuple((number, rule) for number, rule in found if rule is not None)
            part = Part(installed.policy, installed.policy.isolates_ingress, said)
            installed.ingress_parts[relevant] = part
        return part

    def _egress(self, reference: str) -> Part:
        installed = self._policies[reference]
        if installed.egress_part is None:
            said = tuple(
                (number, rule)
                for number, template in enumerate(installed.egress)
                for rule in rules.egress_rules(template, self._inhabited_divisions)
            )
            policy = installed.policy
            installed.egress_part = Part(policy, policy.isolates_egress, said)
        return installed.egress_part

    def _inhabited_divisions(self, term: Term, name: PortName) -> Iterator[Term]:
        return (part for part in self._divisions(term, name) if self._index.members(part))


def _names(templates: tuple[Template, ...]) -> frozenset[PortName]:
    return frozenset(name for template in templates for name in template.port_names)


def _peer_sets_of(policy: SubjectPolicy) -> set[bytes]:
    directions = (policy.ingress, policy.egress)
    return {key for direction in directions for rule in direction.rules for key in rule.peer_sets}


def _drop(table: defaultdict[_K, set[str]], key: _K, reference: str) -> None:
    table[key].discard(reference)
    if not table[key]:
        del table[key]

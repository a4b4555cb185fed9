"""Terms: canonical selectors of identities, and the facts by which they are found."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from deltaplane.model.identity import NAMESPACE_NAME_LABEL, LabelSet
from deltaplane.model.ports import NamedPort
from deltaplane.model.selector import LabelSelector, Operator

KEY_SIZE = 16

Fact = tuple[str, ...]
"""Something true of a label set that can be looked up: its first word says what kind of fact."""

EVERYTHING: Fact = ("any",)
"""The fact that holds for every label set."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A label set with its labels as mappings: what terms are matched against."""

    label_set: LabelSet
    namespace_labels: Mapping[str, str]
    labels: Mapping[str, str]

    @classmethod
    def of(cls, label_set: LabelSet) -> "Candidate":
        """Unpacks a label set once."""
        return cls(label_set, dict(label_set.namespace_labels), dict(label_set.labels))


@dataclass(frozen=True)
class Term:
    """A canonical selector of identities. Equal terms have equal keys, whoever uses them.

    Attributes:
        namespace: only identities of this namespace; None: of those that `namespaces` matches.
        namespaces: selector over namespace labels.
        pods: selector over pod labels.
        named_port: only identities that declare exactly this port; None: no such condition.
    """

    namespace: str | None
    namespaces: LabelSelector
    pods: LabelSelector
    named_port: NamedPort | None = None

    def with_port(self, port: NamedPort) -> "Term":
        """The part of the term whose identities declare a port."""
        return replace(self, named_port=port)

    def matches(self, candidate: Candidate) -> bool:
        """Whether identities with a label set belong to the term."""
        label_set = candidate.label_set
        if self.namespace is not None and self.namespace != label_set.namespace:
            return False
        if self.named_port is not None and self.named_port not in label_set.named_ports:
            return False
        return self.namespaces.matches(candidate.namespace_labels) and self.pods.matches(
            candidate.labels
        )

    @property
    def matches_every_pod(self) -> bool:
        """Whether it matches whatever pod there may be."""
        # Every namespace carries the label of its name.
        named = all(
            requirement.key == NAMESPACE_NAME_LABEL and requirement.operator is Operator.EXISTS
            for requirement in self.namespaces.requirements
        )
        free = self.namespace is None and self.named_port is None
        return free and named and not self.pods.requirements

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        # Terms are keys of many sets; walking both selectors each time was most of a compilation.
        return hash((self.namespace, self.namespaces, self.pods, self.named_port))

    @cached_property
    def key(self) -> bytes:
        """The 16 bytes that name the term on the stream: a hash, the same on every replica."""
        port = self.named_port
        content = (
            self.namespace,
            list(_plain(self.namespaces)),
            list(_plain(self.pods)),
            None if port is None else (port.name, int(port.protocol), port.number),
        )
        text = json.dumps(content, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=KEY_SIZE).digest()

    @property
    def is_anchored(self) -> bool:
        """Whether what has a fact of each of the anchors matches, with nothing left to check."""
        return all(
            requirement.operator in (Operator.IN, Operator.EXISTS)
            for requirement in (*self.namespaces.requirements, *self.pods.requirements)
        )

    def anchors(self) -> Iterator[tuple[Fact, ...]]:
        """Alternatives for finding the term: whatever it matches has a fact of each of them."""
        namespace = self.namespace
        facts: tuple[Fact, ...]
        for requirement in self.pods.requirements:
            if requirement.operator is Operator.IN:
                facts = tuple((requirement.key, value) for value in requirement.values)
            elif requirement.operator is Operator.EXISTS:
                facts = ((requirement.key,),)
            else:
                # What is absent cannot be looked up.
                continue
            if namespace is None:
                yield tuple(("pod", *fact) for fact in facts)
            else:
                yield tuple(("in", namespace, *fact) for fact in facts)
        if namespace is not None:
            yield (("namespace", namespace),)
        for requirement in self.namespaces.requirements:
            if requirement.operator is Operator.IN:
                yield tuple(("label", requirement.key, value) for value in requirement.values)
            elif requirement.operator is Operator.EXISTS:
                yield (("label", requirement.key),)
        if self.named_port is not None:
            port = self.named_port
            yield (("port", port.name, port.protocol.name, str(port.number)),)
        yield (EVERYTHING,)


ANY_POD = Term(None, LabelSelector(), LabelSelector())
"""Every identity made of labels."""


def facts_of(label_set: LabelSet) -> Iterator[Fact]:
    """Every fact about a label set that an anchor may name."""
    namespace = label_set.namespace
    yield EVERYTHING
    yield ("namespace", namespace)
    for key, value in label_set.labels:
        yield ("pod", key)
        yield ("pod", key, value)
        yield ("in", namespace, key)
        yield ("in", namespace, key, value)
    for key, value in label_set.namespace_labels:
        yield ("label", key)
        yield ("label", key, value)
    # A port may be declared by several containers; the label set keeps it once.
    for port in label_set.named_ports:
        yield ("port", port.name, port.protocol.name, str(port.number))


def _plain(selector: LabelSelector) -> Iterator[tuple[str, str, list[str]]]:
    for requirement in selector.requirements:
        yield requirement.key, requirement.operator.value, list(requirement.values)

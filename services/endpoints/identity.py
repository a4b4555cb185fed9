"""From labels to identities: the filter, the canonical digest, the next numbers.

Two pods with equal label sets share an identity and with it their verdicts. Labels that differ from
replica to replica of one workload would give every pod its own, so the filter leaves them out.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deltaplane.errors import Exhausted
from deltaplane.model.identity import FIRST_IDENTITY, LabelSet
from services.endpoints.records import Pod

DEFAULT_EXCLUDES = (
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
    "controller-revision-hash",
    "apps.kubernetes.io/pod-index",
    "topology.kubernetes.io/*",
)
"""Labels that Kubernetes' own controllers put on single pods, replicas or places."""

LAST_IDENTITY = (1 << 31) - 1
"""The data path marks its local address classes with the highest bit."""


@dataclass(frozen=True, slots=True)
class LabelFilter:
    """Which pod labels are no part of an identity.

    Attributes:
        excludes: label keys; one that ends with '*' stands for every key with that beginning.
    """

    excludes: tuple[str, ...] = DEFAULT_EXCLUDES

    def keeps(self, key: str) -> bool:
        """Whether a label with this key is security-relevant."""
        return not any(
            key.startswith(pattern[:-1]) if pattern.endswith("*") else key == pattern
            for pattern in self.excludes
        )

    def label_set(self, pod: Pod, namespace_labels: Mapping[str, str]) -> LabelSet:
        """What the pod's identity stands for."""
        labels = {key: value for key, value in pod.labels if self.keeps(key)}
        return LabelSet.of(pod.namespace, namespace_labels, labels, pod.named_ports)


def digest(label_set: LabelSet) -> str:
    """64 hex digits that name a label set, whatever the order in which its parts were given.

    Each part carries its length and each list its count, so that no two sets have one encoding.
    """
    hasher = hashlib.blake2b(digest_size=32)

    def text(value: str) -> None:
        encoded = value.encode()
        hasher.update(len(encoded).to_bytes(4) + encoded)

    text(label_set.namespace)
    for pairs in (label_set.namespace_labels, label_set.labels):
        hasher.update(len(pairs).to_bytes(4))
        for key, value in pairs:
            text(key)
            text(value)
    hasher.update(len(label_set.named_ports).to_bytes(4))
    for port in label_set.named_ports:
        text(port.name)
        hasher.update(port.protocol.to_bytes(2) + port.number.to_bytes(2))
    return hasher.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Numbers for label sets.

    Attributes:
        numbers: by digest, for every digest that was asked for.
        fresh: digests whose number is new, in the order of their numbers.
        highest: the highest number given so far, these included.
    """

    numbers: Mapping[str, int]
    fresh: tuple[str, ...]
    highest: int


def assign(wanted: Sequence[str], known: Mapping[str, int], highest: int) -> Assignment:
    """Gives a number to each digest: its known one, else the next above the highest.

    Args:
        wanted: digests, repeats allowed.
        known: numbers of digests that have one.
        highest: the highest number given so far; 0 before the first.

    Raises:
        Exhausted: there is no number left.
    """
    numbers = {key: known[key] for key in wanted if key in known}
    fresh = tuple(dict.fromkeys(key for key in wanted if key not in known))
    first = max(highest + 1, FIRST_IDENTITY)
    if fresh and first + len(fresh) - 1 > LAST_IDENTITY:
        raise Exhausted(f"identity numbers end at {LAST_IDENTITY}; {highest} are given")
    numbers.update(zip(fresh, range(first, first + len(fresh)), strict=True))
    return Assignment(
        numbers=numbers, fresh=fresh, highest=first + len(fresh) - 1 if fresh else highest
    )

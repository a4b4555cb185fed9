"""Identities: numbers for sets of security-relevant labels."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from deltaplane.model.ports import NamedPort

FIRST_IDENTITY = 256
"""Numbers below are reserved."""

NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"
"""Label that every namespace carries; Kubernetes sets it to the namespace's name."""


class Reserved(enum.IntEnum):
    """Identities that are not made of labels. Twin: enum dp_identity in bpf/include/abi.h."""

    NONE = 0
    HOST = 1
    WORLD = 2
    OTHER_POD = 3
    UNKNOWN = 4
    INIT = 5
    HEALTH = 6
    REMOTE_NODE = 7
    KUBE_APISERVER = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """What an identity stands for: two pods with the same LabelSet share an identity.

    Attributes:
        namespace: namespace name.
        namespace_labels: ascending (key, value); NAMESPACE_NAME_LABEL included.
        labels: ascending (key, value) of the pod after the configured filter.
        named_ports: ascending.
    """

    namespace: str
    namespace_labels: tuple[tuple[str, str], ...] = field(default=())
    labels: tuple[tuple[str, str], ...] = field(default=())
    named_ports: tuple[NamedPort, ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "namespace_labels", tuple(sorted(self.namespace_labels)))
        object.__setattr__(self, "labels", tuple(sorted(self.labels)))
        object.__setattr__(self, "named_ports", tuple(sorted(set(self.named_ports))))

    @classmethod
    def of(
        cls,
        namespace: str,
        namespace_labels: Mapping[str, str],
        labels: Mapping[str, str],
        named_ports: tuple[NamedPort, ...] = (),
    ) -> "LabelSet":
        """Builds one from mappings and adds NAMESPACE_NAME_LABEL."""
        return cls(
            namespace=namespace,
            namespace_labels=tuple({**namespace_labels, NAMESPACE_NAME_LABEL: namespace}.items()),
            labels=tuple(labels.items()),
            named_ports=named_ports,
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """A number, 256 or more, and what it stands for."""

    id: int
    label_set: LabelSet

    def __post_init__(self) -> None:
        if not FIRST_IDENTITY <= self.id < 1 << 32:
            message = f"identity {self.id} is outside {FIRST_IDENTITY}..2^32-1"
            raise ValueError(message)

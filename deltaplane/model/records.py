"""Namespaces and pods as the registry keeps them, whoever writes them: a lab or the bridge."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deltaplane.model.annotations import PREFIX
from deltaplane.model.ports import NamedPort


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceRecord:
    """A namespace, as far as policies and addressing need it.

    Attributes:
        annotations: ours only.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRecord:
    """A pod, as far as policies and addressing need it.

    Attributes:
        uid: of this instance, as the container runtime hands it to the CNI.
        node: name of the node that it is bound to.
        labels: all of them.
        annotations: ours only.
        named_ports: ascending, each once; part of the identity.
    """

    namespace: str
    name: str
    uid: str
    node: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    named_ports: tuple[NamedPort, ...] = ()


def own(annotations: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The annotations that are ours: the registry keeps no others."""
    return {key: value for key, value in annotations if key.startswith(PREFIX)}


def ordered(ports: Iterable[NamedPort]) -> tuple[NamedPort, ...]:
    """Ascending, each once: two containers may serve one port in turns."""
    return tuple(sorted(set(ports)))

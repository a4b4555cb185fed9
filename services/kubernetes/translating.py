"""Objects of Kubernetes → what the registry should hold for them. Pure.

The rules of a kind are those by which `deltaplane.manifest` reads the same object from a file; for
pods and endpoint slices, of which there are tens of thousands, they are applied to decoded structs
(`pods.py`, `slices.py`), and tests hold the two readings against each other.
"""

import enum
from dataclasses import dataclass

from deltaplane.manifest import GeneralPolicyManifest, ServiceManifest
from deltaplane.model import annotations as known
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.records import NamespaceRecord, PodRecord, own
from deltaplane.model.service import EndpointSlice
from services.kubernetes import kinds

Record = (
    NamespaceRecord
    | PodRecord
    | ServiceManifest
    | EndpointSlice
    | NetworkPolicy
    | GeneralPolicyManifest
)


class Mode(enum.Enum):
    """When a record is written."""

    ALWAYS = "always"
    IF_ABSENT = "if absent"
    """What the registry holds already stays."""
    IF_PRESENT = "if present"
    """Nothing is written where the registry holds nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """What becomes of one object.

    Attributes:
        record: what the registry should hold; None: nothing, but with IF_ABSENT whatever it holds.
        problem: why the object cannot be programmed as it is; "": it can.
        mode: when the record is written.
    """

    record: Record | None = None
    problem: str = ""
    mode: Mode = Mode.ALWAYS


NOTHING = Translation()
"""The registry should hold nothing of the object."""
UNTOUCHED = Translation(mode=Mode.IF_ABSENT)
"""What the registry holds of the object is somebody else's to write."""


def failed(problem: str, standin: Record | None = None) -> Translation:
    """What the registry holds stays; a stand-in, if there is one, where it holds nothing."""
    return Translation(record=standin, problem=problem, mode=Mode.IF_ABSENT)


def translate_namespace(item: kinds.Namespace) -> Translation:
    """A namespace. Annotations that ask for what is not possible are left out: labels go on."""
    metadata = item.metadata
    annotations = own(metadata.annotations.items())
    problem = annotation_problem(annotations, of_namespace=True)
    record = NamespaceRecord(
        name=metadata.name, labels=metadata.labels, annotations={} if problem else annotations
    )
    return Translation(record=record, problem=problem)


def annotation_problem(annotations: dict[str, str], *, of_namespace: bool = False) -> str:
    """What is wrong with annotations of ours; "": nothing."""
    for key, text in annotations.items():
        if reason := known.mistake(key, text, of_namespace=of_namespace):
            return f'metadata.annotations[{key}]: "{text}" {reason}'
    return ""

"""What happens to the objects of a kind, as its followers are told."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from services.kubernetes.api.types import HasMetadata, Key

K_co = TypeVar("K_co", bound=HasMetadata, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced(Generic[K_co]):
    """All objects there are; what is not among them is gone.

    Attributes:
        objects: by key.
        unreadable: objects that exist and could not be decoded: why, by key.
        resource_version: of the list; empty where the kind is not there.
        served: False: the API server does not know the kind, so there are no objects.
    """

    objects: dict[Key, K_co]
    unreadable: dict[Key, str] = field(default_factory=dict)
    resource_version: str = ""
    served: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Upserted(Generic[K_co]):
    """An object was made or changed."""

    object: K_co

    @property
    def key(self) -> Key:
        """Of the object."""
        return self.object.metadata.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed(Generic[K_co]):
    """An object is gone; `last` is what it was, None if that could not be decoded."""

    key: Key
    last: K_co | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """An object was made or changed, and could not be decoded: it exists, we do not know what."""

    key: Key
    reason: str


Event = Replaced[K_co] | Upserted[K_co] | Removed[K_co] | Unreadable

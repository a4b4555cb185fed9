"""The parts of Kubernetes objects that all kinds share, decoded from raw JSON.

Only the fields that we read are declared: what is not named costs a skip. `gc=False` where no cycle
is possible: the collector then does not walk 20,000 pods again and again.
"""

from typing import Any, Protocol

import msgspec

Key = str
"""Of an object within its kind: "namespace/name", or "name" where there are no namespaces."""

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
"""Annotation of the bookmark that ends the initial events of a streaming list; value "true"."""


UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What bytes raise that are not the JSON which is expected; the last: nested by the thousand."""


class ApiStruct(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    gc=False,
    rename="camel",
    omit_defaults=True,
):
    """Base of everything that comes from the API; the kinds of the bridge derive from it, too."""


class OwnerReference(ApiStruct, frozen=True, kw_only=True, gc=False):
    """Who made an object."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class ObjectMeta(ApiStruct, frozen=True, kw_only=True, gc=False):
    """What all objects have in common.

    Attributes:
        namespace: empty for kinds without namespaces.
        resource_version: opaque; compared for equality only.
        deletion_timestamp: RFC 3339; None while nobody has asked to delete the object.
        generation: of the wish (spec); 0 where the kind has none.
    """

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()

    @property
    def key(self) -> Key:
        """Names the object within its kind."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Identified(Protocol):
    """The least that followers need of metadata."""

    @property
    def key(self) -> Key:
        """Names the object within its kind."""
        ...

    @property
    def resource_version(self) -> str:
        """Opaque; compared for equality only."""
        ...


class HasMetadata(Protocol):
    """An object of the API, or what a decoder made of one."""

    @property
    def metadata(self) -> Identified:
        """What all objects have in common."""
        ...


class Partial(ApiStruct, frozen=True, kw_only=True, gc=False):
    """An object of which only the metadata matters."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)


class ListMeta(ApiStruct, frozen=True, kw_only=True, gc=False):
    """Of a list.

    Attributes:
        resource_version: the state that the list shows; a watch may start there.
        continue_: token of the next chunk; empty at the end.
    """

    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class RawList(ApiStruct, frozen=True, kw_only=True, gc=False):
    """A list whose items are not decoded yet: one bad object must not cost the others."""

    metadata: ListMeta = msgspec.field(default_factory=ListMeta)
    items: list[msgspec.Raw] | None = None


class RawEvent(ApiStruct, frozen=True, kw_only=True, gc=False):
    """A line of a watch.

    Attributes:
        type: ADDED, MODIFIED, DELETED, BOOKMARK or ERROR.
        object: an object of the kind, for ERROR a Status.
    """

    type: str
    object: msgspec.Raw


class StatusDetails(ApiStruct, frozen=True, kw_only=True, gc=False):
    """More about a Status."""

    retry_after_seconds: int = 0


class Status(ApiStruct, frozen=True, kw_only=True, gc=False):
    """Why a request failed.

    Attributes:
        code: of HTTP; 0 when the body was no Status.
        reason: a word for machines, for example "Expired".
    """

    code: int = 0
    reason: str = ""
    message: str = ""
    details: StatusDetails | None = None


class LeaseSpec(ApiStruct, frozen=True, kw_only=True, gc=False):
    """Who leads. The times are RFC 3339 with microseconds, of the writer's clock: never compared.

    Attributes:
        holder_identity: None or empty: nobody.
        lease_duration_seconds: how long others wait after they last saw a change.
        lease_transitions: how often the holder has changed.
    """

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(ApiStruct, frozen=True, kw_only=True, gc=False):
    """A record that one of several processes holds."""

    metadata: ObjectMeta
    spec: LeaseSpec = msgspec.field(default_factory=LeaseSpec)


Body = dict[str, Any]
"""A request as JSON."""

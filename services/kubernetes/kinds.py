"""The kinds that the bridge watches, and the fields of them that it reads.

Other fields are skipped while decoding: of a pod that is most of it. Policies and services keep
their spec as plain values: `deltaplane.manifest` knows every field of these.

An absent list and null mean the same to the API; where it may say null, both are None here.
"""

import enum
from typing import Annotated, Any

import msgspec

from services.kubernetes.api import resource as resources
from services.kubernetes.api.resource import Resource
from services.kubernetes.api.types import ApiStruct, Key

JsonObject = dict[str, Any]

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
"""Another number is none: the object is unreadable."""


class Metadata(ApiStruct, frozen=True, kw_only=True, gc=False):
    """What is read of all objects: less than a client reads of what it writes.

    Attributes:
        namespace: "" for kinds that live in none.
        resource_version: opaque.
    """

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Names the object within its kind."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Condition(ApiStruct, frozen=True, kw_only=True, gc=False):
    """A condition of a node or pod. status: "True", "False" or "Unknown"."""

    type: str
    status: str


class NodeStatus(ApiStruct, frozen=True, kw_only=True, gc=False):
    """Of a node."""

    conditions: list[Condition] | None = None


class Node(ApiStruct, frozen=True, kw_only=True, gc=False):
    """v1 Node."""

    metadata: Metadata
    status: NodeStatus | None = None


class Namespace(ApiStruct, frozen=True, kw_only=True, gc=False):
    """v1 Namespace."""

    metadata: Metadata


class ContainerPort(ApiStruct, frozen=True, kw_only=True, gc=False):
    """Of a container."""

    container_port: Port
    name: str = ""
    protocol: str = "TCP"


class Container(ApiStruct, frozen=True, kw_only=True, gc=False):
    """Of a pod. restart_policy: "Always" makes a sidecar of an init container."""

    ports: list[ContainerPort] | None = None
    restart_policy: str | None = None


class ReadinessGate(ApiStruct, frozen=True, kw_only=True, gc=False):
    """Of a pod."""

    condition_type: str


class PodSpec(ApiStruct, frozen=True, kw_only=True, gc=False):
    """Of a pod. node_name: "" before it is scheduled."""

    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    node_name: str = ""
    host_network: bool = False
    readiness_gates: list[ReadinessGate] | None = None


class PodStatus(ApiStruct, frozen=True, kw_only=True, gc=False):
    """Of a pod."""

    phase: str = ""
    conditions: list[Condition] | None = None


class Pod(ApiStruct, frozen=True, kw_only=True, gc=False):
    """v1 Pod."""

    metadata: Metadata
    spec: PodSpec
    status: PodStatus | None = None


class EndpointConditions(ApiStruct, frozen=True, kw_only=True, gc=False):
    """Of an endpoint; what they default to is `services.kubernetes.slices` to say."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Named(ApiStruct, frozen=True, kw_only=True, gc=False):
    """A zone or node of a hint."""

    name: str


class Hints(ApiStruct, frozen=True, kw_only=True, gc=False):
    """Of an endpoint."""

    for_zones: list[Named] | None = None
    for_nodes: list[Named] | None = None


class TargetReference(ApiStruct, frozen=True, kw_only=True, gc=False):
    """What an endpoint is."""

    kind: str = ""
    namespace: str = ""
    name: str = ""


class SliceEndpoint(ApiStruct, frozen=True, kw_only=True, gc=False):
    """Of an endpoint slice."""

    addresses: list[str]
    conditions: EndpointConditions | None = None
    hostname: str | None = None
    node_name: str | None = None
    hints: Hints | None = None
    target_ref: TargetReference | None = None


class SlicePort(ApiStruct, frozen=True, kw_only=True, gc=False):
    """Of an endpoint slice. port: None: every port."""

    name: str | None = None
    protocol: str | None = None
    port: Port | None = None


class EndpointSlice(ApiStruct, frozen=True, kw_only=True, gc=False):
    """discovery.k8s.io/v1 EndpointSlice."""

    metadata: Metadata
    address_type: str
    endpoints: list[SliceEndpoint] | None = None
    ports: list[SlicePort] | None = None


class Service(ApiStruct, frozen=True, kw_only=True):
    """v1 Service."""

    metadata: Metadata
    spec: JsonObject | None = None
    status: JsonObject | None = None


class Policy(ApiStruct, frozen=True, kw_only=True):
    """A policy of any kind. specs: only of Cilium's."""

    metadata: Metadata
    spec: JsonObject | None = None
    specs: list[JsonObject] | None = None


Object = Node | Namespace | Pod | EndpointSlice | Service | Policy


class Kind(enum.Enum):
    """A watched kind.

    Attributes:
        resource: where it is served.
        type: what an object is decoded to.
    """

    NODE = (resources.NODES, Node)
    NAMESPACE = (resources.NAMESPACES, Namespace)
    POD = (resources.PODS, Pod)
    SERVICE = (resources.SERVICES, Service)
    ENDPOINT_SLICE = (resources.ENDPOINT_SLICES, EndpointSlice)
    NETWORK_POLICY = (resources.NETWORK_POLICIES, Policy)
    CILIUM = (resources.CILIUM_NETWORK_POLICIES, Policy)
    CILIUM_CLUSTERWIDE = (resources.CILIUM_CLUSTERWIDE_NETWORK_POLICIES, Policy)
    CLUSTER = (resources.CLUSTER_NETWORK_POLICIES, Policy)
    ADMIN = (resources.ADMIN_NETWORK_POLICIES, Policy)
    BASELINE_ADMIN = (resources.BASELINE_ADMIN_NETWORK_POLICIES, Policy)

    def __init__(self, resource: Resource, decoded: type[Object]) -> None:
        self.resource = resource
        self.type = decoded

    @property
    def word(self) -> str:
        """As in the field `kind` of an object."""
        return self.resource.kind

    @property
    def is_policy(self) -> bool:
        """Whether it is a kind of policy."""
        return self.type is Policy

    @property
    def is_optional(self) -> bool:
        """Whether a server may lack it: it comes with a custom resource definition."""
        return self.is_policy and self is not Kind.NETWORK_POLICY


POLICIES = tuple(kind for kind in Kind if kind.is_policy)

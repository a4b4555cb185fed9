"""What a manifest says, as far as the network is concerned."""

import enum
from dataclasses import dataclass, field

from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.ports import NamedPort, Protocol
from deltaplane.model.service import EndpointSlice, Service
from deltaplane.model.tiers import Policy

Pairs = tuple[tuple[str, str], ...]
"""Labels or annotations: ascending (key, value)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceManifest:
    """A Namespace, with the labels that the manifest gives it."""

    name: str
    labels: Pairs = ()
    annotations: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPort:
    """A port that a container serves. name: None when it has none; number: 1..65535."""

    number: int
    protocol: Protocol = Protocol.TCP
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTemplate:
    """What the pods of a deployment have in common.

    Attributes:
        labels: of each pod.
        annotations: of each pod.
        node_name: node that the pods are bound to; None: any.
        host_network: the pods share their node's network: no address, no policy.
        ports: of all containers that stay, in the order of the manifest.
        hostname: name of each pod to itself, and to DNS below its subdomain; "": the pod's name.
        subdomain: name of the service below which DNS knows the pods; "": none.
    """

    labels: Pairs = ()
    annotations: Pairs = ()
    node_name: str | None = None
    host_network: bool = False
    ports: tuple[ContainerPort, ...] = field(default=())
    hostname: str = ""
    subdomain: str = ""

    @property
    def named_ports(self) -> tuple[NamedPort, ...]:
        """The ports that have a name, ascending, each once."""
        named = {
            NamedPort(port.name, port.protocol, port.number) for port in self.ports if port.name
        }
        return tuple(sorted(named))


@dataclass(frozen=True, slots=True, kw_only=True)
class PodManifest(PodTemplate):
    """A Pod."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentManifest:
    """A Deployment. replicas: 0 or more."""

    namespace: str
    name: str
    replicas: int
    template: PodTemplate


@dataclass(frozen=True, slots=True, kw_only=True)
class StatefulSetManifest:
    """A StatefulSet: its pods have names that stay.

    Attributes:
        replicas: 0 or more.
        first: number of the first pod, 0 or more.
        template: what the pods have in common; its subdomain is spec.serviceName.
    """

    namespace: str
    name: str
    replicas: int
    first: int = 0
    template: PodTemplate


class FamilyPolicy(enum.StrEnum):
    """Values of ipFamilyPolicy; without one a new service has one family."""

    ABSENT = ""
    SINGLE_STACK = "SingleStack"
    PREFER_DUAL_STACK = "PreferDualStack"
    REQUIRE_DUAL_STACK = "RequireDualStack"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceManifest:
    """A Service, defaults filled in.

    Attributes:
        service: what is asked for; addresses and ports that are to be chosen are absent or 0.
        headless: it has no cluster address and wants none.
        families: 4, 6 or both, the primary first; empty: as the policy says.
        family_policy: how many families it wants.
    """

    service: Service
    headless: bool = False
    families: tuple[int, ...] = ()
    family_policy: FamilyPolicy = FamilyPolicy.ABSENT

    @property
    def namespace(self) -> str:
        """Where the service lives."""
        return self.service.namespace

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSliceManifest:
    """An EndpointSlice. slice.service: "" only where mistakes are warnings."""

    slice: EndpointSlice

    @property
    def namespace(self) -> str:
        """Where the slice lives."""
        return self.slice.namespace

    @property
    def name(self) -> str:
        """The slice's name."""
        return self.slice.name


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyManifest:
    """A NetworkPolicy, policyTypes defaulted."""

    policy: NetworkPolicy

    @property
    def namespace(self) -> str:
        """Where the policy lives."""
        return self.policy.namespace

    @property
    def name(self) -> str:
        """The policy's name."""
        return self.policy.name


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralPolicyManifest:
    """A policy of another kind than NetworkPolicy.

    Attributes:
        policy: what it means.
        spec: how it was written, for people: JSON of the field spec, or an array where the kind
            has the field specs and that was used.
    """

    policy: Policy
    spec: str

    @property
    def namespace(self) -> str:
        """Where the policy lives; empty for kinds that live in none."""
        return self.policy.namespace

    @property
    def name(self) -> str:
        """The policy's name."""
        return self.policy.name


Manifest = (
    NamespaceManifest
    | PodManifest
    | DeploymentManifest
    | StatefulSetManifest
    | ServiceManifest
    | EndpointSliceManifest
    | PolicyManifest
    | GeneralPolicyManifest
)

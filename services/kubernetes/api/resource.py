"""Where the objects of a kind live: group, version, plural, and the paths made of them."""

import re
from dataclasses import dataclass
from urllib.parse import quote

from deltaplane.errors import Invalid

_PLURAL = re.compile(r"[a-z][a-z0-9-]*")
_VERSION = re.compile(r"v[0-9]+((alpha|beta)[0-9]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A resource type of the API.

    Attributes:
        group: API group; empty for the core group.
        version: for example "v1" or "v1alpha2".
        plural: name in paths, for example "networkpolicies".
        kind: name in objects, for example "NetworkPolicy".
        namespaced: its objects live in namespaces.
        custom: defined in the cluster: a server may not have it.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    custom: bool = False

    def __post_init__(self) -> None:
        if not _VERSION.fullmatch(self.version):
            raise Invalid("version", f"{self.version!r} must look like v1 or v1alpha2")
        if not _PLURAL.fullmatch(self.plural):
            raise Invalid("plural", f"{self.plural!r} must be a lower case name")

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """As objects have it: "v1" or "networking.k8s.io/v1"."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def collection(self, namespace: str = "") -> str:
        """The path of all objects, of one namespace if it is given."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if not namespace:
            return f"{root}/{self.plural}"
        if not self.namespaced:
            raise Invalid("namespace", f"{self} have none; leave it out")
        return f"{root}/namespaces/{quote(namespace, safe='')}/{self.plural}"

    def item(self, name: str, namespace: str = "", *, subresource: str = "") -> str:
        """The path of one object, or of a subresource of it.

        Raises:
            Invalid: no name, or the namespace is missing or too much.
        """
        if not name:
            raise Invalid("name", "must not be empty")
        if self.namespaced and not namespace:
            raise Invalid("namespace", f"one of {self} needs it")
        path = f"{self.collection(namespace)}/{quote(name, safe='')}"
        return f"{path}/{subresource}" if subresource else path


NODES = Resource(group="", version="v1", plural="nodes", kind="Node", namespaced=False)
NAMESPACES = Resource(
    group="", version="v1", plural="namespaces", kind="Namespace", namespaced=False
)
PODS = Resource(group="", version="v1", plural="pods", kind="Pod", namespaced=True)
SERVICES = Resource(group="", version="v1", plural="services", kind="Service", namespaced=True)
ENDPOINT_SLICES = Resource(
    group="discovery.k8s.io",
    version="v1",
    plural="endpointslices",
    kind="EndpointSlice",
    namespaced=True,
)
NETWORK_POLICIES = Resource(
    group="networking.k8s.io",
    version="v1",
    plural="networkpolicies",
    kind="NetworkPolicy",
    namespaced=True,
)
CILIUM_NETWORK_POLICIES = Resource(
    group="cilium.io",
    version="v2",
    plural="ciliumnetworkpolicies",
    kind="CiliumNetworkPolicy",
    namespaced=True,
    custom=True,
)
CILIUM_CLUSTERWIDE_NETWORK_POLICIES = Resource(
    group="cilium.io",
    version="v2",
    plural="ciliumclusterwidenetworkpolicies",
    kind="CiliumClusterwideNetworkPolicy",
    namespaced=False,
    custom=True,
)
CLUSTER_NETWORK_POLICIES = Resource(
    group="policy.networking.k8s.io",
    version="v1alpha2",
    plural="clusternetworkpolicies",
    kind="ClusterNetworkPolicy",
    namespaced=False,
    custom=True,
)
ADMIN_NETWORK_POLICIES = Resource(
    group="policy.networking.k8s.io",
    version="v1alpha1",
    plural="adminnetworkpolicies",
    kind="AdminNetworkPolicy",
    namespaced=False,
    custom=True,
)
BASELINE_ADMIN_NETWORK_POLICIES = Resource(
    group="policy.networking.k8s.io",
    version="v1alpha1",
    plural="baselineadminnetworkpolicies",
    kind="BaselineAdminNetworkPolicy",
    namespaced=False,
    custom=True,
)
EVENTS = Resource(
    group="events.k8s.io", version="v1", plural="events", kind="Event", namespaced=True
)
LEASES = Resource(
    group="coordination.k8s.io", version="v1", plural="leases", kind="Lease", namespaced=True
)
CERTIFICATE_REQUESTS = Resource(
    group="certificates.k8s.io",
    version="v1",
    plural="certificatesigningrequests",
    kind="CertificateSigningRequest",
    namespaced=False,
)
SIGNERS = Resource(
    group="certificates.k8s.io", version="v1", plural="signers", kind="Signer", namespaced=False
)
"""Nothing that is stored: whose requests one may approve and sign."""

WATCHED = (
    NODES,
    NAMESPACES,
    PODS,
    SERVICES,
    ENDPOINT_SLICES,
    NETWORK_POLICIES,
    CILIUM_NETWORK_POLICIES,
    CILIUM_CLUSTERWIDE_NETWORK_POLICIES,
    CLUSTER_NETWORK_POLICIES,
    ADMIN_NETWORK_POLICIES,
    BASELINE_ADMIN_NETWORK_POLICIES,
)
"""What the bridge mirrors: a watch each, whatever the number of nodes."""

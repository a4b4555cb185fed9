"""The layout of etcd.

Everything the slicer derives from lies below STATE, so that one watch sees it in revision order.
What only the services need lies below REGISTRY.
"""

from deltaplane.model.addresses import Prefix, format_address
from deltaplane.model.tiers import PolicyKind

ROOT = "/deltaplane/v1/"
LINEAGE = ROOT + "lineage"
RESTORED = ROOT + "restored"
"""What the last `deltaplane restore finish` has written; absent before the first."""

STATE = ROOT + "state/"
NODES = STATE + "nodes/"
BLOCKS = STATE + "blocks/"
IDENTITIES = STATE + "identities/"
ENDPOINTS = STATE + "endpoints/"
POLICIES = STATE + "policies/"
POOLS = STATE + "pools/"
FENCES = STATE + "fences/"
SERVICES = STATE + "services/"
ENDPOINT_SLICES = STATE + "endpoint-slices/"

REGISTRY = ROOT + "registry/"
NAMESPACES = REGISTRY + "namespaces/"
PODS = REGISTRY + "pods/"
NODE_ENDPOINTS = REGISTRY + "node-endpoints/"
ADDRESSES = REGISTRY + "addresses/"
LABEL_SETS = REGISTRY + "label-sets/"
BLOCK_REQUESTS = REGISTRY + "block-requests/"
RELEASED_ENDPOINTS = REGISTRY + "released-endpoints/"
"""Lease keys: endpoint numbers that were released a short while ago."""
FREED_BLOCKS = REGISTRY + "freed-blocks/"
FIXED_ADDRESSES = REGISTRY + "fixed-addresses/"
IDENTITY_COUNTER = REGISTRY + "counters/identity"
"""Value: the highest identity number given so far (decimal); absent before the first."""
NODE_COUNTER = REGISTRY + "counters/node"
"""Value: the highest node index given so far (decimal); absent before the first."""
SERVICE_COUNTER = REGISTRY + "counters/service"
"""Value: the highest service number given so far (decimal); absent before the first."""
CLUSTER_IPS = REGISTRY + "cluster-ips/"
NODE_PORTS = REGISTRY + "node-ports/"
POOL_COUNTER = REGISTRY + "counters/pools"
"""Written whenever a pool comes, grows or goes: two that overlap never come side by side."""
FIXED_COUNTER = REGISTRY + "counters/fixed-addresses"
"""Written with every address that is claimed alone, so that they never exceed their limit."""

SLICERS = ROOT + "slicers/"
"""Lease keys of the slicer replicas."""

CHECKPOINTS = ROOT + "checkpoints"
"""Revisions of the last minutes and when they were: where a slicer that starts begins its view."""

PROGRESS = ROOT + "progress/"
COVERAGE = PROGRESS + "coverage/"
"""Lease keys of the slicer replicas: which nodes have passed which revision; see docs/design."""
WATERMARK = PROGRESS + "watermark"
FENCE_EPOCH = PROGRESS + "fence-epoch"
"""Written whenever a fence goes: no watermark is computed from a view that still has it."""
JOINS = PROGRESS + "joins"
"""Written whenever a replica begins to cover a node: no fence comes for a node that is back."""


def node(name: str) -> str:
    """Record: deltaplane.v1.Node."""
    return f"{NODES}{name}"


def block(prefix: Prefix) -> str:
    """Record: deltaplane.v1.Block."""
    return f"{BLOCKS}{format_address(prefix.address)}-{prefix.length}"


def identity(number: int) -> str:
    """Record: deltaplane.v1.Identity. Ten digits, so that key order is number order."""
    return f"{IDENTITIES}{number:010d}"


def endpoint(namespace: str, pod: str, node_name: str, number: int) -> str:
    """Record: deltaplane.v1.Endpoint. Namespace and pod come first: label changes read by pod."""
    return f"{ENDPOINTS}{namespace}/{pod}/{node_name}/{number}"


def endpoints_of(namespace: str, pod: str = "") -> str:
    """Prefix of the endpoint keys of a pod, or of a namespace."""
    return f"{ENDPOINTS}{namespace}/{pod}/" if pod else f"{ENDPOINTS}{namespace}/"


def node_endpoint(node_name: str, number: int) -> str:
    """Value: the key of the node's endpoint with this number (UTF-8). It lives as long as that."""
    return f"{NODE_ENDPOINTS}{node_name}/{number}"


def endpoints_of_node(node_name: str) -> str:
    """Prefix of the node_endpoint keys of a node."""
    return f"{NODE_ENDPOINTS}{node_name}/"


def released_endpoint(node_name: str, number: int) -> str:
    """Value: the index that the node had (decimal). Whoever registers the number comes too late."""
    return f"{RELEASED_ENDPOINTS}{node_name}/{number}"


def policy(namespace: str, name: str, kind: str = PolicyKind.NETWORK_POLICY) -> str:
    """Record: deltaplane.v1.NetworkPolicy, or deltaplane.v1.Policy of any other kind.

    A name has no colon, so kinds never meet. Policies that live in no namespace lie in that of
    the empty name.
    """
    leaf = name if kind == PolicyKind.NETWORK_POLICY else f"{kind}:{name}"
    return f"{POLICIES}{namespace}/{leaf}"


def policies_of(namespace_name: str) -> str:
    """Prefix of the policy keys of a namespace, of all kinds; "": of those that live in none."""
    return f"{POLICIES}{namespace_name}/"


def parse_policy(key: str) -> tuple[str, str, str] | None:
    """Kind, namespace and name in a policy key; None: it has not the form of one."""
    namespace, slash, leaf = key.removeprefix(POLICIES).partition("/")
    kind, colon, name = leaf.partition(":")
    if not slash:
        return None
    return (kind, namespace, name) if colon else (PolicyKind.NETWORK_POLICY, namespace, leaf)


def namespace(name: str) -> str:
    """Record: deltaplane.v1.Namespace."""
    return f"{NAMESPACES}{name}"


def pod(namespace_name: str, name: str) -> str:
    """Record: deltaplane.v1.Pod."""
    return f"{PODS}{namespace_name}/{name}"


def pods_of(namespace_name: str) -> str:
    """Prefix of the pod keys of a namespace."""
    return f"{PODS}{namespace_name}/"


def pool(name: str) -> str:
    """Record: deltaplane.v1.Pool."""
    return f"{POOLS}{name}"


def address(value: bytes) -> str:
    """Value: the key of the endpoint that holds the address (UTF-8)."""
    return f"{ADDRESSES}{format_address(value)}"


def label_set(digest_hex: str) -> str:
    """Value: the identity number (decimal) of the label set with this digest."""
    return f"{LABEL_SETS}{digest_hex}"


def fence(node_name: str) -> str:
    """Record: deltaplane.v1.Fence."""
    return f"{FENCES}{node_name}"


def coverage(server_id: str) -> str:
    """What one slicer replica vouches for; lives as long as its lease."""
    return f"{COVERAGE}{server_id}"


def freed_block(prefix: Prefix) -> str:
    """Says that a block was owned once: its mod revision is when it was given back."""
    return f"{FREED_BLOCKS}{format_address(prefix.address)}-{prefix.length}"


def freed_of(block_key: str) -> str:
    """The same, from the key of the block: the text of an IPv6 address takes a while to make."""
    return FREED_BLOCKS + block_key.removeprefix(BLOCKS)


def fixed_address(value: bytes) -> str:
    """Value: the key of the block of one address (UTF-8). It lives as long as that."""
    return f"{FIXED_ADDRESSES}{format_address(value)}"


def block_request(node_uid: str, request_id: str) -> str:
    """Value: the key of the block that the request got."""
    return f"{BLOCK_REQUESTS}{node_uid}/{request_id}"


def service(namespace_name: str, name: str) -> str:
    """Record: deltaplane.v1.Service."""
    return f"{SERVICES}{namespace_name}/{name}"


def services_of(namespace_name: str) -> str:
    """Prefix of the service keys of a namespace."""
    return f"{SERVICES}{namespace_name}/"


def endpoint_slice(namespace_name: str, name: str) -> str:
    """Record: deltaplane.v1.EndpointSlice."""
    return f"{ENDPOINT_SLICES}{namespace_name}/{name}"


def endpoint_slices_of(namespace_name: str) -> str:
    """Prefix of the endpoint slice keys of a namespace."""
    return f"{ENDPOINT_SLICES}{namespace_name}/"


def cluster_ip(value: bytes) -> str:
    """Value: the key of the service that has the address (UTF-8). It lives as long as that."""
    return f"{CLUSTER_IPS}{format_address(value)}"


def node_port(number: int) -> str:
    """Value: the key of the service that has the node port, in whatever protocols (UTF-8)."""
    return f"{NODE_PORTS}{number}"

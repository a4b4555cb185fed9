"""The layout of etcd.

Everything the slicer derives from lies below STATE, so that one watch sees it in revision order.
What only
the services need lies below REGISTRY.
"""

from deltaplane.model.addresses import Prefix, format_address

ROOT = "/deltaplane/v1/"
LINEAGE = ROOT + "lineage"

STATE = ROOT + "state/"
NODES = STATE + "nodes/"
BLOCKS = STATE + "blocks/"
IDENTITIES = STATE + "identities/"
ENDPOINTS = STATE + "endpoints/"
POLICIES = STATE + "policies/"

REGISTRY = ROOT + "registry/"
NAMESPACES = REGISTRY + "namespaces/"
PODS = REGISTRY + "pods/"
POOLS = REGISTRY + "pools/"
ADDRESSES = REGISTRY + "addresses/"
LABEL_SETS = REGISTRY + "label-sets/"
BLOCK_REQUESTS = REGISTRY + "block-requests/"
IDENTITY_COUNTER = REGISTRY + "counters/identity"
NODE_COUNTER = REGISTRY + "counters/node"

SLICERS = ROOT + "slicers/"
"""Lease keys of the slicer replicas."""


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


def policy(namespace: str, name: str) -> str:
    """Record: deltaplane.v1.NetworkPolicy."""
    return f"{POLICIES}{namespace}/{name}"


def namespace(name: str) -> str:
    """Record: deltaplane.v1.Namespace."""
    return f"{NAMESPACES}{name}"


def pod(namespace_name: str, name: str) -> str:
    """Record: deltaplane.v1.Pod."""
    return f"{PODS}{namespace_name}/{name}"


def pool(name: str) -> str:
    """Record: deltaplane.v1.Pool."""
    return f"{POOLS}{name}"


def address(value: bytes) -> str:
    """Value: the key of the endpoint that holds the address (UTF-8)."""
    return f"{ADDRESSES}{format_address(value)}"


def label_set(digest_hex: str) -> str:
    """Value: the identity number (decimal) of the label set with this digest."""
    return f"{LABEL_SETS}{digest_hex}"


def block_request(node_uid: str, request_id: str) -> str:
    """Value: the key of the block that the request got."""
    return f"{BLOCK_REQUESTS}{node_uid}/{request_id}"

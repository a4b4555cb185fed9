"""Requests that the services take: what a fuzzer changes to get past the first check."""

from collections.abc import Mapping
from pathlib import Path

from google.protobuf import text_format
from google.protobuf.message import Message

from deltaplane import manifest, policywire, recordwire, servicewire, wire
from deltaplane.manifest.objects import (
    EndpointSliceManifest,
    GeneralPolicyManifest,
    PolicyManifest,
    ServiceManifest,
)
from deltaplane.v1 import ipam_pb2, receipts_pb2, registry_pb2, slicer_pb2

ROOT = Path(__file__).parents[2]

TEXTS: Mapping[str, tuple[type[Message], str]] = {
    "Ipam.CreatePool": (
        ipam_pb2.CreatePoolRequest,
        r"""pool { name: "pods-ipv4" prefix { address: "\012\364\000\000" length: 25 }
        block_length: 26
        reserved { address: "\012\364\000\000" length: 30 } min_free_percent: 50 }""",
    ),
    "Registry.RegisterNode": (
        registry_pb2.RegisterNodeRequest,
        r"""node { name: "node-1" uid: "uid-1" boot_id: "b"
        addresses { ipv4: "\306\023\000\001" } }""",
    ),
    "Ipam.ClaimBlocks": (
        ipam_pb2.ClaimBlocksRequest,
        """node: "node-1" node_uid: "uid-1"
        claims { pool: "pods-ipv4" request_id: "request-1" }
        claims { pool: "pods-ipv4" request_id: "request-3" }""",
    ),
    "Ipam.ClaimAddress": (
        ipam_pb2.ClaimAddressRequest,
        r"""address: "\012\364\000\011" node: "node-1" node_uid: "uid-1"
        request_id: "request-2" """,
    ),
    "Ipam.ReleaseBlock": (
        ipam_pb2.ReleaseBlockRequest,
        r"""prefix { address: "\012\364\000\000" length: 26 } node_uid: "uid-1" """,
    ),
    "Ipam.UpdatePool": (
        ipam_pb2.UpdatePoolRequest,
        r"""name: "pods-ipv4" draining: false min_free_percent: 20
        reserve { address: "\012\364\001\000" length: 30 }""",
    ),
    "Ipam.DeletePool": (ipam_pb2.DeletePoolRequest, """name: "pods-ipv4" """),
    "Ipam.ListBlocks": (ipam_pb2.ListBlocksRequest, """node: "node-1" """),
    "Registry.ApplyNamespaces": (
        registry_pb2.ApplyNamespacesRequest,
        """namespaces { name: "shop" labels { key: "team" value: "a" } }""",
    ),
    "Registry.ApplyPods": (
        registry_pb2.ApplyPodsRequest,
        """pods { namespace: "shop" name: "web" uid: "uid-9" node: "node-1"
        labels { key: "app" value: "web" }
        named_ports { name: "http" protocol: PROTOCOL_TCP number: 80 } }""",
    ),
    "Registry.RegisterEndpoint": (
        registry_pb2.RegisterEndpointRequest,
        r"""node_uid: "uid-1" endpoint { node: "node-1" id: 1 namespace: "shop" pod: "web"
        pod_uid: "uid-9" owner { network: "n" container_id: "c" interface: "eth0" attempt: "a" }
        addresses { ipv4: "\012\364\000\005" } }""",
    ),
    "Registry.ReleaseEndpoints": (
        registry_pb2.ReleaseEndpointsRequest,
        """node_uid: "uid-1" releases { namespace: "shop" pod: "web" node: "node-1" id: 1
        owner { network: "n" container_id: "c" interface: "eth0" attempt: "a" } }""",
    ),
    "Registry.DeleteNode": (registry_pb2.DeleteNodeRequest, """name: "node-2" """),
    "Registry.ListEndpoints": (registry_pb2.ListEndpointsRequest, """namespace: "shop" """),
    "Receipts.Watch": (receipts_pb2.WatchRequest, """endpoint: "shop/web" """),
    "Slicer.ListSlices": (slicer_pb2.ListSlicesRequest, """page_size: 10"""),
}

EXAMPLES = ("examples/shop.yaml", "examples/services.yaml")

OTHERS = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.244.0.5], conditions: {ready: true}, nodeName: node-1}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: some, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress: [{fromEntities: [cluster], toPorts: [{ports: [{port: "80", protocol: TCP}]}]}]
  egressDeny: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}]
"""


def templates() -> Mapping[str, Message]:
    """By "Service.Method", in the order in which each finds what it needs."""
    found = {name: text_format.Parse(text, cls()) for name, (cls, text) in TEXTS.items()}
    policies = registry_pb2.ApplyPoliciesRequest()
    services = registry_pb2.ApplyServicesRequest()
    slices = registry_pb2.ApplyEndpointSlicesRequest()
    for text in (OTHERS, *((ROOT / example).read_text() for example in EXAMPLES)):
        for item in manifest.parse(text, "template"):
            match item:
                case PolicyManifest():
                    policies.policies.append(wire.network_policy_to_proto(item.policy))
                case GeneralPolicyManifest():
                    policies.others.append(policywire.policy_to_proto(item.policy, item.spec))
                case ServiceManifest():
                    services.services.append(recordwire.service_to_proto(item))
                case EndpointSliceManifest():
                    slices.slices.append(servicewire.slice_to_proto(item.slice))
                case _:
                    pass
    return {
        **found,
        "Registry.ApplyPolicies": policies,
        "Registry.ApplyServices": services,
        "Registry.ApplyEndpointSlices": slices,
    }

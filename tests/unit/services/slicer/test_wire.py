from dataclasses import replace

import pytest

from deltaplane import servicewire, wire
from deltaplane.model.addresses import AddressPair, Prefix
from deltaplane.model.identity import Identity, LabelSet
from deltaplane.model.objects import BlockObject, EndpointObject, NodeObject, PoolObject
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.selector import LabelSelector
from deltaplane.model.service import (
    EndpointSlice,
    Service,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)
from deltaplane.store import keys
from deltaplane.store.port import Event, KeyValue
from deltaplane.v1 import common_pb2, ipam_pb2, registry_pb2
from services.slicer.facts import Content, EndpointRecord, NodeRecord
from services.slicer.wire import record_from_store

IPV4 = common_pb2.AddressPair(ipv4=b"\x0a\x00\x00\x07")
PREFIX = Prefix.parse("10.0.0.0/26")
IDENTITY = Identity(300, LabelSet.of("shop", {"team": "a"}, {"app": "web"}))
POLICY = NetworkPolicy(
    namespace="shop",
    name="p",
    pod_selector=LabelSelector.of({"app": "web"}),
    applies_to_ingress=True,
    applies_to_egress=False,
)
SERVICE = Service(
    namespace="shop",
    name="web",
    number=7,
    ports=(ServicePort(port=80),),
    cluster_ips=(b"\x0a\x60\x00\x07",),
    selector=(),
)
SLICE = EndpointSlice(
    namespace="shop",
    name="web-1",
    service="web",
    ports=(SlicePort(number=8080),),
    endpoints=(SliceEndpoint(address=IPV4.ipv4, terminating=True, ready=False),),
)
NODE = registry_pb2.Node(name="node-1", uid="uid", index=4, addresses=IPV4)
ENDPOINT = registry_pb2.Endpoint(
    node="node-1",
    node_index=4,
    id=2,
    namespace="shop",
    pod="web-1",
    addresses=IPV4,
    identity=300,
    traceparent="00-aa-bb-01",
)
ENDPOINT_KEY = keys.endpoint("shop", "web-1", "node-1", 2)


def stored(key: str, value: bytes) -> KeyValue:
    return KeyValue(key=key, value=value, create_revision=5, mod_revision=9)


def kind_of(parameter: object) -> str:
    """An id that is the same in every process: serialised maps are not."""
    return parameter if isinstance(parameter, str) else type(parameter).__name__


@pytest.mark.parametrize(
    ("key", "value", "content"),
    [
        (
            keys.node("node-1"),
            NODE.SerializeToString(),
            NodeRecord(
                NodeObject(index=4, name="node-1", addresses=AddressPair(ipv4=IPV4.ipv4)), "uid"
            ),
        ),
        (
            keys.block(PREFIX),
            ipam_pb2.Block(prefix=wire.prefix_to_proto(PREFIX), node_index=4).SerializeToString(),
            BlockObject(prefix=PREFIX, node_index=4),
        ),
        (
            keys.pool("team-a"),
            ipam_pb2.Pool(
                name="team-a",
                prefix=wire.prefix_to_proto(PREFIX),
                block_length=26,
                mode=ipam_pb2.Pool.MODE_STATIC,
                draining=True,
                on_request=True,
            ).SerializeToString(),
            PoolObject(
                name="team-a",
                prefix=PREFIX,
                block_length=26,
                is_static=True,
                draining=True,
                on_request=True,
            ),
        ),
        (keys.identity(300), wire.identity_to_proto(IDENTITY).SerializeToString(), IDENTITY),
        (
            ENDPOINT_KEY,
            ENDPOINT.SerializeToString(),
            EndpointRecord(
                EndpointObject(
                    node_index=4,
                    id=2,
                    identity=300,
                    addresses=AddressPair(ipv4=IPV4.ipv4),
                    incarnation=5,
                ),
                "00-aa-bb-01",
            ),
        ),
        (
            keys.policy("shop", "p"),
            wire.network_policy_to_proto(POLICY).SerializeToString(),
            POLICY,
        ),
        (
            keys.service("shop", "web"),
            servicewire.service_to_proto(SERVICE).SerializeToString(),
            SERVICE,
        ),
        (
            keys.endpoint_slice("shop", "web-1"),
            servicewire.slice_to_proto(SLICE).SerializeToString(),
            SLICE,
        ),
        (keys.STATE + "later/thing", b"whatever", None),
    ],
    ids=kind_of,
)
def test_records(key: str, value: bytes, content: Content | None) -> None:
    record = record_from_store(stored(key, value))
    assert (record.key, record.generation, record.content) == (key, 9, content)
    assert record.mistake == ""


def test_a_deletion() -> None:
    event = Event(key=ENDPOINT_KEY, value=None, create_revision=0, mod_revision=9)
    record = record_from_store(event)
    assert (record.generation, record.content, record.mistake) == (9, None, "")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (keys.node("node-1"), b"\xff"),
        (keys.node("node-2"), NODE.SerializeToString()),  # belongs to another key
        (keys.node("node-1"), registry_pb2.Node(name="node-1", addresses=IPV4).SerializeToString()),
        (ENDPOINT_KEY, registry_pb2.Endpoint(node="node-1").SerializeToString()),
        (keys.identity(300), registry_pb2.Identity(id=7).SerializeToString()),
        (
            keys.service("shop", "web"),
            servicewire.service_to_proto(replace(SERVICE, number=0)).SerializeToString(),
        ),
        (
            keys.endpoint_slice("shop", "web-2"),  # belongs to another key
            servicewire.slice_to_proto(SLICE).SerializeToString(),
        ),
    ],
    ids=kind_of,
)
def test_what_cannot_be_read_is_absent_and_says_why(key: str, value: bytes) -> None:
    record = record_from_store(stored(key, value))
    assert record.content is None
    assert record.mistake


def test_a_policy_that_cannot_be_read_closes_its_namespace() -> None:
    record = record_from_store(stored(keys.policy("shop", "p"), b"\xff"))
    assert record.mistake
    assert record.content == NetworkPolicy(
        namespace="shop",
        name="p",
        pod_selector=LabelSelector(),
        applies_to_ingress=True,
        applies_to_egress=True,
    )

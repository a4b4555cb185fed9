import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.scale.decoding import unbundled
from deltaplane.delta import messages as m
from deltaplane.delta.changes import Change, Removal, Upsert
from deltaplane.delta.wire import (
    BUNDLE_BYTES,
    ProtobufEncoder,
    bundled,
    decode_request,
    decode_responses,
    encode_request,
)
from deltaplane.errors import Invalid
from deltaplane.model.addresses import AddressPair, Prefix
from deltaplane.model.objects import (
    BlockObject,
    DirectionPolicy,
    DirectionRule,
    EndpointObject,
    IdentityObject,
    Kind,
    NodeObject,
    PeerSet,
    PoolObject,
    StreamObject,
    SubjectPolicy,
)
from deltaplane.model.policy import IPBlock
from deltaplane.model.ports import PortRange, Protocol
from deltaplane.model.tiers import Action, Tier
from deltaplane.v1 import slicer_pb2
from tests.decoding import decode_response

ENCODER = ProtobufEncoder()
BASE = 1 << 20

u32 = st.integers(1, (1 << 32) - 1)
revisions = st.integers(1, BASE)
texts = st.text(max_size=12)
pairs = st.builds(
    lambda v4, v6, which: AddressPair(
        ipv4=v4 if which != "v6" else None, ipv6=v6 if which != "v4" else None
    ),
    st.binary(min_size=4, max_size=4),
    st.binary(min_size=16, max_size=16),
    st.sampled_from(("v4", "v6", "both")),
)
prefixes = st.integers(0, 32).flatmap(
    lambda n: st.integers(0, (1 << n) - 1).map(lambda v: Prefix((v << (32 - n)).to_bytes(4), n))
)
set_keys = st.binary(min_size=16, max_size=16)
ports = st.builds(
    lambda protocol, a, b: PortRange(protocol, min(a, b), max(a, b)),
    st.sampled_from(Protocol),
    st.integers(0, 65535),
    st.integers(0, 65535),
)
ip_blocks = prefixes.flatmap(
    lambda p: st.sampled_from(
        (IPBlock(p), IPBlock(p, (Prefix(p.address, p.length + 1),) if p.length < 32 else ()))
    )
)
rules = st.builds(
    DirectionRule,
    all_peers=st.booleans(),
    peer_sets=st.tuples(set_keys) | st.just(()),
    blocks=st.tuples(ip_blocks) | st.just(()),
    ports=st.tuples(ports, ports) | st.just(()),
    tier=st.sampled_from(Tier),
    action=st.sampled_from(Action),
    audit=st.booleans(),
    entities=st.tuples(st.integers(1, 8)) | st.just(()),
    outside_only=st.booleans(),
    sources=st.tuples(st.tuples(st.integers(0, 9), st.integers(0, 9))) | st.just(()),
)
directions = st.builds(
    DirectionPolicy,
    isolated=st.booleans(),
    rules=st.lists(rules, max_size=3).map(tuple),
    policies=st.lists(texts, max_size=2).map(tuple),
)
objects: st.SearchStrategy[StreamObject] = st.one_of(
    st.builds(NodeObject, index=u32, name=texts, addresses=pairs),
    st.builds(BlockObject, prefix=prefixes, node_index=u32),
    st.builds(
        IdentityObject, id=u32, namespace=texts, labels=st.lists(texts, max_size=3).map(tuple)
    ),
    st.builds(
        EndpointObject,
        node_index=u32,
        id=u32,
        identity=u32,
        addresses=pairs,
        incarnation=revisions,
    ),
    st.builds(
        PoolObject,
        name=texts,
        prefix=prefixes,
        block_length=st.integers(0, 128),
        reserved=st.lists(prefixes, max_size=3).map(tuple),
        is_static=st.booleans(),
        draining=st.booleans(),
        min_free_percent=st.integers(1, 100),
        on_request=st.booleans(),
    ),
    st.builds(PeerSet, set_key=set_keys, identities=st.sets(u32).map(lambda s: tuple(sorted(s)))),
    st.builds(SubjectPolicy, identity=u32, ingress=directions, egress=directions),
)
removals = st.one_of(
    st.builds(
        Removal,
        kind=st.just(Kind.ENDPOINT),
        key=st.binary(min_size=8, max_size=8),
        generation=revisions,
        incarnation=revisions,
        left_span=st.booleans(),
    ),
    st.builds(Removal, kind=st.just(Kind.PEER_SET), key=set_keys, generation=revisions),
)
changes: st.SearchStrategy[Change] = st.builds(Upsert, objects, revisions) | removals


def piece(base: int, *parts: Change) -> bytes:
    return ENCODER.piece(base, [ENCODER.change(change, base) for change in parts])


@given(st.lists(changes, max_size=6), st.lists(changes, max_size=6))
def test_concatenated_pieces_are_one_frame(first: list[Change], second: list[Change]) -> None:
    data = ENCODER.frame(3, BASE + 5, 1 << 60, [piece(BASE, *first), piece(BASE + 5, *second)])
    frame = decode_response(data)
    assert isinstance(frame, m.Frame)
    assert (frame.previous_revision, frame.revision) == (3, BASE + 5)
    assert frame.oldest_change_unix_ns == 1 << 60
    assert sorted(map(repr, frame.changes)) == sorted(map(repr, [*first, *second]))
    # Put together by hand, it is what protobuf itself would write, but for the order of fields.
    assert len(slicer_pb2.StreamResponse.FromString(data).SerializeToString()) == len(data)


@given(st.lists(changes, max_size=6))
def test_chunks(parts: list[Change]) -> None:
    chunk = decode_response(ENCODER.chunk(2, 7, [piece(BASE, *parts)]))
    assert isinstance(chunk, m.SnapshotChunk)
    assert (chunk.id, chunk.sequence) == (2, 7)
    assert sorted(map(repr, chunk.changes)) == sorted(map(repr, parts))


CONTROLS: list[m.Control] = [
    m.Welcome(
        lineage=b"l" * 16,
        server_id="s",
        mode=m.Mode.RESUME,
        head_revision=7,
        bookmark_period_ms=1000,
        ack_interval_ms=100,
        node_index=3,
    ),
    m.Barrier(revision=7, head_revision=8, head_unix_ns=9, root_digest=b"d" * 16),
    m.SnapshotBegin(id=1, revision=7),
    m.SnapshotEnd(id=1, chunks=2, objects=3, root_digest=b"d" * 16),
    m.Drain(deadline_ms=1, retry_after_ms=2),
    m.Reset(reason="why", retry_after_ms=2),
]


@pytest.mark.parametrize("message", CONTROLS)
def test_controls(message: m.Control) -> None:
    assert decode_response(ENCODER.control(message)) == message


SMALL = [ENCODER.control(message) for message in CONTROLS]


def test_a_bundle_is_its_messages_one_after_the_other() -> None:
    (data,) = bundled(SMALL)
    assert list(decode_responses(data)) == list(zip(CONTROLS, map(len, SMALL), strict=True))
    message = slicer_pb2.StreamResponse.FromString(data)
    assert message.SerializeToString() == data, "as protobuf itself would write it"
    assert list(unbundled(data)) == SMALL


def test_a_single_message_is_no_bundle() -> None:
    assert list(bundled(SMALL[:1])) == SMALL[:1]
    assert list(decode_responses(SMALL[0])) == [(CONTROLS[0], len(SMALL[0]))]
    assert list(unbundled(SMALL[0])) == SMALL[:1]
    assert list(bundled([])) == []


@given(st.lists(st.integers(0, 2 * BUNDLE_BYTES), max_size=6))
def test_bundles_are_bounded_and_keep_the_order(sizes: list[int]) -> None:
    batch = [ENCODER.control(m.Reset(reason="x" * size)) for size in sizes]
    written = list(bundled(batch))
    assert [part for data in written for part in unbundled(data)] == batch
    for data in written:
        parts = list(unbundled(data))
        assert len(parts) == 1 or sum(map(len, parts)) <= BUNDLE_BYTES


@pytest.mark.parametrize(
    "message",
    [
        m.Hello(
            node="n",
            node_uid="u",
            boot_id="b",
            lineage=b"l" * 16,
            applied_revision=4,
            root_digest=b"d" * 16,
            credit_bytes=9,
            floor_revision=3,
        ),
        m.Ack(applied_revision=1, received_revision=2, added_credit_bytes=3, worst_apply_us=4),
        m.Nack(revision=1, kind=Kind.BLOCK, key=b"k", reason="full", retryable=True),
    ],
)
def test_requests(message: m.ClientMessage) -> None:
    assert decode_request(encode_request(message)) == message


def test_a_traceparent_travels_with_its_endpoint() -> None:
    endpoint = EndpointObject(
        node_index=1, id=2, identity=300, addresses=AddressPair(ipv4=bytes(4)), incarnation=5
    )
    traced = Upsert(endpoint, 9, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    frame = decode_response(ENCODER.frame(1, 9, 0, [piece(9, traced)]))
    assert isinstance(frame, m.Frame)
    assert frame.changes == (traced,)


def response(**fields: object) -> bytes:
    return slicer_pb2.StreamResponse(**fields).SerializeToString()  # type: ignore[arg-type]


STRANGE = {
    "no protobuf": b"\xff\xff",
    "nothing set": b"",
    "a later version's message": response(resolved=slicer_pb2.Resolved()),
    "an address of 3 bytes": response(
        frame={"pieces": [{"endpoints": [{"id": 1, "node_index": 1, "ipv4": b"123"}]}]}
    ),
    "a removal of no kind": response(frame={"pieces": [{"removals": [{}]}]}),
    "a backend with an address of 3 bytes": response(
        frame={"pieces": [{"backends": [{"service": 1, "address": b"123"}]}]}
    ),
    "an unknown kind": response(frame={"pieces": [{"removals": [{"kind": 77}]}]}),
    "a bundle in a bundle": response(bundle={"messages": [{"bundle": {}}]}),
    "a short peer set key": response(frame={"pieces": [{"peer_sets": [{"key": b"short"}]}]}),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_responses_are_refused(name: str) -> None:
    with pytest.raises(Invalid):
        list(decode_responses(STRANGE[name]))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_invalid(data: bytes) -> None:
    for decode in (decode_request, lambda data: list(decode_responses(data))):
        try:
            decode(data)
        except Invalid:
            continue


def dual_stack(number: int, revision: int) -> Upsert:
    addresses = AddressPair(
        ipv4=(0x0A000000 + number).to_bytes(4), ipv6=b"\xfd" + number.to_bytes(15)
    )
    endpoint = EndpointObject(
        node_index=number % 1000,
        id=number,
        identity=300 + number % 500,
        addresses=addresses,
        incarnation=revision,
    )
    return Upsert(endpoint, revision)


@pytest.mark.parametrize(("count", "limit"), [(32, 64), (1, 256)])
def test_a_change_is_as_small_as_promised(count: int, limit: int) -> None:
    revision = 5_000_000
    batch = [dual_stack(60_000 + n, revision - n) for n in range(count)]
    frame = ENCODER.frame(revision - 900, revision, 1_800_000_000 << 30, [piece(revision, *batch)])
    barrier = ENCODER.control(
        m.Barrier(revision=revision, head_revision=revision, head_unix_ns=1_800_000_000 << 30)
    )
    assert (len(frame) + len(barrier)) / count <= limit

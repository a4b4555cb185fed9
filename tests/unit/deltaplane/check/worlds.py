"""A cluster in which everything agrees, to take something away from."""

from dataclasses import replace
from typing import Any

from deltaplane.check.facts import (
    Block,
    Endpoint,
    Interface,
    Link,
    Node,
    NodeView,
    OwnBlock,
    Owner,
    Pointer,
    Pool,
    Programmed,
    Route,
    State,
    Stored,
)
from deltaplane.model.addresses import Prefix, format_address, parse_address
from deltaplane.store import keys

FOUR, SIX = parse_address("10.244.0.9"), parse_address("fd00::9")
OWNER: Owner = ("pods", "container-9", "eth0", "first")


def block(text: str, node: int = 1, *, pool: str = "four", **fields: Any) -> Block:
    prefix = Prefix.parse(text)
    made = Block(
        key=keys.block(prefix),
        prefix=prefix,
        pool=pool,
        node=f"node-{node}",
        node_uid=f"uid-{node}",
        node_index=node,
        pointers=frozenset({keys.block_request(f"uid-{node}", text.replace("/", "-"))}),
        revision=5,
    )
    return replace(made, **fields)


def endpoint(number: int, *texts: str, node: int = 1, pod: str = "web", **fields: Any) -> Endpoint:
    addresses = tuple(map(parse_address, texts))
    made = Endpoint(
        key=keys.endpoint("shop", pod, f"node-{node}", number),
        namespace="shop",
        pod=pod,
        node=f"node-{node}",
        node_index=node,
        number=number,
        owner=OWNER,
        addresses=addresses,
        identity=300,
        pointers=frozenset(
            {keys.node_endpoint(f"node-{node}", number), *map(keys.address, addresses)}
        ),
        incarnation=7,
        revision=8,
    )
    return replace(made, **fields)


def stored(*records: Block | Endpoint, **fields: Any) -> Stored:
    """etcd with these records, everything that points to them, two nodes and two pools."""
    made = Stored(
        revision=20,
        nodes={
            f"node-{number}": Node(name=f"node-{number}", uid=f"uid-{number}", index=number)
            for number in (1, 2)
        },
        pools={
            "four": Pool(name="four", prefix=Prefix.parse("10.244.0.0/16"), block_length=26),
            "six": Pool(name="six", prefix=Prefix.parse("fd00::/64"), block_length=122),
        },
        blocks={record.key: record for record in records if isinstance(record, Block)},
        endpoints={record.key: record for record in records if isinstance(record, Endpoint)},
        pointers={
            key: Pointer(key=key, target=record.key, revision=6)
            for record in records
            for key in record.pointers
        },
    )
    return replace(made, **fields)


BLOCKS = (block("10.244.0.0/26"), block("fd00::/122", pool="six"), block("10.244.0.64/26", 2))
ENDPOINT = endpoint(9, "10.244.0.9", "fd00::9")
STORED = stored(*BLOCKS, ENDPOINT)

VIEW = NodeView(
    name="node-1",
    uid="uid-1",
    index=1,
    applied=20,
    blocks=tuple(OwnBlock(prefix=item.prefix) for item in BLOCKS[:2]),
    interfaces={
        9: Interface(
            number=9,
            state=State.READY,
            owner=OWNER,
            namespace="shop",
            pod="web",
            addresses=(FOUR, SIX),
        )
    },
    released={parse_address("10.244.0.10"): 3},
    links=(Link(name="dp9", ifindex=40, number=9),),
    routes=(
        *(Route(prefix=Prefix(address, len(address) * 8), ifindex=40) for address in (FOUR, SIX)),
        *(Route(prefix=item.prefix, unreachable=True) for item in BLOCKS[:2]),
        Route(prefix=BLOCKS[2].prefix, ifindex=2),
    ),
    programmed=(Programmed(ifindex=40, number=9, identity=300, addresses=(FOUR, SIX)),),
    mappings={FOUR: (300, 1), SIX: (300, 1)},
)


def text(address: bytes) -> str:
    return format_address(address)

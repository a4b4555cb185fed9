"""Pools and blocks as messages: requests are checked, records in etcd lack meta."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from deltaplane import wire
from deltaplane.errors import DeltaplaneError, Invalid
from deltaplane.model import names
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.runtime import rpc
from deltaplane.store import keys
from deltaplane.store.port import KeyValue
from deltaplane.v1 import common_pb2, ipam_pb2
from services.ipam.changing import Change
from services.ipam.pools import Mode, Pool

MAX_BLOCKS_SHOWN = (1 << 64) - 1
"""blocks_total is a uint64 and stops there: a /48 of /122 blocks has more."""

MAX_CLAIMS = 64
"""Claims of a request: a node that starts has one for each pool, one that grows some more. A few
transactions, so an answer comes in time.
"""

MAX_TOKEN = 64
_TOKEN = re.compile(rf"[!-.0-~]{{1,{MAX_TOKEN}}}")

_MODE_TO_PROTO = {
    Mode.DEMAND: ipam_pb2.Pool.MODE_DEMAND,
    Mode.STATIC: ipam_pb2.Pool.MODE_STATIC,
}
_MODE_FROM_PROTO = {number: mode for mode, number in _MODE_TO_PROTO.items()}
_MODE_FROM_PROTO[ipam_pb2.Pool.MODE_UNSPECIFIED] = Mode.DEMAND


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A node's wish for one block. The same request_id of one node UID means the same block."""

    pool: str
    node: str
    node_uid: str
    request_id: str


Outcome = ipam_pb2.Block | DeltaplaneError
"""Of a claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressClaim:
    """A node's wish for one address; repeated as a Claim is."""

    address: bytes
    node: str
    node_uid: str
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPool:
    """A pool and where etcd keeps it."""

    pool: Pool
    stored: KeyValue


def pool_from_proto(message: ipam_pb2.Pool) -> Pool:
    """Reads the pool of a request.

    Raises:
        Invalid: a field is out of its range.
    """
    if message.mode not in _MODE_FROM_PROTO:
        known = ", ".join(ipam_pb2.Pool.Mode.keys()[1:])
        raise Invalid("pool.mode", f"{message.mode} is none of {known}")
    return Pool.of(
        message.name,
        wire.prefix_from_proto(message.prefix, "pool.prefix"),
        message.block_length,
        reserved=_prefixes(message.reserved, "pool.reserved"),
        mode=_MODE_FROM_PROTO[message.mode],
        draining=message.draining,
        min_free_percent=message.min_free_percent,
        on_request=message.on_request,
    )


def pool_to_proto(pool: Pool) -> ipam_pb2.Pool:
    """The record, without meta."""
    return ipam_pb2.Pool(
        name=pool.name,
        prefix=wire.prefix_to_proto(pool.prefix),
        block_length=pool.block_length,
        reserved=map(wire.prefix_to_proto, pool.reserved),
        mode=_MODE_TO_PROTO[pool.mode],
        draining=pool.draining,
        min_free_percent=pool.min_free_percent,
        on_request=pool.on_request,
    )


def pool_to_value(pool: Pool) -> bytes:
    """The record as etcd keeps it."""
    return pool_to_proto(pool).SerializeToString(deterministic=True)


def change_from_proto(message: ipam_pb2.UpdatePoolRequest) -> Change:
    """Reads what is to become of a pool.

    Raises:
        Invalid: a field is out of its range.
    """
    check_name(message.name, "name", names.dns_label_mistake(message.name))
    grow_to = None
    if message.HasField("grow_to"):
        grow_to = wire.prefix_from_proto(message.grow_to, "grow_to")
    percent = message.min_free_percent if message.HasField("min_free_percent") else None
    if percent is not None and not 1 <= percent <= 100:
        raise Invalid("min_free_percent", f"{percent} is outside 1..100")
    return Change(
        name=message.name,
        grow_to=grow_to,
        reserve=_prefixes(message.reserve, "reserve"),
        unreserve=_prefixes(message.unreserve, "unreserve"),
        draining=message.draining if message.HasField("draining") else None,
        min_free_percent=percent,
        on_request=message.on_request if message.HasField("on_request") else None,
    )


def pool_from_record(stored: KeyValue) -> StoredPool:
    """Reads a pool from etcd."""
    return StoredPool(pool=pool_from_proto(ipam_pb2.Pool.FromString(stored.value)), stored=stored)


def stored_pool_to_proto(pool: StoredPool) -> ipam_pb2.Pool:
    """The record with meta."""
    message = pool_to_proto(pool.pool)
    message.meta.CopyFrom(meta(pool.stored))
    return message


def pool_status(pool: StoredPool, claimed: int) -> ipam_pb2.PoolStatus:
    """How full a pool is."""
    return ipam_pb2.PoolStatus(
        pool=stored_pool_to_proto(pool),
        blocks_total=min(pool.pool.blocks, MAX_BLOCKS_SHOWN),
        blocks_claimed=claimed,
    )


def block_from_record(stored: KeyValue) -> ipam_pb2.Block:
    """Reads a block from etcd, meta filled in.

    A single address may be used once every node knows that it is claimed, so it waits for its own
    revision, which nobody knows when the record is written.
    """
    message = ipam_pb2.Block.FromString(stored.value)
    if message.fixed:
        message.usable_after_revision = stored.create_revision
    message.meta.CopyFrom(meta(stored))
    return message


def block_prefix(message: ipam_pb2.Block) -> Prefix:
    """The prefix of a stored block."""
    return Prefix(message.prefix.address, message.prefix.length)


def freed_prefix(key: str) -> Prefix:
    """The block that a freed key is about."""
    address, _, length = key.removeprefix(keys.FREED_BLOCKS).rpartition("-")
    return Prefix(parse_address(address), int(length))


def claims_from_proto(message: ipam_pb2.ClaimBlocksRequest) -> list[Claim]:
    """Reads the claims of a node.

    Raises:
        Invalid: a field is missing or misspelt, or there are none or too many claims.
    """
    node, uid = message.node, check_token(message.node_uid, "node_uid")
    _check_node(node)
    if not 1 <= len(message.claims) <= MAX_CLAIMS:
        raise Invalid("claims", f"{len(message.claims)} is outside 1..{MAX_CLAIMS}")
    claims = []
    for index, item in enumerate(message.claims):
        pool, request_id = item.pool, item.request_id
        # Asked first: the path of a field is text that hardly anybody reads.
        if names.dns_label_mistake(pool) or _TOKEN.fullmatch(request_id) is None:
            path = f"claims[{index}]"
            check_name(pool, f"{path}.pool", names.dns_label_mistake(pool))
            check_token(request_id, f"{path}.request_id")
        claims.append(Claim(pool=pool, node=node, node_uid=uid, request_id=request_id))
    return claims


def claims_to_proto(outcomes: Iterable[Outcome]) -> ipam_pb2.ClaimBlocksResponse:
    """What came of the claims, in their order."""
    answer = ipam_pb2.ClaimBlocksResponse()
    for outcome in outcomes:
        if isinstance(outcome, DeltaplaneError):
            answer.results.add(error={"code": rpc.status_number(outcome), "message": str(outcome)})
        else:
            answer.results.add(block=outcome)
    return answer


@lru_cache(maxsize=1 << 14)
def _check_node(node: str) -> None:
    # Cached: a node claims again and again; what is refused is not remembered.
    check_name(node, "node", names.dns_subdomain_mistake(node))


def address_claim_from_proto(message: ipam_pb2.ClaimAddressRequest) -> AddressClaim:
    """Reads a claim of one address.

    Raises:
        Invalid: a field is missing or misspelt.
    """
    check_name(message.node, "node", names.dns_subdomain_mistake(message.node))
    size = len(message.address) * 8
    if size not in (32, 128):
        raise Invalid("address", f"an address has 4 or 16 bytes, not {len(message.address)}")
    whole = common_pb2.Prefix(address=message.address, length=size)
    return AddressClaim(
        address=wire.prefix_from_proto(whole, "address").address,
        node=message.node,
        node_uid=check_token(message.node_uid, "node_uid"),
        request_id=check_token(message.request_id, "request_id"),
    )


def check_name(text: str, path: str, mistake: str | None) -> None:
    """Turns the mistake that `deltaplane.model.names` found into an error.

    Raises:
        Invalid: there is one.
    """
    if mistake:
        raise Invalid(path, f'"{text[: names.MAX_SUBDOMAIN]}" {mistake}')


def check_token(text: str, path: str) -> str:
    """A word that clients choose and that becomes part of a key.

    Raises:
        Invalid: not 1..64 visible ASCII characters, or with a '/', which separates keys.
    """
    if _TOKEN.fullmatch(text) is None:
        raise Invalid(path, f"must be 1..{MAX_TOKEN} visible ASCII characters without '/'")
    return text


def _prefixes(messages: Iterable[common_pb2.Prefix], path: str) -> tuple[Prefix, ...]:
    return tuple(
        wire.prefix_from_proto(message, f"{path}[{index}]")
        for index, message in enumerate(messages)
    )


def meta(stored: KeyValue) -> common_pb2.ObjectMeta:
    """How a record came to be."""
    return common_pb2.ObjectMeta(
        create_revision=stored.create_revision, mod_revision=stored.mod_revision
    )

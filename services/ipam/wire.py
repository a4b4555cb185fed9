"""Pools and blocks as messages: requests are checked, records in etcd lack meta."""

from dataclasses import dataclass

from deltaplane import wire
from deltaplane.errors import Invalid
from deltaplane.model import names
from deltaplane.model.addresses import Prefix
from deltaplane.store.port import KeyValue
from deltaplane.v1 import common_pb2, ipam_pb2
from services.ipam.pools import Pool

MAX_BLOCKS_SHOWN = (1 << 64) - 1
"""blocks_total is a uint64 and stops there: a /48 of /122 blocks has more."""

MAX_TOKEN = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A node's wish for one block. The same request_id of one node UID means the same block."""

    pool: str
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
    prefix = wire.prefix_from_proto(message.prefix, "pool.prefix")
    return Pool.of(message.name, prefix, message.block_length)


def pool_to_proto(pool: Pool) -> ipam_pb2.Pool:
    """The record, without meta."""
    return ipam_pb2.Pool(
        name=pool.name, prefix=wire.prefix_to_proto(pool.prefix), block_length=pool.block_length
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
    """Reads a block from etcd, meta filled in."""
    message = ipam_pb2.Block.FromString(stored.value)
    message.meta.CopyFrom(meta(stored))
    return message


def block_prefix(message: ipam_pb2.Block) -> Prefix:
    """The prefix of a stored block."""
    return Prefix(message.prefix.address, message.prefix.length)


def claim_from_proto(message: ipam_pb2.ClaimBlockRequest) -> Claim:
    """Reads a claim.

    Raises:
        Invalid: a field is missing or misspelt.
    """
    check_name(message.pool, "pool", names.dns_label_mistake(message.pool))
    check_name(message.node, "node", names.dns_subdomain_mistake(message.node))
    return Claim(
        pool=message.pool,
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
    if not 1 <= len(text) <= MAX_TOKEN or not all("!" <= c <= "~" and c != "/" for c in text):
        raise Invalid(path, f"must be 1..{MAX_TOKEN} visible ASCII characters without '/'")
    return text


def meta(stored: KeyValue) -> common_pb2.ObjectMeta:
    """How a record came to be."""
    return common_pb2.ObjectMeta(
        create_revision=stored.create_revision, mod_revision=stored.mod_revision
    )

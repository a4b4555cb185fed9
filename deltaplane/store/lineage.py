"""The lineage of a store: a random 128-bit value, written once into a new one.

Revisions are compared only inside one lineage.
"""

import secrets

from deltaplane.errors import Refused
from deltaplane.store import keys
from deltaplane.store.port import Absent, Put, Store
from deltaplane.store.retry import compare_and_swap

LENGTH_BYTES = 16


async def ensure(store: Store, expected: bytes = b"") -> bytes:
    """The store's lineage, 16 bytes; creates it if the store has none.

    Args:
        store: where it is kept.
        expected: the only lineage that will do, then nothing is created; empty: any.

    Raises:
        Refused: what is stored is no lineage or not the expected one: this is not our store.
        Unavailable: the store could not be reached in time.
    """

    async def attempt() -> bytes | None:
        stored = await store.get(keys.LINEAGE)
        if stored is not None or expected:
            return stored.value if stored else b""
        fresh = secrets.token_bytes(LENGTH_BYTES)
        outcome = await store.transact([Absent(keys.LINEAGE)], [Put(keys.LINEAGE, fresh)])
        return fresh if outcome.succeeded else None

    lineage = await compare_and_swap(attempt)
    if expected and lineage != expected:
        held = f"lineage {lineage.hex()}" if lineage else "no lineage: it is new or not ours"
        raise Refused(
            f"the store has {held}, but --lineage asks for {expected.hex()}; point --etcd to the "
            "right one, or leave --lineage out after restoring a backup"
        )
    if len(lineage) != LENGTH_BYTES:
        raise Refused(f"{keys.LINEAGE} holds {len(lineage)} bytes instead of {LENGTH_BYTES}")
    return lineage

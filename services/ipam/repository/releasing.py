"""Blocks go back; and which there are."""

from collections.abc import Awaitable, Callable, Sequence

from deltaplane.errors import Refused
from deltaplane.model.addresses import Prefix
from deltaplane.store import keys
from deltaplane.store.port import Delete, Put, Store, Unchanged
from deltaplane.store.retry import compare_and_swap
from deltaplane.v1 import ipam_pb2
from services.ipam import wire


class Releaser:
    """Gives blocks back. The freed key that it leaves makes the next owner wait."""

    def __init__(self, store: Store, pause: Callable[[float], Awaitable[None]]) -> None:
        self._store = store
        self._pause = pause

    async def release(
        self, prefix: Prefix, node_uid: str, request_id: str = "", *, node: str = ""
    ) -> tuple[int, bool]:
        """Gives a block, or an address claimed alone, back.

        Args:
            prefix: of the block.
            node_uid: of its owner.
            request_id: that got it; a release that comes late does not take what the node has got
                again since. Empty: whatever request it was.
            node: name of its owner: a UID alone can be another's, copied. Empty: whoever has it.

        Returns:
            The revision at which nobody, or somebody else, owns it; and whether this call did that.

        Raises:
            Refused: another node owns it.
        """
        owned_before = False

        async def attempt() -> tuple[int, bool] | None:
            nonlocal owned_before
            (stored,), revision = await self._store.get_many([keys.block(prefix)])
            if stored is None:
                return revision, False
            block = wire.block_from_record(stored)
            is_own = block.node_uid == node_uid and node in ("", block.node)
            if is_own and request_id not in ("", block.request_id):
                return revision, False
            if not is_own:
                if owned_before:  # an earlier attempt was applied though its answer was lost
                    return revision, False
                raise Refused(f"block {prefix} is owned by node {block.node}, UID {block.node_uid}")
            owned_before = True
            committed = await self._store.transact(
                [Unchanged(stored.key, stored.mod_revision)],
                [
                    Delete(stored.key),
                    Delete(keys.block_request(node_uid, block.request_id)),
                    *([Delete(keys.fixed_address(prefix.address))] if block.fixed else []),
                    Put(keys.freed_block(prefix), block.node.encode()),
                ],
            )
            return (committed.revision, True) if committed.succeeded else None

        return await compare_and_swap(attempt, pause=self._pause)

    async def listed(self, *, node: str, pool: str) -> tuple[Sequence[ipam_pb2.Block], int]:
        """Blocks by prefix, IPv4 first, and the revision that this shows. Empty: no filter."""
        listing = await self._store.list(keys.BLOCKS)
        blocks = (wire.block_from_record(item) for item in listing.items)
        chosen = [b for b in blocks if node in ("", b.node) and pool in ("", b.pool)]
        chosen.sort(key=lambda b: (len(b.prefix.address), wire.block_prefix(b)))
        return chosen, listing.revision

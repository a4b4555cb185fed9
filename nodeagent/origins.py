"""Which object of the streamed view each entry of the kernel stems from. Pure.

Several objects may claim one address; which of them wins is decided here.
"""

from deltaplane.delta.changes import ObjectKey
from deltaplane.delta.view import View
from deltaplane.model.addresses import AddressPair, Prefix, from_mapped, to_mapped
from deltaplane.model.objects import BlockObject, Kind
from nodeagent.masquerade import Member, Role
from nodeagent.state import RangeKey, Touched


class Origins:
    """Indexes over the view as of the last touch of each object."""

    def __init__(self) -> None:
        self._view = View()
        self._holders: dict[bytes, set[ObjectKey]] = {}
        self._addresses: dict[ObjectKey, tuple[bytes, ...]] = {}
        self._blocks_of: dict[int, set[Prefix]] = {}
        self._block_of: dict[ObjectKey, BlockObject] = {}
        self._block_keys: dict[Prefix, ObjectKey] = {}
        self._pools: dict[ObjectKey, Prefix] = {}

    # --- inputs ----------------------------------------------------------------------------------

    def advance(self, view: View) -> None:
        """Another view, or the same that has changed; what has changed is told by `touch`."""
        self._view = view

    def touch(self, key: ObjectKey, touched: Touched) -> None:
        """An object has changed: adds the keys of the kernel that stem from it, or did."""
        kind, name = key
        match kind:
            case Kind.NODE:
                self._touch_node(key, touched)
            case Kind.BLOCK:
                self._touch_block(key, touched)
            case Kind.POOL:
                self._touch_pool(key, touched)
            case Kind.ENDPOINT:
                held = self._view.endpoints.get(name)
                self._touch_addresses(key, held.value.addresses if held else None, touched)
            case _:
                pass

    def _touch_node(self, key: ObjectKey, touched: Touched) -> None:
        index = int.from_bytes(key[1])
        held = self._view.nodes.get(key[1])
        before = self._addresses.get(key, ())
        self._touch_addresses(key, held.value.addresses if held else None, touched)
        for address in (*before, *self._addresses.get(key, ())):
            plain = from_mapped(address)
            touched.members.add(Member(Role.NODE, Prefix(plain, len(plain) * 8)))
        touched.next_hops.add(index)
        for prefix in self._blocks_of.get(index, ()):
            touched.routes.add(prefix)

    def _touch_block(self, key: ObjectKey, touched: Touched) -> None:
        before = self._block_of.pop(key, None)
        if before is not None:
            self._blocks_of[before.node_index].discard(before.prefix)
            self._block_keys.pop(before.prefix, None)
        held = self._view.blocks.get(key[1])
        if held is not None:
            self._block_of[key] = held.value
            self._block_keys[held.value.prefix] = key
            self._blocks_of.setdefault(held.value.node_index, set()).add(held.value.prefix)
        for block in (before, held.value if held else None):
            if block is not None:
                touched.routes.add(block.prefix)
                touched.ranges.add(block.prefix.mapped)

    def _touch_pool(self, key: ObjectKey, touched: Touched) -> None:
        before = self._pools.pop(key, None)
        held = self._view.pools.get(key[1])
        if held is not None:
            self._pools[key] = held.value.prefix
        for prefix in (before, self._pools.get(key)):
            if prefix is not None:
                touched.members.add(Member(Role.POOL, prefix))

    def _touch_addresses(
        self, key: ObjectKey, addresses: AddressPair | None, touched: Touched
    ) -> None:
        before = self._addresses.pop(key, ())
        for address in before:
            holders = self._holders[address]
            holders.discard(key)
            if not holders:
                del self._holders[address]
        now = tuple(to_mapped(address) for address in addresses) if addresses else ()
        if now:
            self._addresses[key] = now
        for address in now:
            self._holders.setdefault(address, set()).add(key)
        touched.mappings.update(before, now)

    # --- answers ---------------------------------------------------------------------------------

    def object_of(self, address: bytes) -> ObjectKey | None:
        """The object that a mapping stems from. address: 16 bytes."""
        return max(self._holders.get(address, ()), key=self._rank, default=None)

    def block_key(self, prefix: Prefix) -> ObjectKey | None:
        """The object that a route stems from."""
        return self._block_keys.get(prefix)

    def range_key(self, key: RangeKey) -> ObjectKey | None:
        """The object that a range stems from."""
        return self._block_keys.get(prefix_of(key))

    def member_key(self, member: Member) -> ObjectKey | None:
        """The object that a member of the masquerading stems from."""
        if member.role is Role.NODE:
            holders = self._holders.get(to_mapped(member.prefix.address), ())
            return max((key for key in holders if key[0] is Kind.NODE), default=None)
        return min(
            (key for key, held in self._pools.items() if held == member.prefix), default=None
        )

    def block(self, prefix: Prefix) -> BlockObject | None:
        """The block of that prefix."""
        key = self._block_keys.get(prefix)
        return None if key is None else self._block_of[key]

    def _rank(self, key: ObjectKey) -> tuple[int, int, bytes]:
        """For one address a node wins over an endpoint, then the highest incarnation.

        The key decides what is left, two nodes with one address: any order would do, but it must
        not depend on which was learnt first.
        """
        if key[0] is Kind.NODE:
            return 1, 0, key[1]
        return 0, self._view.endpoints[key[1]].value.incarnation, key[1]


def prefix_of(key: RangeKey) -> Prefix:
    """Undoes Prefix.mapped."""
    plain = from_mapped(key[0])
    return Prefix(plain, key[1] - 96 if len(plain) == 4 else key[1])

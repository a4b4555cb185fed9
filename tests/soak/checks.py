"""What must hold after every write, and what must hold when nothing moves any more."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields

from deltaplane.errors import Internal
from deltaplane.model.addresses import Prefix
from deltaplane.store import keys
from deltaplane.store.port import KeyValue
from deltaplane.v1 import ipam_pb2, registry_pb2
from nodeagent import restoring
from nodeagent.entries import InterfaceRecord, Ledger, State
from tests.soak.agent import Host
from tests.soak.book import durable
from tests.soak.flat import Change
from tests.soak.speed import format_address, parse_address

HELD = (State.ALLOCATING, State.READY, State.RELEASING)

Owner = tuple[str, str, int]
"""Name, UID and index of a node."""


class Checks:
    """Watches every write of the store and of the journals.

    Attributes:
        broken: what did not hold, in words.
    """

    def __init__(self, hosts: Sequence[Host], items: Callable[[], Mapping[str, KeyValue]]) -> None:
        self.broken: list[str] = []
        self.owners: dict[Prefix, Owner] = {}
        self.nodes: dict[str, tuple[str, int]] = {}
        self.holders: dict[bytes, str] = {}
        self._hosts = hosts
        self._items = items
        self._untouched = {id(host.ledger) for host in hosts}

    def fork(self, hosts: Sequence[Host], items: Callable[[], Mapping[str, KeyValue]]) -> "Checks":
        """A copy for a forked world."""
        other = Checks(hosts, items)
        other.owners = dict(self.owners)
        other.nodes = dict(self.nodes)
        other.holders = dict(self.holders)
        return other

    def fail(self, text: str) -> None:
        """Something does not hold."""
        self.broken.append(text)

    # --- after every write -----------------------------------------------------------------------

    def store(self, changes: list[Change]) -> None:
        """A transaction of the store."""
        looks = []
        for key, old, new in changes:
            if key.startswith(keys.ADDRESSES):
                looks.append((self._address, key, old, new))
            elif key.startswith(keys.BLOCKS):
                looks.append((self._block, key, old, new))
            elif key.startswith(keys.NODES):
                self._node(key, old, new)
            elif key.startswith(keys.POOLS) and new is None:
                looks.append((self._pool_gone, key, old, new))
        for look, key, old, new in looks:
            look(key, old, new)

    def _node(self, key: str, old: KeyValue | None, new: KeyValue | None) -> None:
        name = key.removeprefix(keys.NODES)
        if new is None:
            del self.nodes[name]
            return
        record = registry_pb2.Node.FromString(new.value)
        self.nodes[name] = (record.uid, record.index)
        if old is None:
            for host in self._hosts:
                if host.facts.name == name:
                    host.joining = True

    def _block(self, key: str, old: KeyValue | None, new: KeyValue | None) -> None:
        prefix = block_of_key(key)
        if new is None:
            owner = self.owners.pop(prefix)
            self._check_left(prefix, owner)
            return
        record = ipam_pb2.Block.FromString(new.value)
        owner = (record.node, record.node_uid, record.node_index)
        if old is not None and self.owners[prefix] != owner:
            self.fail(f"block {prefix} of {self.owners[prefix]} became {owner}'s")
        self._check_overlap(prefix, record)
        self.owners[prefix] = owner
        if old is None:
            self._check_pool(prefix, record)
            if not record.fixed and keys.freed_block(prefix) in self._items():
                self.fail(f"{prefix} was claimed, and still counts as free")
        for address, holder in self.holders.items():
            if prefix.contains(address) and self._owner(address) == owner:
                endpoint = self._endpoint(holder)
                if endpoint is not None and endpoint.node_index != owner[2]:
                    self.fail(f"{prefix} was claimed while {format_address(address)} is {holder}")

    def _check_overlap(self, prefix: Prefix, record: ipam_pb2.Block) -> None:
        """A block of one address may lie inside another; nothing else may."""
        for other in self.owners:
            whole = other.length < bits(other) and not record.fixed
            if whole and other != prefix and other.overlaps(prefix):
                self.fail(f"block {prefix} overlaps {other}")

    def _check_pool(self, prefix: Prefix, record: ipam_pb2.Block) -> None:
        item = self._items().get(keys.pool(record.pool))
        pool = None if item is None else ipam_pb2.Pool.FromString(item.value)
        if pool is None or pool.draining:
            self.fail(f"{prefix} was claimed from pool {record.pool}, which is {pool}")
        elif not Prefix(pool.prefix.address, pool.prefix.length).contains(prefix):
            self.fail(f"{prefix} was claimed outside of {record.pool}")

    def _pool_gone(self, key: str, old: KeyValue | None, new: KeyValue | None) -> None:
        name = key.removeprefix(keys.POOLS)
        for other, item in self._items().items():
            is_block = other.startswith(keys.BLOCKS)
            if is_block and ipam_pb2.Block.FromString(item.value).pool == name:
                self.fail(f"pool {name} was deleted while {other} is claimed")

    def _check_left(self, prefix: Prefix, owner: Owner) -> None:
        """A block that was given back holds nothing."""
        for address, holder in self.holders.items():
            if prefix.contains(address) and self._owner(address) is None:
                self.fail(f"{prefix} was given back with {format_address(address)} of {holder}")
        if self.nodes.get(owner[0]) == owner[1:]:
            for host in self._hosts:
                if host.facts.uid == owner[1]:
                    for record, address in held(host.ledger):
                        if prefix.contains(address):
                            self.fail(f"{prefix} was given back with a pod: {record}")

    def _address(self, key: str, old: KeyValue | None, new: KeyValue | None) -> None:
        address = parse_address(key.removeprefix(keys.ADDRESSES))
        if new is None:
            self.holders.pop(address, None)
            return
        holder = new.value.decode()
        if old is not None and old.value != new.value:
            self.fail(f"{key} went from {old.value.decode()} to {holder}")
        self.holders[address] = holder
        endpoint = self._endpoint(holder)
        if endpoint is None:
            self.fail(f"{key} names {holder}, which does not exist")
            return
        owner = self._owner(address)
        if owner is None or owner[2] != endpoint.node_index:
            self.fail(f"{holder} got {key} outside the blocks of its node, in one of {owner}")
        for host in self._hosts:
            if owner is not None and (host.facts.name, host.facts.uid) == owner[:2]:
                for record, other in held(host.ledger):
                    if other == address and record.attempt != endpoint.owner.attempt:
                        self.fail(f"{holder} got {key}, which {record} holds")

    def journal(self, host: Host, before: Ledger) -> None:
        """A transaction of a journal."""
        after = host.ledger
        if after.interfaces is before.interfaces:
            return
        for number in after.interfaces.keys() - before.interfaces.keys():
            self._opened(host, after.interfaces[number])
        for number in before.interfaces.keys() - after.interfaces.keys():
            self._erased(host, before.interfaces[number])

    def _opened(self, host: Host, record: InterfaceRecord) -> None:
        for address in record.addresses:
            owner = self._owner(address)
            if owner is None or owner[:2] != (host.facts.name, host.facts.uid):
                continue  # it does not know yet that it lost the block; the registry will tell
            if self.nodes.get(owner[0]) != owner[1:]:
                continue  # as above: the node was deleted, its blocks are about to go
            text = format_address(address)
            if (holder := self.holders.get(address)) is not None:
                self.fail(f"{text} was handed out while {holder} has it")
            for other in self._hosts:
                if self._is_live(other) and (stale := other.view.get(text)):
                    self.fail(
                        f"{text} was handed out while {other.facts.name} maps it to {stale!r}"
                    )

    def _erased(self, host: Host, record: InterfaceRecord) -> None:
        if (known := self.nodes.get(host.facts.name)) is None or known[0] != host.facts.uid:
            return
        for address in record.addresses:
            holder = self.holders.get(address)
            if holder is None:
                continue
            endpoint = self._endpoint(holder)
            if endpoint is None or endpoint.node_index != known[1]:
                continue  # of a registration that was deleted: what it had is about to go
            if endpoint.owner.attempt == record.attempt:
                self.fail(f"{record} was erased while it is registered as {holder}")

    # --- when nothing moves any more -------------------------------------------------------------

    def quiet(self) -> None:
        """Nothing is lost, and nothing is left over."""
        items = self._items()
        self._quiet_registry(items)
        self._quiet_blocks(items)
        everywhere: dict[bytes, str] = {}
        for host in self._hosts:
            self._quiet_host(host)
            for addresses in host.links.values():
                for address in addresses:
                    other = everywhere.setdefault(address, host.facts.name)
                    if other != host.facts.name:
                        self.fail(f"{format_address(address)} is on {other} and {host.facts.name}")

    def _quiet_registry(self, items: Mapping[str, KeyValue]) -> None:
        pointed: dict[str, int] = {}
        for key, item in items.items():
            if key.startswith((keys.ADDRESSES, keys.NODE_ENDPOINTS)):
                target = item.value.decode()
                if target not in items:
                    self.fail(f"{key} points to {target}, which does not exist")
                pointed[target] = pointed.get(target, 0) + 1
        attempts = {
            record.attempt: (host, record)
            for host in self._hosts
            for record in host.ledger.interfaces.values()
        }
        registered = set()
        for key in [key for key in items if key.startswith(keys.ENDPOINTS)]:
            endpoint = registry_pb2.Endpoint.FromString(items[key].value)
            count = 1 + bool(endpoint.addresses.ipv4) + bool(endpoint.addresses.ipv6)
            if pointed.get(key) != count:
                self.fail(f"{pointed.get(key)} of {count} keys point to {key}")
            found = attempts.get(endpoint.owner.attempt)
            if found is None or found[1].state is not State.READY:
                self.fail(f"leak: {key} is registered, but its journal says {found and found[1]}")
            registered.add(endpoint.owner.attempt)
        for attempt, (_, record) in attempts.items():
            if record.state is State.READY and attempt not in registered:
                self.fail(f"lost: {record} is not registered")
            if record.state in (State.ALLOCATING, State.RELEASING):
                self.fail(f"unfinished: {record}")

    def _quiet_blocks(self, items: Mapping[str, KeyValue]) -> None:
        blocks = {key for key in items if key.startswith(keys.BLOCKS)}
        requests = {item.value.decode() for key, item in items.items() if key.startswith(REQUESTS)}
        if blocks != requests:
            self.fail(f"blocks {blocks} have requests {requests}")
        journals = {
            (block.prefix, host.facts.name)
            for host in self._hosts
            for block in host.ledger.blocks.values()
        }
        owned = {(prefix, owner[0]) for prefix, owner in self.owners.items()}
        if journals != owned:
            self.fail(f"the store says {owned}, the journals say {journals}")

    def _quiet_host(self, host: Host) -> None:
        name = host.facts.name
        if id(host.ledger) not in self._untouched:
            self._quiet_ledger(host)
        wanted = {
            number: frozenset(record.addresses)
            for number, record in host.ledger.interfaces.items()
            if record.state is State.READY
        }
        if host.links != wanted:
            self.fail(f"{name}: its links are {host.links}, its interfaces {wanted}")

    def _quiet_ledger(self, host: Host) -> None:
        try:
            restoring.check(host.ledger)
        except Internal as error:
            self.fail(f"{error}: {host.ledger}")
        kept, known = durable(host.book.load()), durable(host.ledger)
        for field in fields(Ledger):
            on_disk, in_memory = getattr(kept, field.name), getattr(known, field.name)
            if on_disk != in_memory:
                self.fail(f"{field.name}: the journal has {on_disk}, memory has {in_memory}")

    # --- inside ----------------------------------------------------------------------------------

    def _endpoint(self, key: str) -> registry_pb2.Endpoint | None:
        item = self._items().get(key)
        return None if item is None else registry_pb2.Endpoint.FromString(item.value)

    def _owner(self, address: bytes) -> Owner | None:
        """Who owns the smallest block around an address."""
        best: Prefix | None = None
        for prefix in self.owners:
            if prefix.contains(address) and (best is None or prefix.length > best.length):
                best = prefix
        return None if best is None else self.owners[best]

    def _is_live(self, host: Host) -> bool:
        known = self.nodes.get(host.facts.name)
        return known is not None and known[0] == host.facts.uid and not host.joining


REQUESTS = (keys.BLOCK_REQUESTS,)


def held(ledger: Ledger) -> Iterable[tuple[InterfaceRecord, bytes]]:
    """Which interface has which address."""
    for record in ledger.interfaces.values():
        if record.state in HELD:
            for address in record.addresses:
                yield record, address


def bits(prefix: Prefix) -> int:
    """32 or 128."""
    return len(prefix.address) * 8


def block_of_key(key: str) -> Prefix:
    """The prefix that a block's key names."""
    address, _, length = key.removeprefix(keys.BLOCKS).rpartition("-")
    return Prefix(parse_address(address), int(length))

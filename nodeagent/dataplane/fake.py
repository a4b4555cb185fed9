"""A data plane in memory, for tests of what stands above the port. No packet passes through it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from nodeagent.dataplane import abi, records
from nodeagent.dataplane.balancing_fake import FakeBalancing
from nodeagent.dataplane.config import Capacities
from nodeagent.dataplane.port import (
    Actual,
    Applied,
    CapacityError,
    DenialCount,
    LocalEndpoint,
    Mapping,
    NextHop,
    OutcomeCount,
    PolicyEntry,
    PolicySet,
    PrefixEntry,
    Range,
    Room,
    RuleCount,
    Subject,
    Usage,
)


class FakeDataPlane(FakeBalancing):
    """Implements DataPlane. It plays both the kernel and the adapter: it survives `close`.

    Attributes:
        node_index: as set; 0 before.
        pods: links that attach_pod was called for, in order, repeats included.
        uplinks: the same for attach_uplink.
        tunnels: the same for attach_tunnel.
        directs: the same for attach_direct.
        cgroups: the same for attach_sockets.
        grace_periods: how often synchronize was called.
        denied: what `denials` answers.
        hits: by (set, ruling); what `rule_counts` answers.
    """

    def __init__(self, capacities: Capacities | None = None) -> None:
        self._capacities = (capacities or Capacities()).by_map()
        super().__init__(self._capacities)
        self._applied = Applied(lineage=bytes(16), revision=0)
        self._mappings: dict[bytes, Mapping] = {}
        self._ranges: dict[tuple[bytes, int], Range] = {}
        self._next_hops: dict[int, NextHop] = {}
        self._sets: dict[int, PolicySet] = {}
        self._subjects: dict[int, Subject] = {}
        self._endpoints: dict[int, LocalEndpoint] = {}
        self._holders: dict[bytes, int] = {}
        self.node_index = 0
        self.pods: list[int] = []
        self.uplinks: list[int] = []
        self.tunnels: list[int] = []
        self.directs: list[int] = []
        self.cgroups: list[Path] = []
        self.grace_periods = 0
        self.denied: tuple[DenialCount, ...] = ()
        self.hits: dict[tuple[int, int], int] = {}

    def _check_room(self, name: str, used: int) -> None:
        if used > self._capacities[name]:
            raise CapacityError(name, self._capacities[name])

    def upsert_mappings(self, mappings: Sequence[Mapping]) -> None:
        """Writes identity-map entries."""
        for mapping in mappings:
            self._check_room("mappings", len(self._mappings.keys() | {mapping.address}))
            self._mappings[mapping.address] = mapping

    def delete_mappings(self, addresses: Sequence[bytes]) -> None:
        """Removes identity-map entries."""
        for address in addresses:
            self._mappings.pop(address, None)

    def upsert_ranges(self, ranges: Sequence[Range]) -> None:
        """Writes prefixes."""
        for entry in ranges:
            key = (entry.address, entry.length)
            self._check_room("ranges", len(self._ranges.keys() | {key}))
            self._ranges[key] = entry

    def delete_ranges(self, prefixes: Sequence[tuple[bytes, int]]) -> None:
        """Removes prefixes (16 bytes, length)."""
        for prefix in prefixes:
            self._ranges.pop(prefix, None)

    def upsert_next_hops(self, next_hops: Sequence[NextHop]) -> None:
        """Writes nodes."""
        for hop in next_hops:
            self._check_room("nodes", len(self._next_hops.keys() | {hop.node_index}))
            self._next_hops[hop.node_index] = hop

    def delete_next_hops(self, node_indexes: Sequence[int]) -> None:
        """Removes nodes."""
        for node_index in node_indexes:
            self._next_hops.pop(node_index, None)

    def write_policy_set(self, policy_set: PolicySet) -> None:
        """Writes the whole content of a set that nothing refers to yet."""
        others = [held for held in self._sets.values() if held.set_id != policy_set.set_id]
        # Two keys that the kernel's tables cannot tell apart are one entry; the later one wins.
        entries: dict[bytes, PolicyEntry] = {}
        for entry in policy_set.entries:
            key, value = records.entry_item(policy_set.set_id, entry)
            entries[key] = records.to_entry((key, value))[1]
        prefixes: dict[bytes, PrefixEntry] = {
            records.prefix_item(policy_set.set_id, prefix)[0]: prefix
            for prefix in policy_set.prefixes
        }
        self._check_room(
            "policy_prefixes", sum(len(held.prefixes) for held in others) + len(prefixes)
        )
        self._check_room("policy_entries", sum(len(held.entries) for held in others) + len(entries))
        self._sets[policy_set.set_id] = PolicySet(
            set_id=policy_set.set_id,
            entries=tuple(sorted(entries.values(), key=records.entry_order)),
            prefixes=tuple(sorted(prefixes.values())),
        )

    def delete_policy_sets(self, set_ids: Iterable[int]) -> tuple[RuleCount, ...]:
        """Removes sets that nothing refers to any more; returns what they have counted."""
        gone = set(set_ids)
        for set_id in gone:
            self._sets.pop(set_id, None)
        counted = tuple(count for count in self.rule_counts() if count.set_id in gone)
        for count in counted:
            del self.hits[count.set_id, count.ruling]
        return counted

    def room(self) -> Room:
        """How full the maps of policies are."""
        used = {
            "policy_entries": sum(len(held.entries) for held in self._sets.values()),
            "policy_prefixes": sum(len(held.prefixes) for held in self._sets.values()),
            "subjects": len(self._subjects),
        }
        return Room(
            **{
                name: Usage(used=count, capacity=self._capacities[name])
                for name, count in used.items()
            }
        )

    def rule_counts(self) -> tuple[RuleCount, ...]:
        """Reads the counters of all sets; rulings that were never given are left out."""
        return tuple(
            RuleCount(set_id=set_id, ruling=ruling, hits=hits)
            for (set_id, ruling), hits in self.hits.items()
        )

    def upsert_subjects(self, subjects: Sequence[Subject]) -> None:
        """Switches identities to their sets: atomic per identity."""
        for subject in subjects:
            self._check_room("subjects", len(self._subjects.keys() | {subject.identity}))
            self._subjects[subject.identity] = subject

    def delete_subjects(self, identities: Sequence[int]) -> None:
        """Closes identities."""
        for identity in identities:
            self._subjects.pop(identity, None)

    def upsert_local_endpoints(self, endpoints: Sequence[LocalEndpoint]) -> None:
        """Writes interfaces, in the table by link and in the table by address."""
        for endpoint in endpoints:
            self._check_room("endpoints", len(self._endpoints.keys() | {endpoint.ifindex}))
            self._forget_addresses(endpoint.ifindex)
            self._endpoints[endpoint.ifindex] = endpoint
            for key in records.address_keys(endpoint):
                self._holders[key] = endpoint.ifindex

    def delete_local_endpoints(self, ifindexes: Sequence[int]) -> None:
        """Removes interfaces from both tables."""
        for ifindex in ifindexes:
            self._forget_addresses(ifindex)
            self._endpoints.pop(ifindex, None)

    def _forget_addresses(self, ifindex: int) -> None:
        for key in [key for key, holder in self._holders.items() if holder == ifindex]:
            del self._holders[key]

    def holder_of(self, address: bytes) -> int | None:
        """The link that packets to an address (16 bytes) go to; None: no local pod has it."""
        return self._holders.get(address)

    def set_node_index(self, node_index: int) -> None:
        """Says which node this is, 1 or more, as soon as it is registered."""
        self.node_index = node_index

    def synchronize(self) -> None:
        """Returns when no program still runs on what was replaced before the call."""
        self.grace_periods += 1

    def set_applied(self, applied: Applied) -> None:
        """Records what the kernel state stems from."""
        self._applied = applied

    def dump(self) -> Actual:
        """Reads everything back."""
        subjects = frozenset(self._subjects.values())
        named = {set_id for subject in subjects for set_id in subject.sets}
        held = {
            set_id for set_id, content in self._sets.items() if content.entries or content.prefixes
        }
        return Actual(
            applied=self._applied,
            mappings=frozenset(self._mappings.values()),
            ranges=frozenset(self._ranges.values()),
            next_hops=frozenset(self._next_hops.values()),
            policy_sets=tuple(
                self._sets.get(set_id) or PolicySet(set_id=set_id, entries=(), prefixes=())
                for set_id in sorted((named | held) - {0})
            ),
            subjects=subjects,
            local_endpoints=frozenset(self._endpoints.values()),
        )

    def denials(self) -> tuple[DenialCount, ...]:
        """Reads the denial counters."""
        return self.denied

    def counters(self) -> tuple[OutcomeCount, ...]:
        """Reads the outcome counters, summed over CPUs, in outcome order: no packet ever passed."""
        return tuple(
            OutcomeCount(outcome=outcome.name.lower(), packets=0, bytes=0)
            for outcome in abi.Outcome
        )

    def attach_pod(self, ifindex: int) -> None:
        """Puts from_pod and to_pod on the host-side link, replacing earlier ones atomically."""
        self.pods.append(ifindex)

    def attach_uplink(self, ifindex: int) -> None:
        """Puts from_net on the uplink, replacing earlier ones atomically."""
        self.uplinks.append(ifindex)

    def attach_tunnel(self, ifindex: int) -> None:
        """Puts from_tunnel on the tunnel, replacing earlier ones atomically."""
        self.tunnels.append(ifindex)

    def attach_direct(self, ifindex: int) -> None:
        """Puts from_entry on the link of direct return, replacing earlier ones atomically."""
        self.directs.append(ifindex)

    def attach_sockets(self, cgroup: Path) -> None:
        """Puts the programs of sockets on a cgroup, replacing earlier ones in place."""
        self.cgroups.append(cgroup)

    def close(self) -> None:
        """Closes descriptors; pinned maps and attached programs stay."""

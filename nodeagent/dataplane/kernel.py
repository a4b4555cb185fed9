"""The data plane of this node's kernel.

Upserts and deletes go straight to pinned maps. Nothing is cached but what each policy set
consists of: it is removed by its keys, and finding them anew would mean to read every set.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent.dataplane import abi, cgroups, loader, records, tc
from nodeagent.dataplane.balancing_kernel import KernelBalancing
from nodeagent.dataplane.config import Capacities, DataPlaneConfig
from nodeagent.dataplane.grace import GracePeriod
from nodeagent.dataplane.port import (
    Actual,
    Applied,
    Decisions,
    DenialCount,
    LocalEndpoint,
    Mapping,
    NextHop,
    OutcomeCount,
    PolicySet,
    Range,
    Room,
    RuleCount,
    Subject,
    Usage,
)

_ONLY = records.number_key(0)


@dataclass(frozen=True, slots=True)
class _SetKeys:
    """What there is of one policy set: keys in two maps, and what its entries say."""

    entries: list[bytes]
    prefixes: list[bytes]
    decisions: set[Decisions]


class KernelDataPlane(KernelBalancing):
    """Implements DataPlane. Not for several threads at once.

    Raises (constructor):
        loader.NoBpffs: pin_dir is in no mounted bpffs.
        loader.ObjectsMissing: `make build` has not run.
        loader.SchemaMismatch: what is pinned there was made by other programs.
        OSError: no privilege, or the kernel refuses the programs.
    """

    def __init__(
        self,
        pin_dir: Path,
        *,
        config: DataPlaneConfig,
        capacities: Capacities | None = None,
    ) -> None:
        sizes = (capacities or Capacities()).by_map()
        self._pin_dir = pin_dir
        self._loaded = loader.load(pin_dir, config=config.to_abi(), capacities=sizes)
        self._maps = self._loaded.maps
        self._grace = GracePeriod()
        self._set_keys: dict[int, _SetKeys] = {}
        for key, value in self._maps["policy_entries"].entries():
            keys = self._keys_of(abi.PolicyKey.unpack(key).set_id)
            keys.entries.append(key)
            keys.decisions.add(abi.PolicyEntry.unpack(value))
        for key, _ in self._maps["policy_prefixes"].entries():
            self._keys_of(abi.PrefixKey.unpack(key).set_id).prefixes.append(key)
        if config.node_index:
            self.set_node_index(config.node_index)

    def _keys_of(self, set_id: int) -> "_SetKeys":
        return self._set_keys.setdefault(set_id, _SetKeys([], [], set()))

    def set_node_index(self, node_index: int) -> None:
        """Says which node this is, 1 or more, as soon as it is registered."""
        self._maps["settings"].update([(_ONLY, abi.Settings(node_index).pack())])

    @property
    def node_index(self) -> int:
        """As set, also by an earlier agent; 0 before."""
        value = self._maps["settings"].get(_ONLY)
        return abi.Settings.unpack(value).node_index if value else 0

    def upsert_mappings(self, mappings: Sequence[Mapping]) -> None:
        """Writes identity-map entries."""
        self._maps["mappings"].update([records.mapping_item(mapping) for mapping in mappings])

    def delete_mappings(self, addresses: Sequence[bytes]) -> None:
        """Removes identity-map entries."""
        self._maps["mappings"].delete(addresses)

    def upsert_ranges(self, ranges: Sequence[Range]) -> None:
        """Writes prefixes."""
        self._maps["ranges"].update([records.range_item(entry) for entry in ranges])

    def delete_ranges(self, prefixes: Sequence[tuple[bytes, int]]) -> None:
        """Removes prefixes (16 bytes, length)."""
        self._maps["ranges"].delete(records.range_key(*prefix) for prefix in prefixes)

    def upsert_next_hops(self, next_hops: Sequence[NextHop]) -> None:
        """Writes nodes."""
        self._maps["nodes"].update([records.next_hop_item(hop) for hop in next_hops])

    def delete_next_hops(self, node_indexes: Sequence[int]) -> None:
        """Removes nodes."""
        self._maps["nodes"].delete(map(records.number_key, node_indexes))

    def write_policy_set(self, policy_set: PolicySet) -> None:
        """Writes the whole content of a set that nothing refers to yet."""
        set_id = policy_set.set_id
        # Prefixes first: a class without entries allows nothing.
        prefixes = [records.prefix_item(set_id, prefix) for prefix in policy_set.prefixes]
        entries = [records.entry_item(set_id, entry) for entry in policy_set.entries]
        self.delete_policy_sets([set_id])
        # Known before they are written: what a full map leaves behind is removed with the set.
        self._set_keys[set_id] = _SetKeys(
            [key for key, _ in entries],
            [key for key, _ in prefixes],
            {entry.decisions for entry in policy_set.entries},
        )
        self._maps["policy_prefixes"].update(prefixes)
        self._maps["policy_entries"].update(entries)

    def delete_policy_sets(self, set_ids: Iterable[int]) -> tuple[RuleCount, ...]:
        """Removes sets that nothing refers to any more; returns what they have counted."""
        numbers = tuple(set_ids)
        gone = [self._set_keys.pop(number, _SetKeys([], [], set())) for number in numbers]
        self._maps["policy_entries"].delete(key for keys in gone for key in keys.entries)
        self._maps["policy_prefixes"].delete(key for keys in gone for key in keys.prefixes)
        counters = [
            records.rule_key(number, ruling)
            for number, keys in zip(numbers, gone, strict=True)
            for ruling in records.rulings_of(keys.decisions)
        ]
        found = [(key, self._maps["rules"].get(key)) for key in counters]
        held = [(key, value) for key, value in found if value is not None]
        self._maps["rules"].delete(key for key, _ in held)
        return tuple(map(records.to_rule_count, held))

    def room(self) -> Room:
        """How full the maps of policies are."""
        held = self._set_keys.values()
        used = {
            "policy_entries": sum(len(keys.entries) for keys in held),
            "policy_prefixes": sum(len(keys.prefixes) for keys in held),
            "subjects": sum(1 for _ in self._maps["subjects"].entries()),
        }
        return Room(
            **{
                name: Usage(used=count, capacity=self._maps[name].shape.capacity)
                for name, count in used.items()
            }
        )

    def rule_counts(self) -> tuple[RuleCount, ...]:
        """Reads the counters of all sets; rulings that were never given are left out."""
        return tuple(map(records.to_rule_count, self._maps["rules"].entries()))

    def upsert_subjects(self, subjects: Sequence[Subject]) -> None:
        """Switches identities to their sets: atomic per identity."""
        self._maps["subjects"].update([records.subject_item(subject) for subject in subjects])

    def delete_subjects(self, identities: Sequence[int]) -> None:
        """Closes identities."""
        self._maps["subjects"].delete(map(records.number_key, identities))

    def upsert_local_endpoints(self, endpoints: Sequence[LocalEndpoint]) -> None:
        """Writes interfaces, in the table by link and in the table by address."""
        for endpoint in endpoints:
            value = records.endpoint_value(endpoint)
            keys = records.address_keys(endpoint)
            self._forget_addresses(endpoint.ifindex, keep=keys)
            self._maps["endpoints"].update([(records.number_key(endpoint.ifindex), value)])
            self._maps["addresses"].update([(key, value) for key in keys])

    def delete_local_endpoints(self, ifindexes: Sequence[int]) -> None:
        """Removes interfaces from both tables."""
        for ifindex in ifindexes:
            self._forget_addresses(ifindex, keep=())
        self._maps["endpoints"].delete(map(records.number_key, ifindexes))

    def _forget_addresses(self, ifindex: int, *, keep: tuple[bytes, ...]) -> None:
        """Removes a link's addresses, but those that another link has been given since."""
        value = self._maps["endpoints"].get(records.number_key(ifindex))
        if value is None:
            return
        addresses = self._maps["addresses"]
        for key in records.address_keys(records.to_endpoint(value)):
            if key not in keep and self.holder_of(key) == ifindex:
                addresses.delete([key])

    def holder_of(self, address: bytes) -> int | None:
        """The link that packets to an address (16 bytes) go to; None: no local pod has it."""
        value = self._maps["addresses"].get(address)
        return None if value is None else abi.Endpoint.unpack(value).ifindex

    def synchronize(self) -> None:
        """Returns when no program still runs on what was replaced before the call."""
        self._grace.wait()

    def set_applied(self, applied: Applied) -> None:
        """Records what the kernel state stems from."""
        value = abi.Applied(applied.lineage, applied.revision).pack()
        self._maps["applied"].update([(_ONLY, value)])

    def dump(self) -> Actual:
        """Reads everything back."""
        applied = abi.Applied.unpack(self._maps["applied"].get(_ONLY) or bytes(abi.APPLIED_SIZE))
        subjects = frozenset(map(records.to_subject, self._maps["subjects"].entries()))
        return Actual(
            applied=Applied(lineage=applied.lineage, revision=applied.revision),
            mappings=frozenset(map(records.to_mapping, self._maps["mappings"].entries())),
            ranges=frozenset(map(records.to_range, self._maps["ranges"].entries())),
            next_hops=frozenset(map(records.to_next_hop, self._maps["nodes"].entries())),
            policy_sets=self._dump_policy_sets(subjects),
            subjects=subjects,
            local_endpoints=frozenset(
                records.to_endpoint(value) for _, value in self._maps["endpoints"].entries()
            ),
        )

    def _dump_policy_sets(self, subjects: frozenset[Subject]) -> tuple[PolicySet, ...]:
        """Sets that hold something or that a subject names: an empty set denies everything."""
        entries = records.grouped(map(records.to_entry, self._maps["policy_entries"].entries()))
        prefixes = records.grouped(map(records.to_prefix, self._maps["policy_prefixes"].entries()))
        named = {set_id for subject in subjects for set_id in subject.sets}
        return tuple(
            PolicySet(
                set_id=set_id,
                entries=tuple(sorted(entries.get(set_id, ()), key=records.entry_order)),
                prefixes=tuple(sorted(prefixes.get(set_id, ()))),
            )
            for set_id in sorted((named | entries.keys() | prefixes.keys()) - {0})
        )

    def denials(self) -> tuple[DenialCount, ...]:
        """Reads the denial counters."""
        return tuple(map(records.to_denial, self._maps["denials"].entries()))

    def counters(self) -> tuple[OutcomeCount, ...]:
        """Reads the outcome counters, summed over CPUs, in outcome order."""
        counts = []
        for outcome in abi.Outcome:
            values = self._maps["outcomes"].per_cpu(records.number_key(outcome))
            per_cpu = [abi.Count.unpack(value) for value in values]
            counts.append(
                OutcomeCount(
                    outcome=outcome.name.lower(),
                    packets=sum(count.packets for count in per_cpu),
                    bytes=sum(count.octets for count in per_cpu),
                )
            )
        return tuple(counts)

    def attach_pod(self, ifindex: int) -> None:
        """Puts from_pod and to_pod on the host-side link, replacing earlier ones atomically."""
        programs = self._loaded.programs
        tc.attach(
            ifindex,
            {
                tc.Hook.INGRESS: ("from_pod", programs["from_pod"]),
                tc.Hook.EGRESS: ("to_pod", programs["to_pod"]),
            },
        )

    def attach_uplink(self, ifindex: int) -> None:
        """Puts from_net on the uplink, replacing earlier ones atomically."""
        tc.attach(ifindex, {tc.Hook.INGRESS: ("from_net", self._loaded.programs["from_net"])})

    def attach_tunnel(self, ifindex: int) -> None:
        """Puts from_tunnel on the tunnel, replacing earlier ones atomically."""
        program = self._loaded.programs["from_tunnel"]
        tc.attach(ifindex, {tc.Hook.INGRESS: ("from_tunnel", program)})

    def attach_direct(self, ifindex: int) -> None:
        """Puts from_entry on the link of direct return, replacing earlier ones atomically."""
        tc.attach(ifindex, {tc.Hook.INGRESS: ("from_entry", self._loaded.programs["from_entry"])})

    def attach_sockets(self, cgroup: Path) -> None:
        """Puts the programs of sockets on a cgroup, replacing earlier ones in place.

        Raises:
            OSError: it is no cgroup of version 2.
        """
        programs = self._loaded.programs
        cgroups.attach(cgroup, self._pin_dir, {name: programs[name] for name in cgroups.KINDS})

    def close(self) -> None:
        """Closes descriptors; pinned maps and attached programs stay."""
        self._grace.close()
        self._loaded.close()

"""From the streamed view and this node's own interfaces to what the kernel should hold. Pure.

The tracker holds no decision of its own: every answer is a function of the view, the local
interfaces and, for an interface whose new identity has no policy yet, of what is in force. What it
remembers besides are indexes, so that a barrier costs as much as it changes.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple, TypeVar

from deltaplane.delta.changes import ObjectKey
from deltaplane.delta.view import View
from deltaplane.model.addresses import AddressPair, Prefix, to_mapped
from deltaplane.model.identity import Reserved
from deltaplane.model.objects import (
    EndpointObject,
    Kind,
    NodeObject,
    SubjectPolicy,
)
from nodeagent import policy, routes
from nodeagent.dataplane.port import LocalEndpoint, Mapping, NextHop, Range
from nodeagent.masquerade import Member
from nodeagent.origins import Origins, prefix_of
from nodeagent.state import Kernel, LocalInterface, Policies, RangeKey, Touched, Wanted

K = TypeVar("K")
V = TypeVar("V")

NEVER_OPEN = frozenset({Reserved.NONE, Reserved.INIT, Reserved.UNKNOWN})
"""Identities that never open an interface."""


class Counts(NamedTuple):
    """Objects in the view."""

    endpoints: int
    identities: int
    subject_policies: int


class Tracker:
    """The desired state of one node.

    Args:
        tunnel: uplink addresses of this node if it wraps what goes to other nodes.
        masquerades: whether pods' packets to the world take this node's address.

    Attributes:
        node_index: our own number; 0 before the node is registered.
        origins: the objects that all this stems from, for a refusal.
    """

    def __init__(self, tunnel: AddressPair | None = None, *, masquerades: bool = False) -> None:
        self.node_index = 0
        self._tunnel = tunnel
        self._masquerades = masquerades
        self.origins = Origins()
        self._view = View()
        self._revision = 0
        self._locals: dict[int, LocalInterface] = {}
        # Indexes over the interfaces: by link, by address (16 bytes), and those whose registration
        # is ahead of the view.
        self._by_link: dict[int, LocalInterface] = {}
        self._locals_at: dict[bytes, set[int]] = {}
        self._ahead: set[int] = set()

    # --- inputs ----------------------------------------------------------------------------------

    def advance(self, view: View, revision: int, changed: Iterable[ObjectKey]) -> Touched:
        """Takes a barrier: the view is at `revision`; `changed` is what the last call has not seen.

        The view is read until the next call, so it must not change in between without one.
        """
        if revision < self._revision:
            # Another lineage: what was covered may be ahead again.
            self._ahead = {n for n, local in self._locals.items() if local.revision > revision}
        self._view, self._revision = view, revision
        self.origins.advance(view)
        touched = Touched()
        for key in changed:
            self._touch(key, touched)
        # A registration that the stream now covers hands over to the stream.
        for number in [n for n in self._ahead if self._locals[n].revision <= revision]:
            self._ahead.discard(number)
            self._touch_local(self._locals[number], touched)
        return touched

    def add_local(self, local: LocalInterface) -> Touched:
        """An interface is there, or has been registered."""
        touched = self.remove_local(local.number)
        self._locals[local.number] = local
        self._by_link[local.ifindex] = local
        for address in map(to_mapped, local.addresses):
            self._locals_at.setdefault(address, set()).add(local.number)
        if local.revision > self._revision:
            self._ahead.add(local.number)
        self._touch_local(local, touched)
        return touched

    def registered(self, number: int, identity: int, revision: int) -> Touched:
        """The registry has answered; nothing happens for an interface that is gone."""
        local = self._locals.get(number)
        if local is None:
            return Touched()
        return self.add_local(replace(local, identity=identity, revision=revision))

    def remove_local(self, number: int) -> Touched:
        """An interface goes."""
        touched = Touched()
        local = self._locals.pop(number, None)
        if local is not None:
            self._ahead.discard(number)
            if self._by_link.get(local.ifindex) is local:
                del self._by_link[local.ifindex]
            for address in map(to_mapped, local.addresses):
                self._locals_at[address].discard(number)
                if not self._locals_at[address]:
                    del self._locals_at[address]
            self._touch_local(local, touched)
        return touched

    def everything(self) -> Touched:
        """All that the view and the interfaces ask for."""
        touched = Touched()
        for held in self._view:
            self._touch((held.value.kind, held.value.key), touched)
        for local in self._locals.values():
            self._touch_local(local, touched)
        return touched

    @property
    def locals(self) -> dict[int, LocalInterface]:
        """Interfaces by number."""
        return dict(self._locals)

    def counts(self) -> Counts:
        """How much the view holds."""
        view = self._view
        return Counts(len(view.endpoints), len(view.identities), len(view.subject_policies))

    # --- what should be --------------------------------------------------------------------------

    def wanted(self, touched: Touched, kernel: Kernel) -> Wanted:
        """What should be at the touched keys.

        Args:
            touched: keys to answer for. Subjects that the touched interfaces need or leave are
                added to it.
            kernel: what is in force: an interface keeps its identity until the new one has a
                policy.
        """
        identities = {
            ifindex: self._identity(local, kernel)
            for ifindex in touched.endpoints
            if (local := self._by_link.get(ifindex)) is not None
        }
        for ifindex in touched.endpoints:
            in_force = kernel.endpoints.get(ifindex)
            touched.subjects |= {identities.get(ifindex, 0), in_force.identity if in_force else 0}
        touched.subjects.discard(0)
        needed = set(identities.values())
        if touched.subjects - needed:
            # Asked of all interfaces only when the touched ones do not answer it.
            needed |= {self._identity(local, kernel) for local in self._locals.values()}
        return Wanted(
            next_hops=_found(touched.next_hops, self._next_hop),
            ranges=_found(touched.ranges, self._range),
            routes=_found(touched.routes, self._route),
            mappings=_found(touched.mappings, self._mapping),
            members=_found(touched.members, self._member),
            subjects=_found(touched.subjects & needed, self._policies),
            endpoints={
                ifindex: _endpoint(self._by_link[ifindex], identity)
                for ifindex, identity in identities.items()
            },
        )

    def wanted_identity(self, local: LocalInterface) -> int:
        """The identity that an interface has by the newest that is known.

        INIT or 0: none that opens.
        """
        held = self._view.endpoints.get(self._key(local))
        if held is not None:
            return held.value.identity
        return local.identity if self._is_ahead(local) else 0

    def missing_peer_sets(self, identity: int) -> tuple[bytes, ...]:
        """Peer sets that the policies of an identity name and the view lacks.

        Closure is broken then.
        """
        held = self._view.subject_policies.get(identity.to_bytes(4))
        return () if held is None else self._resolve(held.value).missing

    # --- inside ----------------------------------------------------------------------------------

    def _touch(self, key: ObjectKey, touched: Touched) -> None:
        self.origins.touch(key, touched)
        kind, name = key
        match kind:
            case Kind.ENDPOINT:
                local = self._locals.get(int.from_bytes(name[4:]))
                if local is not None and self._key(local) == name:
                    self._touch_local(local, touched)
            case Kind.SUBJECT_POLICY:
                self._touch_subject(int.from_bytes(name), touched)
            case Kind.PEER_SET:
                for identity in self._wanted_identities():
                    held_policy = self._view.subject_policies.get(identity.to_bytes(4))
                    if held_policy and name in _peer_set_keys(held_policy.value):
                        touched.subjects.add(identity)
            case _:
                # Identities are for people; services are `nodeagent.balancing`'s; for the rest the
                # origins have answered.
                pass

    def _touch_subject(self, identity: int, touched: Touched) -> None:
        touched.subjects.add(identity)
        touched.endpoints |= {
            local.ifindex
            for local in self._locals.values()
            if self.wanted_identity(local) == identity
        }

    def _touch_local(self, local: LocalInterface, touched: Touched) -> None:
        touched.endpoints.add(local.ifindex)
        touched.mappings |= {to_mapped(address) for address in local.addresses}

    def _key(self, local: LocalInterface) -> bytes:
        return self.node_index.to_bytes(4) + local.number.to_bytes(4)

    def _is_ahead(self, local: LocalInterface) -> bool:
        """Between the registry's answer and the barrier that covers it the answer counts."""
        return local.revision > self._revision and self._key(local) not in self._view.endpoints

    def _wanted_identities(self) -> set[int]:
        return {self.wanted_identity(local) for local in self._locals.values()}

    def _identity(self, local: LocalInterface, kernel: Kernel) -> int:
        """The identity by which an interface should be judged now; 0: closed."""
        identity = self.wanted_identity(local)
        in_force = kernel.endpoints.get(local.ifindex)
        if self._revision == 0:
            # No view yet: what is in force stays, and what has policies in force may open.
            if identity in kernel.subjects and identity not in NEVER_OPEN:
                return identity
            return in_force.identity if in_force else 0
        if identity in NEVER_OPEN:
            return 0
        if identity.to_bytes(4) in self._view.subject_policies:
            return identity
        if in_force and in_force.identity.to_bytes(4) in self._view.subject_policies:
            return in_force.identity
        return 0

    def _mapping(self, address: bytes) -> Mapping | None:
        key = self.origins.object_of(address)
        if key is None:
            return self._own_mapping(address)
        if key[0] is Kind.NODE:
            return self._node_mapping(address, self._view.nodes[key[1]].value)
        endpoint: EndpointObject = self._view.endpoints[key[1]].value
        return Mapping(address=address, identity=endpoint.identity, node_index=endpoint.node_index)

    def _node_mapping(self, address: bytes, node: NodeObject) -> Mapping:
        own = node.index == self.node_index
        identity = Reserved.HOST if own else Reserved.REMOTE_NODE
        return Mapping(address=address, identity=int(identity), node_index=node.index)

    def _own_mapping(self, address: bytes) -> Mapping | None:
        """The mapping of an interface that is registered but not streamed yet."""
        # The newest, should there ever be two: the answer must not depend on their order.
        for number in sorted(self._locals_at.get(address, ()), reverse=True):
            local = self._locals[number]
            if self._is_ahead(local):
                return Mapping(address=address, identity=local.identity, node_index=self.node_index)
        return None

    def _next_hop(self, index: int) -> NextHop | None:
        held = self._view.nodes.get(index.to_bytes(4))
        if held is None:
            return None
        addresses = held.value.addresses
        return NextHop(node_index=index, ipv4=addresses.ipv4, ipv6=addresses.ipv6)

    def _range(self, key: RangeKey) -> Range | None:
        address, length = key
        block = self.origins.block(prefix_of(key))
        if block is None:
            return None
        return Range(
            address=address,
            length=length,
            identity=int(Reserved.OTHER_POD),
            node_index=block.node_index,
        )

    def _route(self, prefix: Prefix) -> routes.Route | None:
        block = self.origins.block(prefix)
        if block is None:
            return None
        held = self._view.nodes.get(block.node_index.to_bytes(4))
        owner = held.value.addresses if held else None
        own = block.node_index == self.node_index
        return routes.route(prefix, owner, own=own, tunnel=self._tunnel)

    def _member(self, member: Member) -> Member | None:
        return member if self._masquerades and self.origins.member_key(member) is not None else None

    def _policies(self, identity: int) -> Policies | None:
        held = self._view.subject_policies.get(identity.to_bytes(4))
        if held is None:
            return None
        resolved = self._resolve(held.value)
        return Policies(
            resolved.ingress, resolved.egress, resolved.audit_ingress, resolved.audit_egress
        )

    def _resolve(self, subject_policy: SubjectPolicy) -> policy.ResolvedPolicy:
        named = {
            key: held.value
            for key in _peer_set_keys(subject_policy)
            if (held := self._view.peer_sets.get(key)) is not None
        }
        return policy.resolve(subject_policy, named)


def _found(keys: Iterable[K], find: Callable[[K], V | None]) -> dict[K, V]:
    """Answers per key; without those that have none."""
    return {key: value for key in keys if (value := find(key)) is not None}


def _endpoint(local: LocalInterface, identity: int) -> LocalEndpoint:
    return LocalEndpoint(
        ifindex=local.ifindex,
        endpoint_id=local.number,
        identity=identity,
        ipv4=local.addresses.ipv4,
        ipv6=local.addresses.ipv6,
        pod_mac=local.pod_mac,
        host_mac=local.host_mac,
    )


def _peer_set_keys(subject: SubjectPolicy) -> set[bytes]:
    rules = (*subject.ingress.rules, *subject.egress.rules)
    return {key for rule in rules for key in rule.peer_sets}

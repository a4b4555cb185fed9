"""Made-up services, what should answer where, and whether the kernel's maps say so."""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import replace
from random import Random

from deltaplane.model.addresses import Prefix, to_mapped
from deltaplane.model.objects import BackendObject, BackendState, ServiceObject
from deltaplane.model.ports import Protocol
from deltaplane.model.service import ServicePort, SlicePort
from nodeagent.dataplane.balancing import (
    NODE_PORT_IPV4,
    NODE_PORT_IPV6,
    Backend,
    Balancing,
    FrontendKey,
)
from nodeagent.services import maglev
from nodeagent.services.choosing import Where
from nodeagent.tables import best_fill

FILL = best_fill()
WHERE = Where(node_index=1, node="n1", zone="z1")
Answer = tuple[frozenset[Backend], frozenset[Backend] | None]
"""Backends for clients inside, and outside; None: no frontend for these."""

Answers = dict[FrontendKey, Answer]


def ip(number: int, size: int) -> bytes:
    return (
        bytes((10, 96, number >> 8, number & 255)) if size == 4 else b"\xfd" + number.to_bytes(15)
    )


def service(chance: Random, number: int) -> ServiceObject:
    ports = [
        ServicePort(
            name=name,
            protocol=chance.choice([Protocol.TCP, Protocol.UDP]),
            port=port,
            node_port=chance.choice([0, 30000 + number * 4 + port % 4]),
        )
        for name, port in [("a", 80), ("b", 53)]
        if chance.random() < 0.8
    ]
    sizes = chance.choice([(4,), (16,), (4, 16)])
    # Some addresses are those of other services, too.
    return ServiceObject(
        number=number,
        namespace="default",
        name=f"s{number}",
        ports=tuple(ports),
        cluster_ips=tuple(ip(number, size) for size in sizes),
        external_ips=tuple(
            ip(200 + chance.randrange(2), size) for size in chance.choice([(), (4,), (4, 16)])
        ),
        load_balancer_ips=tuple(ip(300 + number, size) for size in chance.choice([(), (4, 16)])),
        source_ranges=chance.choice([(), (Prefix.parse("192.0.2.0/24"),)]),
        affinity_seconds=chance.choice([0, 0, 30]),
        internal_local=chance.random() < 0.3,
        external_local=chance.random() < 0.3,
    )


def backend(chance: Random, number: int, address: bytes) -> BackendObject:
    return BackendObject(
        service=number,
        address=address,
        ports=tuple(
            SlicePort(name=name, protocol=protocol, number=8000 + chance.randrange(2))
            for name in "ab"
            for protocol in (Protocol.TCP, Protocol.UDP)
            if chance.random() < 0.8
        ),
        state=chance.choice([BackendState.READY, BackendState.READY, BackendState.TERMINATING]),
        node_index=chance.choice([0, 1, 2]),
        zones=chance.choice([(), ("z1",), ("z1",), ("z2",)]),
        nodes=chance.choice([(), ("n1",), ("n2",)]),
    )


def answers(
    services: Mapping[int, ServiceObject], backends: Iterable[BackendObject], where: Where = WHERE
) -> Answers:
    """What should answer where, slowly and from the rules alone."""
    found: Answers = {}
    everyone = list(backends)
    for number in sorted(services):
        value = services[number]
        sizes = {len(address) for address in value.cluster_ips}
        for port in value.ports:
            for size in sizes:
                mine = [b for b in everyone if b.service == number and len(b.address) == size]
                cluster, local = _chosen(mine, port, where)
                inside = local if value.internal_local else cluster
                outside = local if value.external_local else cluster
                for address in value.cluster_ips:
                    if len(address) == size:
                        found.setdefault(_key(address, port), (inside, None))
                for address in (*value.external_ips, *value.load_balancer_ips):
                    if len(address) == size:
                        found.setdefault(_key(address, port), (cluster, outside))
                if port.node_port:
                    zero = NODE_PORT_IPV4 if size == 4 else NODE_PORT_IPV6
                    key = replace(_key(zero, port), port=port.node_port)
                    found.setdefault(key, (cluster, outside))
    return found


def _key(address: bytes, port: ServicePort) -> FrontendKey:
    return FrontendKey(address=to_mapped(address), protocol=int(port.protocol), port=port.port)


def _chosen(
    values: list[BackendObject], port: ServicePort, where: Where
) -> tuple[frozenset[Backend], frozenset[Backend]]:
    serving = [
        (value, served.number)
        for value in values
        for served in value.ports
        if (served.name, served.protocol) == (port.name, port.protocol)
    ]
    ready = [one for one in serving if one[0].state is BackendState.READY]
    going = [one for one in serving if one[0].state is BackendState.TERMINATING]
    near = ready
    if all(one.nodes for one, _ in ready) and any(where.node in one.nodes for one, _ in ready):
        near = [one for one in ready if where.node in one[0].nodes]
    elif all(one.zones for one, _ in ready) and any(where.zone in one.zones for one, _ in ready):
        near = [one for one in ready if where.zone in one[0].zones]
    here = [one for one in ready if one[0].node_index == where.node_index]
    going_here = [one for one in going if one[0].node_index == where.node_index]
    return _backends(near or going), _backends(here or going_here)


def _backends(chosen: list[tuple[BackendObject, int]]) -> frozenset[Backend]:
    return frozenset(
        Backend(address=to_mapped(value.address), port=number) for value, number in chosen
    )


def standing(held: Balancing) -> Answers:
    """What the maps answer with; every place that is named exists."""
    slots = {(slot.list_id, slot.slot): slot.backend for slot in held.slots}
    found: Answers = {}
    for one in held.frontends:
        inside = [slots[one.list_id, place] for place in range(one.count)]
        outside = None
        if one.outside_list:
            named = _named(held.tables[one.outside_list]) if one.outside_count else set()
            outside = frozenset(slots[one.outside_list, place] for place in named)
        found[one.key] = frozenset(inside), outside
    return found


def _named(table: bytes) -> set[int]:
    return set(array("H", table))


def check_end(held: Balancing, wanted: Answers) -> None:
    """The maps are what a node without a past would have, but for numbers and places."""
    assert standing(held) == wanted
    slots = {(slot.list_id, slot.slot): slot.backend for slot in held.slots}
    named: set[tuple[int, int]] = set()
    members: set[tuple[int, Backend]] = set()
    tables = set()
    for one in held.frontends:
        lists = {(one.list_id, place) for place in range(one.count)}
        assert len({slots[place] for place in lists}) == one.count
        if one.outside_list and one.outside_count:
            tables.add(one.outside_list)
            table = held.tables[one.outside_list]
            outside = {(one.outside_list, place) for place in _named(table)}
            assert len(outside) == one.outside_count
            turns = sorted((slots[place], place[1]) for place in outside)
            assert maglev.table(turns, FILL) == table
            lists |= outside
        named |= lists
        if one.affinity_seconds or one.key.protocol == Protocol.UDP:
            members |= {(place[0], slots[place]) for place in lists}
    assert set(held.tables) >= tables
    assert {(member.list_id, member.backend) for member in held.members} >= members

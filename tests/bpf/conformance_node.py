"""Connections of conformance cases, judged by the real programs packet by packet.

A case's policies go through parser, compiler and resolver into the maps of one node. Then the first
packet of every connection runs through the programs twice:

    each pod on a node of its own    from_pod of the source, then from_net and to_pod of the other
    all pods on this node            from_pod of the source, which judges both ends

Test runs name a link that must exist, and only the loopback is sure to: the pod whose turn it is
moves behind it.
"""

import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

from nodeagent.dataplane import port, testrun
from nodeagent.dataplane.kernel import KernelDataPlane
from nodeagent.dataplane.testrun import Action
from nodeagent.policy import ResolvedDirection
from tests.bpf.conftest import B_MACS, LINK_A, LINK_B, NODE, OTHER4, OTHER6, OTHER_NODE
from tests.bpf.conftest import World as Maps
from tests.bpf.packets import SCTP, Flow, address, mapped
from tests.conformance.cases import Case, Party, Row, Step
from tests.conformance.world import World

FIRST_SOURCE_PORT = 20000
"""Above every port that a case probes: no packet can pass for the answer to another."""

IPV6_SPACE = "fd00:64::"
"""A /96: the IPv4 addresses of a case as IPv6 addresses."""


def in_ipv6(text: str) -> str:
    """An IPv4 address, or a prefix of them, inside IPV6_SPACE."""
    network = ip_network(text)
    inside = ip_address(int(ip_address(IPV6_SPACE)) + int(network.network_address))
    return f"{inside}/{96 + network.prefixlen}" if "/" in text else str(inside)


def steps(case: Case, family: str) -> Iterator[Step]:
    """The steps of a case that speaks IPv4 only, as they are or moved to IPv6.

    Addresses and blocks move together, so that every block holds the same pods as before.
    """
    if family == "IPv4":
        yield from case.steps()
        return
    for step in case.steps(in_ipv6):
        parties = {
            name: replace(party, ipv4=None, ipv6=in_ipv6(party.ipv4))
            for name, party in step.parties.items()
            if party.ipv4
        }
        rows = tuple(replace(row, family=family) for row in step.rows)
        yield replace(step, parties=parties, rows=rows)


def sctp_init(sport: int, dport: int) -> bytes:
    """The packet that asks for an association (RFC 9260 section 3.3.2); its tag is always 0."""
    init = struct.pack(">BBHIIHHI", 1, 0, 20, 7, 65536, 10, 10, 1)
    return struct.pack(">HHII", sport, dport, 0, 0) + init


def first_packet(row: Row, parties: Mapping[str, Party], sport: int) -> bytes:
    """What the source sends to open a connection."""
    source, destination = (parties[name].address(row.family) for name in _ends(row))
    assert source is not None
    assert destination is not None
    flow = Flow(source, destination, sport, row.port)
    match row.protocol:
        case "TCP":
            return flow.tcp()
        case "UDP":
            return flow.udp()
        case "SCTP":
            return flow.frame(SCTP, sctp_init(sport, row.port))
        case _:
            raise ValueError(row.protocol)


class Node:
    """The programs and the maps of one node, which is lent to one case after the other."""

    def __init__(self, plane: KernelDataPlane) -> None:
        self._plane = plane
        self._maps = Maps(plane)
        self._world = World()
        self._parties: Mapping[str, Party] = {}
        self._pods: list[Party] = []
        self._links: list[int] = []
        self._packets = 0
        self._expected: Counter[str] = Counter()

    def differences(
        self, case: Case, case_steps: Iterable[Step], *, protocols: frozenset[str]
    ) -> tuple[list[str], int]:
        """Walks through a case.

        Returns:
            What differs from the case, and how many connections were compared.
        """
        self._world = World()
        self._world.apply(case.setup())
        found: list[str] = []
        compared = 0
        for number, step in enumerate(case_steps):
            self._world.delete(step.delete)
            self._world.apply(step.apply)
            self._world.settle()
            rows = [row for row in step.rows if row.protocol in protocols]
            if rows:
                where = f"{case.name}, step {number}"
                found += [f"{where}: {line}" for line in self._compare(rows, step.parties)]
                compared += len(rows)
        return found, compared

    def _compare(self, rows: Sequence[Row], parties: Mapping[str, Party]) -> list[str]:
        """Judges connections in the present world, from empty maps on."""
        self._take_over(parties)
        before = self._outcomes()
        sides = self._judge_apart(rows)
        passing = self._judge_together(rows, sides)
        found = []
        for row in rows:
            wrong = row.sides is not None and row.sides != sides[row]
            if wrong or (sides[row] == "") != row.allowed:
                found.append(f"{row}, but with the pods apart these deny: {sides[row]!r}")
            if passing.get(row, row.allowed) != row.allowed:
                found.append(f"{row}, but with the pods on one node: {passing[row]}")
        moved = self._outcomes() - before
        # A packet that is dropped as malformed or spoofed is denied for the wrong reason.
        if moved != self._expected:
            found.append(f"outcomes {dict(moved)}, but expected {dict(self._expected)}")
        return found

    # --- the maps ---------------------------------------------------------------------------------

    def _take_over(self, parties: Mapping[str, Party]) -> None:
        """Empties all maps, connections included, and writes what an agent would write."""
        self._maps.reset()
        self._parties = parties
        self._pods = [party for party in parties.values() if party.namespace]
        self._links = []
        self._packets = 0
        self._expected = Counter()
        self._plane.set_node_index(NODE)
        hop = port.NextHop(node_index=OTHER_NODE, ipv4=address(OTHER4), ipv6=address(OTHER6))
        self._plane.upsert_next_hops([hop])
        for index, identity in enumerate(sorted(self._world.in_use)):
            resolved = self._world._of(identity)
            subject = port.Subject(
                identity=identity,
                ingress_set=self._write_set(2 * index + 1, resolved.ingress),
                egress_set=self._write_set(2 * index + 2, resolved.egress),
                epoch=1,
            )
            self._plane.upsert_subjects([subject])

    def _write_set(self, set_id: int, direction: ResolvedDirection | None) -> int:
        """Returns the id for the subject: 0 if it is not isolated."""
        if direction is None:
            return 0
        tables = port.PolicySet(
            set_id=set_id, entries=direction.entries, prefixes=direction.prefixes
        )
        self._plane.write_policy_set(tables)
        return set_id

    def _place(self, here: Sequence[Party], behind_loopback: Party) -> None:
        """Puts pods on this node and all others on the other node."""
        mappings = [
            port.Mapping(
                address=mapped(text),
                identity=self._world.identity(pod.name),
                node_index=NODE if pod in here else OTHER_NODE,
            )
            for pod in self._pods
            for text in (pod.ipv4, pod.ipv6)
            if text
        ]
        endpoints = [
            port.LocalEndpoint(
                ifindex=LINK_A if pod is behind_loopback else LINK_B + index,
                endpoint_id=index + 1,
                identity=self._world.identity(pod.name),
                ipv4=address(pod.ipv4) if pod.ipv4 else None,
                ipv6=address(pod.ipv6) if pod.ipv6 else None,
                pod_mac=B_MACS[:6],
                host_mac=B_MACS[6:],
            )
            for index, pod in enumerate(here)
        ]
        self._plane.delete_local_endpoints(self._links)
        self._plane.upsert_mappings(mappings)
        self._plane.upsert_local_endpoints(endpoints)
        self._links = [endpoint.ifindex for endpoint in endpoints]

    def _outcomes(self) -> Counter[str]:
        return Counter({count.outcome: count.packets for count in self._plane.counters()})

    # --- packets ----------------------------------------------------------------------------------

    def _judge_apart(self, rows: Sequence[Row]) -> dict[Row, str]:
        """Which sides deny ("E", "I", "EI" or "") while each pod is on a node of its own."""
        leaving = _grouped(rows, lambda row: row.source)
        entering = _grouped(rows, lambda row: row.destination)
        at_source, at_destination = set(), set()
        for pod in self._pods:
            self._place([pod], behind_loopback=pod)
            for row in leaving[pod.name]:
                to_pod = self._parties[row.destination].namespace is not None
                passed = "pass_remote" if to_pod else "pass_stack"
                if not self._passes("from_pod", row, passed, "drop_egress_policy"):
                    at_source.add(row)
            for row in entering[pod.name]:
                past_stack = self._passes("from_net", row, "pass_local", "drop_ingress_policy")
                by_stack = self._passes("to_pod", row, "pass_to_pod", "drop_ingress_policy")
                assert past_stack == by_stack, row
                if not past_stack:
                    at_destination.add(row)
        return {row: "E" * (row in at_source) + "I" * (row in at_destination) for row in rows}

    def _judge_together(self, rows: Sequence[Row], sides: Mapping[Row, str]) -> dict[Row, bool]:
        """Whether connections between pods come about while all pods are on this node."""
        between = [row for row in rows if all(self._parties[end].namespace for end in _ends(row))]
        leaving = _grouped(between, lambda row: row.source)
        passing = {}
        for pod in self._pods:
            self._place(self._pods, behind_loopback=pod)
            for row in leaving[pod.name]:
                denied = "drop_egress_policy" if "E" in sides[row] else "drop_ingress_policy"
                passing[row] = self._passes("from_pod", row, "pass_local", denied)
        return passing

    def _passes(self, program: str, row: Row, passed: str, denied: str) -> bool:
        """Opens the connection from a port that no packet before had; notes what to expect."""
        assert row.source != row.destination, "a pod's packets to itself never leave it"
        assert row.port < FIRST_SOURCE_PORT
        frame = first_packet(row, self._parties, FIRST_SOURCE_PORT + self._packets)
        self._packets += 1
        descriptor = self._plane._loaded.programs[program]
        # Came in by a link: to_pod lets pass what the node itself sends.
        result = testrun.run(descriptor, frame, ifindex=LINK_A, ingress_ifindex=LINK_A)
        passes = result.action is not Action.SHOT
        self._expected[passed if passes else denied] += 1
        return passes


def _ends(row: Row) -> tuple[str, str]:
    return row.source, row.destination


def _grouped(rows: Iterable[Row], key: Callable[[Row], str]) -> defaultdict[str, list[Row]]:
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups

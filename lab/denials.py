"""Who was denied what, as the agents' kernels counted it, in words."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from deltaplane.model.identity import FIRST_IDENTITY, Reserved
from deltaplane.v1 import agent_pb2, registry_pb2
from lab.cluster import Lab
from lab.expectation import World
from lab.pods import Pod

PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Packets of one kind that a policy stopped.

    Attributes:
        source: who sent them, for example "shop/frontend".
        destination: who should have got them.
        traffic: for example "TCP/5432".
        direction: "ingress": the destination's policies denied it; "egress": the source's.
        policies: those that isolate the subject in that direction, or may deny there.
        packets: how many, on all nodes.
    """

    source: str
    destination: str
    traffic: str
    direction: str
    policies: tuple[str, ...]
    packets: int


def names_of_identities(
    endpoints: Iterable[registry_pb2.Endpoint], pods: Sequence[Pod]
) -> dict[int, Pod]:
    """A pod that stands for each identity."""
    by_reference = {pod.reference: pod for pod in pods}
    return {
        endpoint.identity: pod
        for endpoint in endpoints
        if (pod := by_reference.get(f"{endpoint.namespace}/{endpoint.pod}")) is not None
    }


def describe(
    denials: Iterable[agent_pb2.Denial], pods: Mapping[int, Pod], world: World
) -> tuple[Denial, ...]:
    """Sums up what all nodes counted, most packets first."""
    packets: Counter[tuple[int, int, bool, int, int]] = Counter()
    for item in denials:
        if item.audit:
            continue
        key = (item.subject_identity, item.peer_identity, item.ingress, item.protocol, item.port)
        packets[key] += item.packets
    result = []
    for (subject, peer, ingress, protocol, port), count in packets.items():
        subject_name, peer_name = _name(subject, pods), _name(peer, pods)
        source, destination = (peer_name, subject_name) if ingress else (subject_name, peer_name)
        traffic = PROTOCOLS.get(protocol, str(protocol)) + (f"/{port}" if port else "")
        policies = world.closing(pods[subject], ingress=ingress) if subject in pods else ()
        result.append(
            Denial(
                source=source,
                destination=destination,
                traffic=traffic,
                direction="ingress" if ingress else "egress",
                policies=policies,
                packets=count,
            )
        )
    return tuple(sorted(result, key=lambda d: (-d.packets, d.source, d.destination, d.traffic)))


def grouped(denials: Iterable[Denial]) -> tuple[Denial, ...]:
    """One entry per pair and direction, its traffic joined; ingress first, then by name."""
    groups: dict[tuple[str, str, str], list[Denial]] = {}
    for item in denials:
        groups.setdefault((item.direction, item.source, item.destination), []).append(item)
    return tuple(
        replace(
            items[0],
            traffic=" ".join(sorted(item.traffic for item in items)),
            packets=sum(item.packets for item in items),
        )
        for _, items in sorted(
            groups.items(), key=lambda entry: (entry[0][0] != "ingress", entry[0])
        )
    )


def _name(identity: int, pods: Mapping[int, Pod]) -> str:
    pod = pods.get(identity)
    if pod is not None:
        return f"{pod.namespace}/{pod.owner or pod.name}"
    if identity < FIRST_IDENTITY:
        known = {item.value: item.name.lower().replace("_", "-") for item in Reserved}
        return known.get(identity, f"identity {identity}")
    return f"identity {identity}"


def collect(lab: Lab) -> tuple[Denial, ...]:
    """Asks every agent.

    Raises:
        DeltaplaneError: an agent or the registry does not answer.
    """
    counted: list[agent_pb2.Denial] = []
    for node in lab.topology.nodes:
        agent = lab.client.agent(f"unix:{lab.layout.node(node.name).agent_socket}")
        counted += agent.ListDenials(agent_pb2.ListDenialsRequest()).denials
    endpoints = lab.client.registry.ListEndpoints(
        registry_pb2.ListEndpointsRequest(page_size=5000)
    ).endpoints
    return describe(counted, names_of_identities(endpoints, lab.pods), lab.world())

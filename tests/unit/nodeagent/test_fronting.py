"""The agent says what the kernel holds of services."""

from deltaplane.model.addresses import parse_address, to_mapped
from deltaplane.v1 import agent_pb2, common_pb2
from nodeagent.dataplane.balancing import (
    NODE_PORT_IPV4,
    NODE_PORT_IPV6,
    Backend,
    Balancing,
    Frontend,
    FrontendKey,
    Slot,
)
from nodeagent.fronting import frontends

TCP, UDP = 6, 17


def key(address: str, port: int = 80, protocol: int = TCP) -> FrontendKey:
    return FrontendKey(address=to_mapped(parse_address(address)), protocol=protocol, port=port)


def slot(list_id: int, number: int, address: str) -> Slot:
    backend = Backend(address=to_mapped(parse_address(address)), port=8080)
    return Slot(list_id=list_id, slot=number, backend=backend)


HELD = Balancing(
    frontends=frozenset(
        {
            Frontend(key=key("10.96.0.7"), service=7, list_id=1, count=2),
            Frontend(key=key("fd00:10:96::7"), service=7, list_id=2, count=0),
            Frontend(key=key("10.96.0.10", 53, UDP), service=1, list_id=9, count=0),
            Frontend(
                key=FrontendKey(address=NODE_PORT_IPV4, protocol=TCP, port=30080),
                service=7,
                list_id=1,
                count=2,
                outside_list=3,
                outside_count=2,
                affinity_seconds=30,
                check_source=True,
                local=True,
            ),
            Frontend(
                key=FrontendKey(address=NODE_PORT_IPV6, protocol=TCP, port=30080),
                service=7,
                list_id=2,
                count=0,
                outside_list=4,
                outside_count=0,
            ),
        }
    ),
    slots=frozenset(
        {
            slot(1, 1, "10.244.0.2"),
            slot(1, 0, "10.244.0.1"),
            # Behind the count: on its way out.
            slot(1, 2, "10.244.0.3"),
            # With a hole.
            slot(3, 0, "10.244.0.1"),
            slot(3, 5, "10.244.0.9"),
            slot(4, 0, "fd00::1"),
        }
    ),
    members=frozenset(),
    sources=frozenset(),
    tables={},
)


def asked(*addresses: str, port: int = 0) -> list[agent_pb2.NodeFrontend]:
    request = agent_pb2.ListFrontendsRequest(addresses=map(parse_address, addresses), port=port)
    return list(frontends(HELD, request))


def backends(*addresses: str) -> list[agent_pb2.FrontendBackend]:
    return [agent_pb2.FrontendBackend(address=parse_address(text), port=8080) for text in addresses]


def test_a_cluster_address() -> None:
    assert asked("10.96.0.7") == [
        agent_pb2.NodeFrontend(
            address=parse_address("10.96.0.7"),
            protocol=common_pb2.PROTOCOL_TCP,
            port=80,
            service=7,
            backends=backends("10.244.0.1", "10.244.0.2"),
        )
    ]


def test_ports_of_every_node() -> None:
    four, six = asked("0.0.0.0", "::", port=30080)
    assert sorted((len(four.address), len(six.address))) == [4, 16]
    four, six = (four, six) if len(four.address) == 4 else (six, four)
    assert four == agent_pb2.NodeFrontend(
        address=bytes(4),
        protocol=common_pb2.PROTOCOL_TCP,
        port=30080,
        service=7,
        backends=backends("10.244.0.1", "10.244.0.2"),
        outside=True,
        outside_backends=backends("10.244.0.1", "10.244.0.9"),
        affinity_seconds=30,
        check_source=True,
        local=True,
    )
    # Slots of a list that counts none are on their way out.
    assert (six.outside, list(six.backends), list(six.outside_backends)) == (True, [], [])


def test_everything() -> None:
    assert len(asked()) == 5
    assert [frontend.protocol for frontend in asked(port=53)] == [common_pb2.PROTOCOL_UDP]

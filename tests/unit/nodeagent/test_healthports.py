"""Load balancers are told whether this node has backends, in both families."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest

from deltaplane.model.addresses import AddressPair, parse_address
from nodeagent.healthports import HealthPorts
from nodeagent.services.balancer import HealthPort

OWN = AddressPair(ipv4=parse_address("127.0.0.1"), ipv6=parse_address("::1"))


class Node:
    """The ports of a node, and what they tell."""

    def __init__(self) -> None:
        self.told: list[HealthPort] = []
        self.ports = HealthPorts(OWN, lambda: self.told)

    async def tell(self, *told: HealthPort) -> None:
        self.told = list(told)
        await self.ports._settle()


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    made = Node()
    yield made
    await made.tell()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def ask(address: str, port: int, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(f"{method} /healthz HTTP/1.1\r\nHost: n1\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(("ready", "expected"), [(2, 200), (0, 503)])
async def test_a_node_says_how_many_it_has(
    node: Node, address: str, ready: int, expected: int
) -> None:
    port = free_port()
    await node.tell(HealthPort(port, "shop", "web", ready))
    status, headers, body = await ask(address, port)
    assert status == expected
    assert headers["X-Load-Balancing-Endpoint-Weight"] == str(ready)
    assert json.loads(body) == {
        "service": {"namespace": "shop", "name": "web"},
        "localEndpoints": ready,
    }
    status, headers, body = await ask(address, port, "HEAD")
    assert (status, body) == (expected, b"")


async def test_a_port_that_is_gone_is_closed(node: Node) -> None:
    port = free_port()
    await node.tell(HealthPort(port, "shop", "web", 1))
    await node.tell()
    with pytest.raises(OSError, match="Connect call failed"):
        await ask("127.0.0.1", port)


async def test_a_port_that_others_have_is_tried_again(node: Node) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        node.told = [HealthPort(port, "shop", "web", 1)]
        await node.ports._settle()
        # The other family is served meanwhile.
        assert (await ask("::1", port))[0] == 200
        assert set(node.ports._complaints) == {("127.0.0.1", port)}
    await node.ports._settle()
    assert (await ask("127.0.0.1", port))[0] == 200

"""The name server with real sockets of the loopback, asked by a client that is not ours."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from lab.dns.message import Type, encode_name, parse_name
from lab.dns.server import UdpServer, ZoneFile, serve_tcp

Ask = Callable[[bytes], Awaitable[bytes]]


def query(name: str) -> bytes:
    head = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0)
    return head + encode_name(parse_name(name)) + struct.pack(">2H", Type.A, 1)


def zone(path: Path, **names: list[str]) -> None:
    fresh = path.with_name("fresh")
    fresh.write_text(
        json.dumps({f"{name}.cluster.local": {"A": ips} for name, ips in names.items()})
    )
    fresh.replace(path)


class Client(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002
        self.answers.put_nowait(data)


@pytest.fixture
async def ask_udp(tmp_path: Path) -> AsyncIterator[Ask]:
    loop = asyncio.get_running_loop()
    file = ZoneFile(tmp_path / "dns.json")
    server, _ = await loop.create_datagram_endpoint(lambda: UdpServer(file), ("127.0.0.1", 0))
    address = server.get_extra_info("sockname")
    transport, protocol = await loop.create_datagram_endpoint(Client, remote_addr=address)

    async def ask(data: bytes) -> bytes:
        transport.sendto(data)
        return await protocol.answers.get()

    yield ask
    transport.close()
    server.close()


async def test_the_file_may_be_replaced_at_any_time(tmp_path: Path, ask_udp: Ask) -> None:
    ask = ask_udp
    path = tmp_path / "dns.json"

    def code(reply: bytes) -> int:
        return reply[3] & 0xF

    assert code(await ask(query("a.cluster.local"))) == 3
    zone(path, a=["10.0.0.1"])
    assert (await ask(query("a.cluster.local")))[-4:] == b"\x0a\0\0\1"
    zone(path, b=["10.0.0.2"])
    assert code(await ask(query("a.cluster.local"))) == 3
    # What cannot be read changes nothing.
    path.write_text("{")
    assert (await ask(query("b.cluster.local")))[-4:] == b"\x0a\0\0\2"
    path.unlink()
    assert code(await ask(query("b.cluster.local"))) == 3


async def test_a_connection_takes_several_queries_and_ends_with_nonsense(tmp_path: Path) -> None:
    zone(tmp_path / "dns.json", a=[f"10.0.0.{n}" for n in range(200)])
    file = ZoneFile(tmp_path / "dns.json")
    server = await asyncio.start_server(lambda r, w: serve_tcp(file, r, w), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        asked = query("a.cluster.local")
        writer.write(2 * (struct.pack(">H", len(asked)) + asked))
        for _ in range(2):
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            reply = await reader.readexactly(length)
            assert struct.unpack_from(">H", reply, 6) == (200,)
        writer.write(b"\0\1x")
        assert await reader.read() == b""
        writer.close()

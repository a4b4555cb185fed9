"""Serves the zone of a lab over UDP and TCP, from sockets that it is given."""

import asyncio
import contextlib
import struct
from pathlib import Path
from typing import Any, cast

import msgspec

from lab.dns.message import Zone, answer
from lab.dns.records import ORIGINS, Texts

IDLE_SECONDS = 10.0
"""How long a connection may say nothing (RFC 7766, 6.2.3)."""

_LENGTH = struct.Struct(">H")
_EMPTY = Zone.of(ORIGINS, {})


class ZoneFile:
    """The zone in a file that others replace: read again when it is another one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] = (0, 0)
        self._zone = _EMPTY

    def zone(self) -> Zone:
        """What the file says now; an absent one is empty, what cannot be read changes nothing."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._seen, self._zone = (0, 0), _EMPTY
            return self._zone
        seen = (status.st_ino, status.st_mtime_ns)
        if seen != self._seen:
            with contextlib.suppress(OSError, ValueError, msgspec.DecodeError):
                texts = msgspec.json.decode(self._path.read_bytes(), type=Texts)
                self._zone, self._seen = Zone.of(ORIGINS, texts), seen
        return self._zone


class UdpServer(asyncio.DatagramProtocol):
    """Answers datagrams."""

    def __init__(self, file: ZoneFile) -> None:
        self._file = file
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Answers what is a query."""
        reply = answer(data, self._file.zone())
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)


async def serve_tcp(
    file: ZoneFile, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answers the queries of one connection, until it ends, is idle, or says what is no query."""
    with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                data = await reader.readexactly(length)
            reply = answer(data, file.zone(), tcp=True)
            if reply is None:
                break
            writer.write(_LENGTH.pack(len(reply)) + reply)
            await writer.drain()
    writer.close()

"""The lab's etcd: what to run, and whether it serves."""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from deltaplane.store.embedded import Cluster, EtcdProcess, find_etcd
from lab.programs import port
from lab.topology import PORTS

HEALTH_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Etcd:
    """How to start etcd. folder: its working directory; warning: for people, or empty."""

    argv: tuple[str, ...]
    folder: str
    warning: str


def etcd(data: Path) -> Etcd:
    """The lab's etcd on a data folder; it serves in the control namespace.

    Raises:
        Refused: no usable etcd is installed.
    """
    binary = find_etcd()
    process = EtcdProcess(binary, data, client_address=f"127.0.0.1:{PORTS['etcd']}")
    return Etcd(argv=process.command(), folder=str(process.folder), warning=binary.warning)


def members(data: Path, count: int) -> tuple[Etcd, ...]:
    """The members of the lab's etcd, each with a folder of its own below the data folder.

    Raises:
        Refused: no usable etcd is installed.
    """
    if count == 1:
        return (etcd(data),)
    binary = find_etcd()
    peers = tuple(f"127.0.0.1:{port('etcd', number) + 1}" for number in range(1, count + 1))
    found = []
    for number in range(1, count + 1):
        process = EtcdProcess(
            binary,
            data / str(number),
            client_address=f"127.0.0.1:{port('etcd', number)}",
            cluster=Cluster(peers=peers, number=number),
        )
        process.folder.mkdir(exist_ok=True)
        found.append(
            Etcd(argv=process.command(), folder=str(process.folder), warning=binary.warning)
        )
    return tuple(found)


def remove_dead_sockets(folder: Path) -> None:
    """Removes the sockets that a killed etcd left; it would refuse to start."""
    for entry in folder.iterdir():
        if entry.is_socket():
            entry.unlink()


async def is_healthy(url: str) -> bool:
    """Whether an HTTP GET is answered with 200."""
    where = urlsplit(url)
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(HEALTH_SECONDS):
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
            try:
                writer.write(f"GET {where.path} HTTP/1.0\r\n\r\n".encode())
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    return False

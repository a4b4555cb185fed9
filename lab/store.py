"""The lab's etcd: what to run, and whether it serves."""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from deltaplane.store.embedded import Cluster, EtcdProcess, find_etcd
from lab.programs import etcd_health_port, port

HEALTH = "/health"
HEALTH_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Etcd:
    """How to start etcd. folder: its working directory; warning: for people, or empty."""

    argv: tuple[str, ...]
    folder: str
    warning: str


def etcd(data: Path, tls_dir: Path | None = None) -> Etcd:
    """The lab's etcd of one member on a data folder; it serves in the control namespace.

    Args:
        data: its folder.
        tls_dir: folder with its certificate; None: in plain text.

    Raises:
        Refused: no usable etcd is installed.
    """
    return _member(data, 1, tls_dir, None)


def members(data: Path, count: int, tls_dir: Path | None = None) -> tuple[Etcd, ...]:
    """The members of the lab's etcd; of several, each has a folder of its own below the data's.

    Args:
        data: folder of all.
        count: how many.
        tls_dir: folder with the certificate that all of them show to clients; None: in plain text.
            To each other they speak in plain text, on the loopback device of the lab's namespace.

    Raises:
        Refused: no usable etcd is installed.
    """
    if count == 1:
        return (etcd(data, tls_dir),)
    numbers = range(1, count + 1)
    peers = tuple(f"127.0.0.1:{port('etcd', number) + 1}" for number in numbers)
    return tuple(
        _member(data / str(number), number, tls_dir, Cluster(peers=peers, number=number))
        for number in numbers
    )


def apart(folder: Path) -> Etcd:
    """An etcd of one member without a network: it serves on `etcd:0` in its folder.

    Raises:
        Refused: no usable etcd is installed.
    """
    process = EtcdProcess(find_etcd(), folder)
    return Etcd(argv=process.command(), folder=str(process.folder), warning=process.binary.warning)


def _member(data: Path, number: int, tls_dir: Path | None, cluster: Cluster | None) -> Etcd:
    binary = find_etcd()
    address = f"127.0.0.1:{port('etcd', number)}"
    process = EtcdProcess(binary, data, client_address=address, tls_dir=tls_dir, cluster=cluster)
    if cluster:
        process.folder.mkdir(exist_ok=True)
    argv = process.command()
    if tls_dir:
        argv += (f"--listen-metrics-urls=http://127.0.0.1:{etcd_health_port(number)}",)
    return Etcd(argv=argv, folder=str(process.folder), warning=binary.warning)


def remove_dead_sockets(folder: Path) -> None:
    """Removes the sockets that a killed etcd left; it would refuse to start."""
    for entry in folder.iterdir():
        if entry.is_socket():
            entry.unlink()


async def is_healthy(url: str) -> bool:
    """Whether an HTTP GET is answered with 200. url: of `lab.programs.Program`."""
    where = urlsplit(url)
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(HEALTH_SECONDS):
            if where.scheme == "unix":
                reader, writer = await asyncio.open_unix_connection(where.path)
            else:
                reader, writer = await asyncio.open_connection(where.hostname, where.port)
            path = HEALTH if where.scheme == "unix" else where.path
            try:
                writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    return False

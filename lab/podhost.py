r"""The process that stands for the containers of one node: serves and probes from its pods.

One process for all pods of a node, because a pod costs it two sockets per port and not 20 MB.
Sockets are opened inside a pod's namespace and stay there; everything else happens in the root
namespace.

It serves, on every containerPort, IPv4 and IPv6:
- TCP: sends "NAMESPACE/POD\n", then echoes what it gets;
- UDP: answers "NAMESPACE/POD " and what it got.
Pods with an annotation speak HTTP or DNS instead (`lab.pods.SERVES`).

It is told by JSON lines on a unix socket: {"op": "sync"} makes the listeners agree with the state
file, {"op": "probe", …} and {"op": "call", …} see `lab.prober`, {"op": "sandbox", …} see
`lab.sandboxes`. It syncs by itself when it starts.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec

from deltaplane.errors import DeltaplaneError, Invalid
from lab import cgroups, netns, prober, sandboxes, topology
from lab.dns.server import UdpServer, ZoneFile, serve_tcp
from lab.layout import Layout
from lab.pods import SERVING, Pod, Port, load

UDP_BUFFER_BYTES = 4 << 20
"""Two seconds of a 1 kHz stream: a process that waits for a CPU must not look like a lossy network.
"""

REQUEST_LIMIT_BYTES = 16 << 20
"""A line of 20,000 probes is 2 MB."""


class Responder(asyncio.DatagramProtocol):
    """UDP server of one port."""

    def __init__(self, greeting: bytes) -> None:
        self._greeting = greeting
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        # Not isinstance: the selector loop's transport does not derive from DatagramTransport.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Answers."""
        assert self._transport is not None
        self._transport.sendto(self._greeting + b" " + data, addr)


def open_listener(namespace: str, port: Port) -> socket.socket:
    """A socket for both families in a pod's namespace.

    Raises:
        OSError: no such namespace, or the port is taken.
    """
    kind = socket.SOCK_STREAM if port.protocol == "TCP" else socket.SOCK_DGRAM
    with netns.entered(namespace):
        listener = socket.socket(socket.AF_INET6, kind | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if kind == socket.SOCK_STREAM:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            so_rcvbufforce = 33  # asm-generic/socket.h; Python does not name it
            listener.setsockopt(socket.SOL_SOCKET, so_rcvbufforce, UDP_BUFFER_BYTES)
        listener.bind(("::", port.number))
        if kind == socket.SOCK_STREAM:
            listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


async def serve_connection(
    greeting: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One TCP connection: greeting, then echo until the other side ends."""
    with contextlib.suppress(ConnectionError):
        writer.write(greeting + b"\n")
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def serve_http(
    greeting: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One HTTP request, answered with the pod's name whatever it asks for."""
    body = greeting + b"\n"
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ValueError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head.encode() + body)
        await writer.drain()
    writer.close()


Key = tuple[str, str, Port, str]
"""UID and reference of a pod, a port of it, what it speaks."""


class PodHost:
    """The listeners of one node's pods."""

    def __init__(self, lab: str, node: str) -> None:
        self._lab = lab
        self._node = node
        self._layout = Layout(lab=lab)
        self._names = ZoneFile(self._layout.names)
        self._open: dict[Key, asyncio.Server | asyncio.DatagramTransport] = {}
        self._lock = asyncio.Lock()

    def _wanted(self) -> dict[Key, Pod]:
        # Keyed by UID and name: the greeting is part of what a listener is.
        return {
            (pod.uid, pod.reference, Port(port.protocol, port.number), pod.serves): pod
            for pod in load(self._layout.pods)
            if pod.node == self._node and pod.phase in SERVING
            for port in pod.ports
            if port.protocol in ("TCP", "UDP")
        }

    async def sync(self) -> int:
        """Makes the listeners agree with the state file; returns how many there are."""
        async with self._lock:
            wanted = self._wanted()
            for key in self._open.keys() - wanted.keys():
                self._open.pop(key).close()
            # A datagram transport lets go of its port one step of the loop later.
            await asyncio.sleep(0)
            for key in wanted.keys() - self._open.keys():
                self._open[key] = await self._listen(*key)
            return len(self._open)

    async def _listen(
        self, uid: str, reference: str, port: Port, serves: str
    ) -> asyncio.Server | asyncio.DatagramTransport:
        listener = open_listener(topology.pod_namespace(self._lab, uid), port)
        greeting, names = reference.encode(), self._names
        if port.protocol == "TCP":
            serve = {
                "echo": partial(serve_connection, greeting),
                "http": partial(serve_http, greeting),
                "dns": partial(serve_tcp, names),
            }[serves]
            return await asyncio.start_server(serve, sock=listener)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: UdpServer(names) if serves == "dns" else Responder(greeting), sock=listener
        )
        return transport

    async def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answers one request."""
        match request:
            case {"op": "sync"}:
                return {"listeners": await self.sync()}
            case {"op": "probe", "probes": probes, "timeout": timeout, "tries": tries}:
                outcomes = await prober.run(
                    [prober.Probe(**probe) for probe in probes], timeout=timeout, tries=tries
                )
                return {"outcomes": outcomes}
            case {"op": "call", "call": call, "times": times, "timeout": timeout}:
                answers = await prober.call(prober.Probe(**call), times=times, timeout=timeout)
                return {"answers": answers}
            case {"op": "sandbox", "step": step, "pod": pod}:
                known = msgspec.convert(pod, Pod)
                return await asyncio.to_thread(sandboxes.answer, self._layout, step, known)
            case _:
                raise Invalid("op", f"unknown request {request!r}")

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One control connection: a JSON line in, a JSON line out."""
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                try:
                    reply = await self.handle(json.loads(line))
                except (DeltaplaneError, OSError) as error:
                    reply = {"error": str(error)}
                writer.write(json.dumps(reply).encode() + b"\n")
                await writer.drain()
        writer.close()


async def run(lab: str, node: str, cgroup: str = "") -> None:
    """Serves until SIGTERM, from a control group if there is one."""
    cgroups.enter(cgroup)
    host = PodHost(lab, node)
    await host.sync()
    path = Layout(lab=lab).node(node).podhost_socket
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(host.connection, path, limit=REQUEST_LIMIT_BYTES)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    sys.stdout.write(json.dumps({"event": "ready", "listen": [f"unix:{path}"]}) + "\n")
    sys.stdout.flush()
    await stopped.wait()
    server.close()


class Unreachable(DeltaplaneError):
    """A pod host does not answer."""


def ask(path: Path, request: dict[str, Any], *, seconds: float) -> dict[str, Any]:
    """Sends one request to a pod host and waits for the answer.

    Raises:
        Unreachable: nobody listens, or no answer within the time.
        Invalid: the pod host refuses the request.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(seconds)
            connection.connect(os.fspath(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
    except OSError as error:
        raise Unreachable(f"pod host at {path}: {error}") from error
    if not line:
        raise Unreachable(f"pod host at {path} hung up")
    reply: dict[str, Any] = json.loads(line)
    if "error" in reply:
        raise Invalid("", f"pod host at {path}: {reply['error']}")
    return reply


def main(arguments: Iterable[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m lab.podhost", description=__doc__)
    parser.add_argument("--lab", required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--cgroup", default="", help="control group to enter first")
    options = parser.parse_args(None if arguments is None else list(arguments))
    asyncio.run(run(options.lab, options.node, options.cgroup))


if __name__ == "__main__":
    main()

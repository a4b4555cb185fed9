"""A process that serves one of the two baselines over gRPC.

    python -m bench.scale.server --etcd 127.0.0.1:2379 --mode slice

One watch on etcd, one log of encoded messages, a cursor for each agent: what our own slicer does,
so that the difference is the way of delivery and not the server.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from bench.scale.baselines import Endpoints, Slices, message
from deltaplane.store import keys
from deltaplane.store.etcd import EtcdStore
from deltaplane.store.etcdpb import rpc_pb2

SERVICE = "deltaplane.bench.Baseline"
WAKE_AT_ONCE = 200

_Context = grpc.aio.ServicerContext[bytes, bytes]


@dataclass(slots=True)
class Log:
    """Encoded messages, numbered from 1, and who waits for the next one."""

    messages: list[bytes] = field(default_factory=list)
    waiting: set[asyncio.Event] = field(default_factory=set)
    pages: list[bytes] | None = None

    async def publish(self, events: list[rpc_pb2.Event]) -> None:
        """Adds messages and wakes everybody."""
        for event in events:
            self.messages.append(message([event], len(self.messages) + 1))
        self.pages = None
        for number, wake in enumerate(tuple(self.waiting), 1):
            wake.set()
            if number % WAKE_AT_ONCE == 0:
                await asyncio.sleep(0)


class Server:
    """One baseline."""

    def __init__(self, feed: Endpoints | Slices, etcd: str) -> None:
        self._feed, self._etcd = feed, etcd
        self._log = Log()
        self._work = asyncio.Event()

    async def start(self) -> int:
        """Lists the endpoints; the revision that the list shows."""
        store = EtcdStore([self._etcd])
        try:
            listing = await store.list(keys.ENDPOINTS)
        finally:
            await store.close()
        self._feed.load(listing.items)
        return listing.revision

    async def watch(self, after: int) -> None:
        """Takes changes until cancelled."""
        store = EtcdStore([self._etcd])
        try:
            async for batch in store.watch(keys.ENDPOINTS, after=after):
                self._feed.take(batch.events, time.monotonic())
                self._work.set()
        finally:
            await store.close()

    async def send(self) -> None:
        """Publishes what is due until cancelled."""
        while True:
            due = self._feed.due_at()
            now = time.monotonic()
            if due is not None and due <= now:
                await self._log.publish(self._feed.changes(now))
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else due - now):
                    await self._work.wait()
            self._work.clear()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the methods; all of them take and return bytes."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Watch": grpc.stream_stream_rpc_method_handler(self.stream),
            "List": grpc.unary_stream_rpc_method_handler(self.list),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def _pages(self) -> list[bytes]:
        """The initial list, encoded once for all who ask before the next change."""
        if self._log.pages is None:
            objects = list(self._feed.objects())
            size, number = self._feed.page, len(self._log.messages)
            groups = [objects[at : at + size] for at in range(0, len(objects), size)]
            self._log.pages = [message(group, 0) for group in groups]
            self._log.pages.append(message([], number, complete=True))
        return self._log.pages

    async def list(self, request: bytes, context: _Context) -> AsyncIterator[bytes]:
        """Everything, in pages."""
        del request, context
        for page in self._pages():
            yield page

    async def stream(self, requests: AsyncIterator[bytes], context: _Context) -> None:
        """One agent's stream."""
        del requests
        first = await context.read()
        if not first:
            return  # the stream ended before it began
        log = self._log
        cursor = rpc_pb2.WatchRequest.FromString(first).create_request.start_revision
        if cursor and cursor <= len(log.messages):
            await context.write(message([], cursor, complete=True))
        else:
            pages = self._pages()
            cursor = len(log.messages)
            for page in pages:
                await context.write(page)
        wake = asyncio.Event()
        log.waiting.add(wake)
        try:
            while True:
                wake.clear()
                for at in range(cursor, len(log.messages)):
                    await context.write(log.messages[at])
                    cursor = at + 1
                if cursor == len(log.messages):
                    await wake.wait()
        finally:
            log.waiting.discard(wake)


async def serve(etcd: str, mode: str) -> None:
    """Serves until told to stop."""
    served = Server(Slices() if mode == "slice" else Endpoints(), etcd)
    revision = await served.start()
    server = grpc.aio.server()
    served.add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    sys.stdout.write(json.dumps({"event": "ready", "listen": [f"127.0.0.1:{port}"]}) + "\n")
    sys.stdout.flush()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(served.watch(revision)), tasks.create_task(served.send())]
        await stopping.wait()
        for task in running:
            task.cancel()
    await server.stop(None)


def main() -> None:
    """The whole process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--etcd", required=True)
    parser.add_argument("--mode", required=True, choices=("endpoint", "slice"))
    options = parser.parse_args()
    asyncio.run(serve(options.etcd, options.mode))


if __name__ == "__main__":
    main()

"""A replica of the bridge with its loops, and what a test asks of both of its ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from deltaplane.runtime import rpc
from deltaplane.runtime.clock import SystemClock
from deltaplane.v1 import registry_pb2 as pb
from services.kubernetes.api import resource as resources
from services.kubernetes.api.client import Client
from services.kubernetes.api.reflector import Settings
from services.kubernetes.bridge import Bridge, Options
from services.kubernetes.kinds import Kind
from tests.kubernetes.apiserver import ApiServer
from tests.services.plane import Plane, ok

DEADLINE_SECONDS = 20


@dataclass
class World:
    """One cluster, one registry, one replica between them that leads."""

    server: ApiServer
    plane: Plane
    bridge: Bridge
    writes: bool = True
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def lead(self) -> None:
        self.tasks.append(asyncio.create_task(self.bridge.lead(lambda: self.writes)))

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Waits until something is so; it is looked at again and again."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await condition():
                self.check()
                await asyncio.sleep(0.01)

    async def settled(self) -> None:
        """Waits until the bridge knows both sides and has nothing to write.

        What the server has just been told may not have reached it: ask for that first.
        """

        async def is_settled() -> bool:
            ledgers = [self.bridge.books[kind] for kind in Kind]
            known = [ledger for ledger in ledgers if ledger.is_listed]
            return len(known) >= 6 and all(it.is_adopted and not it.pending for it in known)

        await self.until(is_settled)

    async def has_pods(self, *names: str) -> list[pb.Pod]:
        """Waits until the registry has exactly these pods."""
        found: list[pb.Pod] = []

        async def has() -> bool:
            found[:] = (await ok(self.plane.registry.ListPods(pb.ListPodsRequest()))).pods
            return [f"{pod.namespace}/{pod.name}" for pod in found] == sorted(names)

        try:
            await self.until(has)
        except TimeoutError:
            raise AssertionError(f"has {[pod.name for pod in found]}, not {names}") from None
        return found

    def check(self) -> None:
        """A loop that has failed fails the test."""
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.result()

    def pod(self, name: str, *, namespace: str = "shop", **more: Any) -> None:
        """A running pod."""
        self.server.create(
            resources.PODS,
            name,
            namespace=namespace,
            metadata={"labels": more.pop("labels", {"app": name}), **more.pop("metadata", {})},
            spec={
                "nodeName": more.pop("node", "node-1"),
                "containers": [{"name": "main"}],
                **more.pop("spec", {}),
            },
            status={"phase": "Running"},
        )

    def namespace(self, name: str = "shop", **labels: str) -> None:
        self.server.create(
            resources.NAMESPACES,
            name,
            metadata={"labels": {"kubernetes.io/metadata.name": name, **labels}},
        )


@contextlib.asynccontextmanager
async def world(
    server: ApiServer,
    plane: Plane,
    socket: Path,
    *,
    leads: bool = True,
    slicer: grpc.aio.Channel | None = None,
    audit_seconds: float = 300.0,
) -> AsyncIterator[World]:
    """A replica that follows and, unless told otherwise, leads."""
    channel = rpc.channel(f"unix:{socket}")
    async with Client(server.connection()) as client:
        options = Options(audit_seconds=audit_seconds, poll_seconds=0.02, look_seconds=0.02)
        bridge = Bridge(client, channel, SystemClock(), slicer=slicer, options=options)
        found = World(server, plane, bridge)
        found.tasks.append(asyncio.create_task(bridge.follow(Settings(absent=0.05))))
        if leads:
            found.lead()
        try:
            yield found
            found.check()
        finally:
            for task in found.tasks:
                task.cancel()
            await asyncio.gather(*found.tasks, return_exceptions=True)
            await channel.close()

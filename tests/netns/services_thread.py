"""The real services over the in-memory store, in a thread, on unix sockets; each can be stopped and
started.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio

from deltaplane.model.addresses import Prefix
from deltaplane.runtime import rpc, service
from deltaplane.runtime.config import ProcessConfig
from deltaplane.store import lineage
from deltaplane.store.memory import MemoryStore
from deltaplane.v1 import (
    audit_pb2_grpc,
    common_pb2,
    ipam_pb2,
    ipam_pb2_grpc,
    policy_pb2,
    registry_pb2,
    registry_pb2_grpc,
)
from services.endpoints.auditing import AuditServicer
from services.endpoints.identity import DEFAULT_EXCLUDES, LabelFilter
from services.endpoints.repository import Repositories
from services.endpoints.servicer import RegistryServicer
from services.ipam.repository import Repository as IpamRepository
from services.ipam.servicer import IpamServicer
from services.slicer.__main__ import serve as serve_slicer
from services.slicer.config import Config as SlicerConfig

T = TypeVar("T")
NAMES = ("ipam", "registry", "slicer")


class Services:
    """ipam, endpoints and slicer as one cluster's control plane."""

    def __init__(self, directory: Path) -> None:
        self.sockets = {name: directory / f"{name}.sock" for name in NAMES}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._running: dict[str, tuple[asyncio.Event, asyncio.Task[None]]] = {}
        self._thread.start()
        self._store = self.run(self._new_store())

    @staticmethod
    async def _new_store() -> MemoryStore:
        store = MemoryStore()
        await lineage.ensure(store)
        return store

    @property
    def store(self) -> MemoryStore:
        """What the services keep; use it in their thread, with `run`."""
        return self._store

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def start(self, *names: str) -> None:
        """Starts services and waits until their sockets answer."""
        for name in names:
            self.run(self._start(name))

    def stop(self, *names: str) -> None:
        """Stops services; their sockets refuse from now on."""
        for name in names:
            self.run(self._stop(name))

    def close(self) -> None:
        """Stops everything."""
        self.stop(*self._running)
        self.run(self._store.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def target(self, name: str) -> str:
        """Where a service listens."""
        return f"unix:{self.sockets[name]}"

    async def _start(self, name: str) -> None:
        stop = asyncio.Event()
        work: Callable[[asyncio.Event], Awaitable[None]] = getattr(self, f"_{name}")
        task = asyncio.ensure_future(work(stop))
        self._running[name] = (stop, task)
        async with asyncio.timeout(10), rpc.channel(self.target(name)) as channel:
            waiting = asyncio.ensure_future(channel.channel_ready())
            await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                waiting.cancel()
                await task

    async def _stop(self, name: str) -> None:
        stop, task = self._running.pop(name)
        stop.set()
        await task

    async def _ipam(self, stop: asyncio.Event) -> None:
        repository = IpamRepository(self._store)

        def register(server: grpc.aio.Server) -> tuple[str]:
            ipam_pb2_grpc.add_IpamServicer_to_server(IpamServicer(repository), server)
            return ("deltaplane.v1.Ipam",)

        config = ProcessConfig(listen=(self.target("ipam"),), log_level="error")
        await service.serve(config, name="ipam", register=register, stop=stop)

    async def _registry(self, stop: asyncio.Event) -> None:
        repositories = Repositories.over(self._store, LabelFilter(DEFAULT_EXCLUDES))

        def register(server: grpc.aio.Server) -> tuple[str]:
            servicer = RegistryServicer(repositories)
            registry_pb2_grpc.add_RegistryServicer_to_server(servicer, server)
            audit_pb2_grpc.add_AddressRecordsServicer_to_server(
                AuditServicer(repositories.auditor), server
            )
            return ("deltaplane.v1.Registry",)

        config = ProcessConfig(listen=(self.target("registry"),), log_level="error")
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(repositories.coalescer.run()),
                tasks.create_task(repositories.repairer.run()),
            ]
            await service.serve(config, name="endpoints", register=register, stop=stop)
            for task in background:
                task.cancel()

    async def _slicer(self, stop: asyncio.Event) -> None:
        config = SlicerConfig(listen=(self.target("slicer"),), log_level="error")
        await serve_slicer(config, self._store, stop=stop)

    # --- what a test asks of them
    # ------------------------------------------------------------------

    def create_pool(self, name: str, prefix: str, block_length: int) -> None:
        parsed = Prefix.parse(prefix)
        pool = ipam_pb2.Pool(
            name=name,
            prefix=common_pb2.Prefix(address=parsed.address, length=parsed.length),
            block_length=block_length,
        )

        async def call() -> None:
            async with rpc.channel(self.target("ipam")) as channel:
                stub = ipam_pb2_grpc.IpamStub(channel)
                await stub.CreatePool(ipam_pb2.CreatePoolRequest(pool=pool))

        self.run(call())

    def registry(self, call: "Callable[[registry_pb2_grpc.RegistryAsyncStub], Awaitable[T]]") -> T:
        """Makes one call to the registry."""

        async def do() -> T:
            async with rpc.channel(self.target("registry")) as channel:
                return await call(registry_pb2_grpc.RegistryStub(channel))

        return self.run(do())

    def apply_pod(
        self,
        name: str,
        node: str,
        *,
        namespace: str = "shop",
        uid: str = "",
        annotations: Mapping[str, str] | None = None,
        **labels: str,
    ) -> None:
        """A pod record, with uid-NAME as its UID if none is given."""
        pod = registry_pb2.Pod(
            namespace=namespace,
            name=name,
            uid=uid or f"uid-{name}",
            node=node,
            labels=labels,
            annotations=annotations or {},
        )
        space = registry_pb2.Namespace(name=namespace)

        async def call(stub: "registry_pb2_grpc.RegistryAsyncStub") -> None:
            request = registry_pb2.ApplyNamespacesRequest(namespaces=[space])
            await stub.ApplyNamespaces(request)
            await stub.ApplyPods(registry_pb2.ApplyPodsRequest(pods=[pod]))

        self.registry(call)

    def deny_ingress(self, name: str) -> None:
        """Isolates every pod of namespace "shop"."""
        policy = policy_pb2.NetworkPolicy(
            namespace="shop",
            name=name,
            pod_selector=common_pb2.LabelSelector(),
            applies_to_ingress=True,
        )
        self.registry(
            lambda stub: stub.ApplyPolicies(registry_pb2.ApplyPoliciesRequest(policies=[policy]))
        )

    def endpoints(self) -> list[registry_pb2.Endpoint]:
        """All that the registry holds."""
        answer = self.registry(lambda stub: stub.ListEndpoints(registry_pb2.ListEndpointsRequest()))
        return list(answer.endpoints)

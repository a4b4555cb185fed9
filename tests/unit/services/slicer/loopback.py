"""A real server on loopback, the store in memory, and the agent's real client."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Literal

from deltaplane import policywire, wire
from deltaplane.model.addresses import Prefix
from deltaplane.model.identity import Identity, LabelSet
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.selector import LabelSelector
from deltaplane.model.tiers import Policy, PolicyKind, Selector
from deltaplane.runtime import rpc
from deltaplane.store import keys
from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import Operation, Put
from deltaplane.v1 import (
    common_pb2,
    ipam_pb2,
    receipts_pb2,
    receipts_pb2_grpc,
    registry_pb2,
    slicer_pb2,
    slicer_pb2_grpc,
)
from nodeagent.stream import (
    ApplyResult,
    BarrierReached,
    Floor,
    HelloState,
    Refusal,
    SlicerStream,
    Timing,
)
from services.slicer.__main__ import serve
from services.slicer.admission import MIB_DEFAULT
from services.slicer.config import Config

PATIENCE = 10.0


async def until(condition: Callable[[], object]) -> None:
    """Polls: the things waited for happen in other tasks."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - of another task's doing, without an event
            await asyncio.sleep(0.005)


class World:
    """Writes records as the other services do."""

    def __init__(self) -> None:
        self.store = MemoryStore()

    async def write(self, *operations: Operation) -> int:
        outcome = await self.store.transact([], operations)
        assert outcome.succeeded
        return outcome.revision

    async def node(self, index: int) -> int:
        name = f"node-{index}"
        record = registry_pb2.Node(
            name=name,
            uid=f"uid-{index}",
            index=index,
            addresses=common_pb2.AddressPair(ipv4=bytes((198, 19, 0, index))),
        )
        prefix = Prefix(bytes((10, 244, index, 0)), 26)
        block = ipam_pb2.Block(
            prefix=wire.prefix_to_proto(prefix), pool="ipv4", node=name, node_index=index
        )
        return await self.write(
            Put(keys.node(name), record.SerializeToString()),
            Put(keys.block(prefix), block.SerializeToString()),
        )

    async def identity(self, number: int, app: str) -> int:
        identity = Identity(number, LabelSet.of("shop", {}, {"app": app}))
        record = wire.identity_to_proto(identity)
        return await self.write(Put(keys.identity(number), record.SerializeToString()))

    async def endpoint(self, node: int, number: int, identity: int) -> int:
        record = registry_pb2.Endpoint(
            node=f"node-{node}",
            node_index=node,
            id=number,
            namespace="shop",
            pod=f"pod-{node}-{number}",
            addresses=common_pb2.AddressPair(ipv4=bytes((10, 244, node, number))),
            identity=identity,
            state=registry_pb2.Endpoint.STATE_READY,
        )
        return await self.write(Put(self.endpoint_key(node, number), record.SerializeToString()))

    def endpoint_key(self, node: int, number: int) -> str:
        return keys.endpoint("shop", f"pod-{node}-{number}", f"node-{node}", number)

    async def policy(self, name: str, app: str) -> int:
        policy = NetworkPolicy(
            namespace="shop",
            name=name,
            pod_selector=LabelSelector.of({"app": app}),
            applies_to_ingress=True,
            applies_to_egress=False,
        )
        record = wire.network_policy_to_proto(policy)
        return await self.write(Put(keys.policy("shop", name), record.SerializeToString()))

    async def general_policy(self, kind: str, namespace: str, name: str) -> int:
        """One that selects all pods and says nothing."""
        known = PolicyKind(kind)
        policy = Policy(
            kind=known,
            namespace=namespace,
            name=name,
            subject=Selector(namespace=namespace or None),
            tier=policywire.TIERS[known][0],
        )
        record = policywire.policy_to_proto(policy)
        return await self.write(Put(keys.policy(namespace, name, kind), record.SerializeToString()))


class Agent:
    """The agent's client with an application that notes what it is given."""

    def __init__(self, index: int, *, floor: Floor | None = None) -> None:
        self.stream = SlicerStream(timing=Timing(retry_min=0.01, retry_max=0.05))
        self.hello = HelloState(
            node=f"node-{index}", node_uid=f"uid-{index}", floor=floor or Floor()
        )
        self.barriers: list[BarrierReached] = []
        self.endpoints: set[tuple[int, int, int]] = set()
        self.refuses: tuple[Refusal, ...] = ()
        self.may_apply = asyncio.Event()
        self.may_apply.set()

    @property
    def revision(self) -> int:
        return self.barriers[-1].revision if self.barriers else 0

    async def apply(self, barrier: BarrierReached) -> ApplyResult:
        await self.may_apply.wait()
        self.barriers.append(barrier)
        self.endpoints = {
            (held.value.node_index, held.value.id, held.value.identity)
            for held in barrier.view.endpoints.values()
        }
        return ApplyResult(self.refuses)

    async def run(self, *targets: str) -> None:
        await self.stream.run(targets, self.hello, self.apply)


@contextlib.asynccontextmanager
async def background(coroutine: Coroutine[None, None, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Runs something for as long as the block; a kill at its end."""
    task = asyncio.create_task(coroutine)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def slicer(
    world: World,
    target: str,
    *,
    advertise: str | None = None,
    graceful: bool = False,
    span: Literal["scoped", "all"] = "all",
    snapshot_memory: int = MIB_DEFAULT,
) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    listen = (target, advertise) if advertise else (target,)
    config = Config(listen=listen, log_level="error", span=span, snapshot_memory=snapshot_memory)
    async with background(serve(config, world.store, stop=stop)) as task:
        path = Path(target.removeprefix("unix:"))
        await until(lambda: task.done() or path.exists())
        yield stop
        if graceful:
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await task


async def receipts(
    target: str, *, wait: bool = True, **subject: object
) -> list[receipts_pb2.WatchResponse]:
    async with rpc.channel(target) as channel:
        stub = receipts_pb2_grpc.ReceiptsStub(channel)
        request = receipts_pb2.WatchRequest(wait=wait, **subject)  # type: ignore[arg-type]
        return [receipt async for receipt in stub.Watch(request, timeout=PATIENCE)]


async def agents(target: str) -> list[slicer_pb2.AgentStatus]:
    async with rpc.channel(target) as channel:
        stub = slicer_pb2_grpc.SlicerStub(channel)
        answer = await stub.ListAgents(slicer_pb2.ListAgentsRequest(), timeout=PATIENCE)
        return list(answer.agents)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Switch:
    """An address that leads to the one or the other replica."""

    def __init__(self, folder: Path) -> None:
        self.first, self.second = (f"unix:{folder}/{name}.sock" for name in ("first", "second"))
        self._link = folder / "any.sock"
        self.target = f"unix:{self._link}"

    def lead_to(self, target: str) -> None:
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(target.removeprefix("unix:"))

"""Replicas of the bridge as processes."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from deltaplane.runtime import rpc
from deltaplane.v1 import bridge_pb2, bridge_pb2_grpc
from tests.services.plane import ok

DEADLINE_SECONDS = 40


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where the API server is, and who a replica is there.

    Attributes:
        token: of its service account; "": it needs none.
        namespace: where its Lease is.
    """

    server: str
    namespace: str
    token: str = ""


@dataclass(frozen=True)
class Replica:
    process: asyncio.subprocess.Process
    target: str

    async def status(self) -> bridge_pb2.BridgeGetStatusResponse:
        async with rpc.channel(self.target) as channel:
            stub = bridge_pb2_grpc.BridgeStub(channel)
            return await ok(stub.GetStatus(bridge_pb2.BridgeGetStatusRequest()))

    async def until_follows(self, leader: str) -> None:
        """Waits until it knows who leads."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (await self.status()).leader != leader:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def replica(cluster: Cluster, socket: Path, name: str, *more: str) -> AsyncIterator[Replica]:
    """One that is ready; it is ended with the block.

    Args:
        cluster: what it follows.
        socket: of the registry; what else it needs is made beside it.
        name: its identity.
        more: options.
    """
    kubeconfig = socket.parent / f"kubeconfig-{name}"
    where = {"name": "test", "cluster": {"server": cluster.server}}
    context = {"cluster": "test", "user": "bridge", "namespace": cluster.namespace}
    user = {"token": cluster.token} if cluster.token else {}
    config = {
        "current-context": "test",
        "clusters": [where],
        "users": [{"name": "bridge", "user": user}],
        "contexts": [{"name": "test", "context": context}],
    }
    kubeconfig.write_text(json.dumps(config))
    flags = ["--kubeconfig", str(kubeconfig), "--registry", f"unix:{socket}", "--identity", name]
    flags += ["--insecure", "--lease-seconds", "3", "--listen", f"unix:{socket}-{name}", *more]
    environment = {key: text for key, text in os.environ.items() if "DELTAPLANE" not in key}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.kubernetes", *flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert json.loads(await process.stdout.readline())["event"] == "ready"
        yield Replica(process, f"unix:{socket}-{name}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()

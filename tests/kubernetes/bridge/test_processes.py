"""Two replicas as processes: the one that writes is killed, the other one goes on."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deltaplane.cli.main import app
from deltaplane.runtime import rpc
from deltaplane.v1 import bridge_pb2, bridge_pb2_grpc
from deltaplane.v1 import registry_pb2 as pb
from services.kubernetes.api import resource as resources
from tests.kubernetes.apiserver import ApiServer
from tests.services.plane import Plane, ok

PODS = 300
DEADLINE_SECONDS = 40


@dataclass(frozen=True)
class Replica:
    process: asyncio.subprocess.Process
    target: str


@contextlib.asynccontextmanager
async def replica(server: ApiServer, socket: Path, name: str) -> AsyncIterator[Replica]:
    kubeconfig = socket.parent / "kubeconfig"
    cluster = {"name": "fake", "cluster": {"server": server.url}}
    context = {"name": "fake", "context": {"cluster": "fake", "namespace": "deltaplane"}}
    config = {"current-context": "fake", "clusters": [cluster], "contexts": [context]}
    kubeconfig.write_text(json.dumps(config))
    flags = ["--kubeconfig", str(kubeconfig), "--registry", f"unix:{socket}", "--identity", name]
    flags += ["--insecure", "--lease-seconds", "3", "--listen", f"unix:{socket}-{name}"]
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


async def status(of: Replica) -> bridge_pb2.BridgeGetStatusResponse:
    async with rpc.channel(of.target) as channel:
        stub = bridge_pb2_grpc.BridgeStub(channel)
        return await ok(stub.GetStatus(bridge_pb2.BridgeGetStatusRequest()))


def create(server: ApiServer, number: int) -> None:
    server.create(
        resources.PODS,
        f"pod-{number:04}",
        namespace="shop",
        spec={"nodeName": "node-1", "containers": [{"name": "main"}]},
    )


async def is_equal(server: ApiServer, plane: Plane) -> bool:
    """The registry has exactly the pods of the cluster, instance by instance."""
    answer = await ok(plane.registry.ListPods(pb.ListPodsRequest()))
    current = server.storage.collection(resources.PODS).current.values()
    wanted = {it["metadata"]["name"]: it["metadata"]["uid"] for it in current}
    return {pod.name: pod.uid for pod in answer.pods} == wanted


async def until_equal(server: ApiServer, plane: Plane) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await is_equal(server, plane):  # noqa: ASYNC110 - of another process's doing
            await asyncio.sleep(0.02)


async def until_follows(of: Replica, leader: str) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (await status(of)).leader != leader:  # noqa: ASYNC110 - of another process's doing
            await asyncio.sleep(0.02)


@pytest.mark.timeout(120)
async def test_a_standby_goes_on_when_the_leader_is_killed(
    server: ApiServer, served: Plane, socket: Path
) -> None:
    labels = {"kubernetes.io/metadata.name": "shop"}
    server.create(resources.NAMESPACES, "shop", metadata={"labels": labels})
    for number in range(PODS):
        create(server, number)
    async with replica(server, socket, "one") as one:
        await until_equal(server, served)
        async with replica(server, socket, "two") as two:
            await until_follows(two, "one")
            # In the middle of its work.
            for number in range(PODS, PODS + 50):
                create(server, number)
                server.delete(resources.PODS, f"pod-{number - PODS:04}", namespace="shop")
            one.process.send_signal(signal.SIGKILL)
            await until_equal(server, served)
            now = await status(two)
            assert (now.active, now.leader) == (True, "two")
            told = CliRunner().invoke(
                app, ["--insecure", "bridge", "status", "--bridge", two.target]
            )
            assert told.stdout.startswith("active\n")

"""Two replicas as processes: the one that writes is killed, the other one goes on."""

import asyncio
import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deltaplane.cli.main import app
from deltaplane.v1 import registry_pb2 as pb
from services.kubernetes.api import resource as resources
from tests.kubernetes.apiserver import ApiServer
from tests.kubernetes.bridge.replicas import DEADLINE_SECONDS, Cluster, replica
from tests.services.plane import Plane, ok

PODS = 300


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


@pytest.mark.timeout(120)
async def test_a_standby_goes_on_when_the_leader_is_killed(
    server: ApiServer, served: Plane, socket: Path
) -> None:
    labels = {"kubernetes.io/metadata.name": "shop"}
    server.create(resources.NAMESPACES, "shop", metadata={"labels": labels})
    for number in range(PODS):
        create(server, number)
    server.create(resources.NAMESPACES, "deltaplane")
    cluster = Cluster(server=server.url, namespace="deltaplane")
    async with replica(cluster, socket, "one") as one:
        await until_equal(server, served)
        async with replica(cluster, socket, "two") as two:
            await two.until_follows("one")
            # In the middle of its work.
            for number in range(PODS, PODS + 50):
                create(server, number)
                server.delete(resources.PODS, f"pod-{number - PODS:04}", namespace="shop")
            one.process.send_signal(signal.SIGKILL)
            await until_equal(server, served)
            now = await two.status()
            assert (now.active, now.leader) == (True, "two")
            told = CliRunner().invoke(
                app, ["--insecure", "bridge", "status", "--bridge", two.target]
            )
            assert told.stdout.startswith("active\n")

"""The real programs: what an operator starts, and what happens when etcd goes away under them."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deltaplane.errors import Unavailable
from deltaplane.runtime import rpc
from deltaplane.store import keys
from deltaplane.store.embedded import EtcdProcess, find_etcd
from deltaplane.store.etcd import EtcdStore
from deltaplane.v1 import (
    ipam_pb2,
    ipam_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    slicer_pb2,
    slicer_pb2_grpc,
)
from tests.services.plane import claim_one, claims_of, failure, ok, pair

SECONDS = 20


@contextlib.asynccontextmanager
async def program(
    module: str, *flags: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A running service and its unix socket."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, "--insecure", "--log-format", "console", *flags),
        stdout=asyncio.subprocess.PIPE,
        env={name: text for name, text in os.environ.items() if not name.startswith("DELTAPLANE_")},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SECONDS):
            line = json.loads(await process.stdout.readline())
        assert line["event"] == "ready"
        yield process, line["listen"][0]
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(SECONDS):
            assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def list_pools(stub: "ipam_pb2_grpc.IpamAsyncStub") -> list[str]:
    answer = await ok(stub.ListPools(ipam_pb2.ListPoolsRequest()))
    return [status.pool.name for status in answer.pools]


def options(etcd: str, socket: Path) -> tuple[str, ...]:
    return ("--etcd", etcd, "--listen", f"unix:{socket}", "--admin", f"unix:{socket}-admin")


@pytest.mark.timeout(90)
async def test_the_programs_work_together_and_survive_etcd(sockets: Path) -> None:
    etcd = EtcdProcess(find_etcd(), sockets / "etcd")
    await etcd.start()
    endpoint = etcd.endpoint
    pools = ("--pool", "ipv4=10.244.0.0/16:26", "--pool", "ipv6=fd00:10:244::/64:122")
    try:
        async with (
            program("services.ipam", *options(endpoint, sockets / "ipam"), *pools) as (_, ipam),
            program("services.endpoints", *options(endpoint, sockets / "reg")) as (_, registry),
            rpc.channel(ipam) as ipam_channel,
            rpc.channel(registry) as registry_channel,
        ):
            blocks = ipam_pb2_grpc.IpamStub(ipam_channel)
            nodes = registry_pb2_grpc.RegistryStub(registry_channel)
            assert await list_pools(blocks) == ["ipv4", "ipv6"]
            node = registry_pb2.Node(name="a", uid="uid", addresses=pair("198.19.0.1"))
            register = registry_pb2.RegisterNodeRequest(node=node)
            await ok(nodes.RegisterNode(register))
            before = await claim_one(blocks, claims_of("a", "uid", ("ipv4", "0")))

            etcd.freeze()
            claim = claims_of("a", "uid", ("ipv4", "1"))
            node.boot_id = "boot-2"
            register.node.CopyFrom(node)
            async with asyncio.timeout(rpc.DEADLINE_SECONDS):
                errors = await asyncio.gather(
                    failure(blocks.ClaimBlocks(claim)), failure(nodes.RegisterNode(register))
                )
            assert [type(error) for error in errors] == [Unavailable, Unavailable]

            etcd.resume()
            after = await until_answered(blocks, claim)
            assert after.prefix != before.prefix
            listed = await ok(blocks.ListBlocks(ipam_pb2.ListBlocksRequest()))
            assert len(listed.blocks) == 2
    finally:
        etcd.kill()


async def until_answered(
    stub: "ipam_pb2_grpc.IpamAsyncStub", claim: ipam_pb2.ClaimBlocksRequest
) -> ipam_pb2.Block:
    async with asyncio.timeout(SECONDS):
        while True:
            with contextlib.suppress(Unavailable):
                return await claim_one(stub, claim)


@pytest.mark.timeout(60)
async def test_ipam_starts_without_etcd_and_gets_its_pools_later(sockets: Path) -> None:
    etcd = EtcdProcess(find_etcd(), sockets / "etcd")
    flags = (*options(etcd.endpoint, sockets / "ipam"), "--pool", "ipv4=10.244.0.0/16")
    async with program("services.ipam", *flags) as (_, target), rpc.channel(target) as channel:
        stub = ipam_pb2_grpc.IpamStub(channel)
        assert isinstance(await failure(stub.ListPools(ipam_pb2.ListPoolsRequest())), Unavailable)
        await etcd.start()
        try:
            async with asyncio.timeout(SECONDS):
                while True:
                    with contextlib.suppress(Unavailable):
                        if await list_pools(stub) == ["ipv4"]:
                            break
                    await asyncio.sleep(0.05)
        finally:
            etcd.kill()


async def test_a_pool_that_differs_from_the_stored_one_ends_the_program(
    etcd_store: object, etcd: str, sockets: Path
) -> None:
    del etcd_store  # it has emptied the etcd
    flags = options(etcd, sockets / "ipam")
    async with program("services.ipam", *flags, "--pool", "v4=10.244.0.0/16"):
        pass
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.ipam", *flags, "--pool", "v4=10.244.0.0/16:27"),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS):
        _, complaint = await process.communicate()
    assert process.returncode == 1
    assert b"pool v4 exists with prefix 10.244.0.0/16" in complaint


@pytest.mark.timeout(90)
async def test_the_wrong_etcd_is_refused_before_anything_is_written(sockets: Path) -> None:
    etcd = EtcdProcess(find_etcd(), sockets / "etcd")
    await etcd.start()
    try:
        for module in ("services.ipam", "services.endpoints", "services.slicer"):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, "--lineage", "0" * 32),
                *options(etcd.endpoint, sockets / "s"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(SECONDS):
                out, err = await process.communicate()
            assert process.returncode == 1
            assert b"ready" not in out
            assert b"--lineage asks for 00000000" in err
        store = EtcdStore([etcd.endpoint])
        assert (await store.list(keys.ROOT)).items == ()
        await store.close()
    finally:
        await etcd.stop()


@contextlib.asynccontextmanager
async def workers(
    etcd: str, count: int
) -> AsyncIterator[tuple[asyncio.subprocess.Process, set[str]]]:
    """A slicer of several processes, and their sockets."""
    flags = ("--etcd", etcd, "--workers", str(count), "--log-level", "warning")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.slicer", "--listen", "127.0.0.1:0", *flags),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SECONDS):
            lines = [json.loads(await process.stdout.readline()) for _ in range(count)]
        yield process, {line["listen"][0] for line in lines}
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(SECONDS):
            await process.wait()


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


async def server_id(target: str) -> str:
    async with rpc.channel(target) as channel:
        stub = slicer_pb2_grpc.SlicerStub(channel)
        return (await ok(stub.ListAgents(slicer_pb2.ListAgentsRequest()))).server_id


@pytest.mark.timeout(90)
async def test_workers_are_slicers_of_their_own(etcd: str) -> None:
    async with workers(etcd, 2) as (process, targets):
        assert len(targets) == 2
        assert len({await server_id(target) for target in targets}) == 2
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(SECONDS):
            assert await process.wait() == 0


@pytest.mark.timeout(90)
async def test_a_worker_that_dies_ends_them_all(etcd: str) -> None:
    async with workers(etcd, 2) as (process, _):
        first, second = children(process.pid)
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(SECONDS):
            assert await process.wait() == 1
        with pytest.raises(ProcessLookupError):
            os.kill(second, 0)


@pytest.mark.timeout(90)
async def test_workers_end_with_a_parent_that_is_killed(etcd: str) -> None:
    async with workers(etcd, 2) as (process, _):
        assert process.stdout is not None
        process.kill()
        async with asyncio.timeout(SECONDS):
            assert await process.wait() == -signal.SIGKILL
            # The end of what all of them hold open, so the last of them has ended.
            await process.stdout.read()

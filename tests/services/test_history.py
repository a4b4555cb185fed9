"""Recorded histories: nodes allocate and release while the services and etcd are killed.

`make soak-ipam` runs it for 60 s (SECONDS); CI for 10.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from deltaplane.model.addresses import format_address
from deltaplane.runtime import rpc
from deltaplane.store import keys
from deltaplane.store.embedded import EtcdProcess, find_etcd
from deltaplane.store.etcd import EtcdStore
from deltaplane.v1 import common_pb2, ipam_pb2, ipam_pb2_grpc, registry_pb2
from nodeagent.control import GrpcControlPlane
from tests.services.plane import prefix
from tests.services.recorded import Allocator, Cluster, Record, final

CLIENTS = 16
SECONDS = float(os.environ.get("SOAK_HISTORY_SECONDS", "10"))
SUMMARY = os.environ.get("SOAK_HISTORY_SUMMARY", "")
"""File for a line about the run."""
START_SECONDS = 60
LEAST_KILLS = 4
CHECKER = Path(__file__).resolve().parents[3] / "shared/oracles/ipam/ipam_history_check.py"

V4, V6 = "10.200.0.0/24", "fd00:200::/120"
RESERVED = ("10.200.0.0/32", "10.200.0.255/32")


class Service:
    """A program that is killed and started again under the same name."""

    def __init__(self, module: str, socket: Path, *flags: str) -> None:
        self.target = f"unix:{socket}"
        self._arguments = ("-m", module, "--insecure", "--listen", self.target, *flags)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if not k.startswith("DELTAPLANE_")},
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            assert json.loads(await self._process.stdout.readline())["event"] == "ready"

    async def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


async def disturb(etcd: EtcdProcess, services: list[Service], seed: int, cluster: Cluster) -> int:
    """Kills one after another, and starts it again; how many times."""
    rng = random.Random(seed)
    kills = 0
    end = asyncio.get_running_loop().time() + SECONDS
    while asyncio.get_running_loop().time() < end or kills < LEAST_KILLS:
        await asyncio.sleep(rng.uniform(0.2, 1.2))
        victim = rng.choice((None, *services))
        kills += 1
        if victim is None:
            etcd.kill()
            await asyncio.sleep(rng.uniform(0.0, 0.5))
            await etcd.start()
        else:
            await victim.kill()
            await asyncio.sleep(rng.uniform(0.0, 0.5))
            await victim.start()
    cluster.ended = True
    return kills


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[EtcdProcess, list[Service]]]:
    etcd = EtcdProcess(find_etcd(), folder / "etcd")
    await etcd.start()
    services = []
    for name in ("ipam", "endpoints"):
        socket = folder / name
        admin = f"unix:{socket}-admin"
        flags = ("--etcd", etcd.endpoint, "--admin", admin)
        services.append(Service(f"services.{name}", socket, *flags))
    try:
        for service in services:
            await service.start()
        yield etcd, services
    finally:
        for service in services:
            await service.kill()
        etcd.kill()


async def make_pools(target: str) -> None:
    async with rpc.channel(target) as channel:
        stub = ipam_pb2_grpc.IpamStub(channel)
        for name, text, length, reserved in (("v4", V4, 29, RESERVED), ("v6", V6, 125, ())):
            pool = ipam_pb2.Pool(
                name=name,
                prefix=prefix(text),
                block_length=length,
                reserved=[prefix(it) for it in reserved],
            )
            await stub.CreatePool(ipam_pb2.CreatePoolRequest(pool=pool), timeout=10)


async def held(endpoint: str) -> dict[str, str]:
    """Who has which address, as etcd says in the end; pointers and endpoints agree."""
    store = EtcdStore([endpoint])
    found: dict[str, str] = {}
    listing = await store.list(keys.ENDPOINTS)
    for item in listing.items:
        record = registry_pb2.Endpoint.FromString(item.value)
        for address in _addresses(record.addresses):
            found[format_address(address)] = record.owner.container_id
    pointers = {
        item.key.removeprefix(keys.ADDRESSES) for item in (await store.list(keys.ADDRESSES)).items
    }
    await store.close()
    assert pointers == set(found)
    return found


def _addresses(pair: common_pb2.AddressPair) -> list[bytes]:
    return [address for address in (pair.ipv4, pair.ipv6) if address]


async def record(folder: Path, seed: int) -> tuple[list[Record], int, int]:
    """A history, how often something was killed, and how often a node's program died."""
    cluster = Cluster()
    async with running(folder) as (etcd, services):
        await make_pools(services[0].target)
        controls = [
            GrpcControlPlane(services[1].target, services[0].target) for _ in range(CLIENTS)
        ]
        nodes = [
            Allocator(cluster, number, folder, control, seed)
            for number, control in enumerate(controls)
        ]
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(node.run())
            killing = group.create_task(disturb(etcd, services, seed, cluster))
        for control in controls:
            await control.close()
        history = [*cluster.history, final(await held(etcd.endpoint))]
    return history, killing.result(), sum(node.crashes for node in nodes)


def checker() -> Callable[..., list[Any]]:
    if not CHECKER.exists():
        pytest.skip("shared/oracles/ipam is not beside this tree")
    spec = importlib.util.spec_from_file_location("ipam_history_check", CHECKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    check: Callable[..., list[Any]] = module.check
    return check


def double_holders(history: list[Record]) -> list[str]:
    """Our own check, which needs no oracle: intervals in which an address is surely held."""
    spans: dict[str, list[tuple[float, float, str]]] = {}
    gone = {
        str(it["handle"]): float(str(it["t0"])) for it in reversed(history) if it["op"] == "release"
    }
    for it in history:
        if it["op"] == "alloc" and it["result"] == "ok":
            handle = str(it["handle"])
            for address in it["ips"]:  # type: ignore[attr-defined]
                span = (float(str(it["t1"])), gone.get(handle, float("inf")), handle)
                spans.setdefault(address, []).append(span)
    found = []
    for address, held_by in spans.items():
        ordered = sorted(held_by)
        found += [
            f"{address}: {one} and {other}"
            for one, other in itertools.pairwise(ordered)
            if other[0] < one[1]
        ]
    return found


@pytest.mark.serial
@pytest.mark.timeout(SECONDS + 240)
async def test_16_nodes_while_everything_is_killed(
    sockets: Path, record_property: Callable[[str, object], None]
) -> None:
    seed = random.randrange(1 << 32)
    record_property("seed", seed)
    history, kills, crashes = await record(sockets, seed)
    done = [it for it in history if it.get("result") == "ok"]
    told = f"seed {seed}: {len(history)} records, {len(done)} ok, {kills} kills, {crashes} crashes"
    record_property("told", told)
    if SUMMARY:
        await asyncio.to_thread(Path(SUMMARY).write_text, told + "\n")
    assert len(done) > CLIENTS
    assert kills >= LEAST_KILLS
    assert double_holders(history) == [], told
    outside = set(RESERVED_ADDRESSES)
    assert checker()(history, families=[4, 6], pools=[V4, V6], reserved=outside) == [], told


RESERVED_ADDRESSES = [text.removesuffix("/32") for text in RESERVED]


def _op(kind: str, handle: str, start: float, end: float, *addresses: str) -> Record:
    record: Record = {"op": kind, "handle": handle, "t0": start, "t1": end, "result": "ok"}
    return record | {"ips": list(addresses)}


def test_our_check_finds_a_double_holder_and_nothing_else() -> None:
    one = _op("alloc", "a", 0, 1, "10.0.0.1")
    gone = _op("release", "a", 2, 3, "10.0.0.1")
    assert double_holders([one, gone, _op("alloc", "b", 4, 5, "10.0.0.1")]) == []
    assert len(double_holders([one, _op("alloc", "b", 4, 5, "10.0.0.1")])) == 1
    assert len(double_holders([one, _op("alloc", "b", 1, 1.5, "10.0.0.1"), gone])) == 1

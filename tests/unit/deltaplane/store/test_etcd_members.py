"""Which calls are repeated, told by a server that fails on purpose."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from deltaplane.errors import Compacted, DeltaplaneError, Exhausted, Invalid, Unavailable
from deltaplane.store.etcd import EtcdStore
from deltaplane.store.etcd_members import Members, translate
from deltaplane.store.etcdpb import rpc_pb2 as pb
from deltaplane.store.etcdpb import rpc_pb2_grpc as etcd_grpc
from deltaplane.store.port import Absent, Put

Context = grpc.aio.ServicerContext


class Failing(etcd_grpc.KVServicer):
    """Applies and counts everything; the first `failures` answers are lost."""

    def __init__(self) -> None:
        self.failures = 0
        self.calls = 0

    async def _answer(self, context: "Context[object, object]") -> pb.ResponseHeader:
        self.calls += 1
        if self.calls <= self.failures:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "etcdserver: leader changed")
        return pb.ResponseHeader(revision=7)

    async def Range(  # noqa: N802 - the name comes from the proto file
        self, _request: pb.RangeRequest, context: "Context[object, object]"
    ) -> pb.RangeResponse:
        return pb.RangeResponse(header=await self._answer(context))

    async def Txn(  # noqa: N802 - the name comes from the proto file
        self, _request: pb.TxnRequest, context: "Context[object, object]"
    ) -> pb.TxnResponse:
        return pb.TxnResponse(header=await self._answer(context), succeeded=True)


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[tuple[Failing, Failing]]:
    # The other methods stay unimplemented: nobody calls them.
    members = (Failing(), Failing())  # type: ignore[abstract]
    running = []
    for number, member in enumerate(members):
        server = grpc.aio.server()
        etcd_grpc.add_KVServicer_to_server(member, server)
        server.add_insecure_port(f"unix:{tmp_path}/{number}")
        await server.start()
        running.append(server)
    yield members
    for server in running:
        await server.stop(0)


@pytest.fixture
async def store(servers: tuple[Failing, Failing], tmp_path: Path) -> AsyncIterator[EtcdStore]:
    made = EtcdStore([f"unix:{tmp_path}/{number}" for number in range(len(servers))])
    yield made
    await made.close()


async def test_a_read_goes_round_until_it_is_answered(
    store: EtcdStore, servers: tuple[Failing, Failing]
) -> None:
    for server in servers:
        server.failures = 2
    assert await store.head() == 7
    assert sorted(server.calls for server in servers) == [2, 3]


async def test_a_write_is_sent_once_and_the_next_call_goes_elsewhere(
    store: EtcdStore, servers: tuple[Failing, Failing]
) -> None:
    for server in servers:
        server.failures = 1
    for _ in servers:
        # It may have been applied: repeated, a compare on absence would fail.
        with pytest.raises(Unavailable, match="leader changed"):
            await store.transact([Absent("a")], [Put("a", b"")])
    assert [server.calls for server in servers] == [1, 1]
    assert (await store.transact([], [Put("a", b"")])).succeeded


async def test_a_transaction_that_writes_nothing_is_a_read(
    store: EtcdStore, servers: tuple[Failing, Failing]
) -> None:
    for server in servers:
        server.failures = 1
    assert (await store.transact([Absent("a")], [])).succeeded


async def test_no_endpoint_and_a_malformed_one_are_refused() -> None:
    for endpoints in ([], ["nowhere"]):
        with pytest.raises(Invalid):
            Members(endpoints, 1)


async def test_nobody_there_is_unavailable_and_names_the_endpoint(tmp_path: Path) -> None:
    store = EtcdStore([f"unix:{tmp_path}/none"], deadline_seconds=0.2)
    async with asyncio.timeout(2):
        with pytest.raises(Unavailable, match=f"{tmp_path}/none"):
            await store.head()
    await store.close()


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted", Compacted),
        ("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision", Invalid),
        ("RESOURCE_EXHAUSTED", "etcdserver: too many requests", Unavailable),
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", Exhausted),
        ("UNKNOWN", "Stream removed", Unavailable),
        ("INTERNAL", "Received RST_STREAM with error code 2", Unavailable),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Unavailable),
        ("INVALID_ARGUMENT", "etcdserver: request is too large", Invalid),
    ],
)
def test_etcds_answers_have_a_meaning(code: str, details: str, kind: type[DeltaplaneError]) -> None:
    error = grpc.aio.AioRpcError(
        grpc.StatusCode[code], grpc.aio.Metadata(), grpc.aio.Metadata(), details=details
    )
    assert type(translate(error, "127.0.0.1:2379")) is kind

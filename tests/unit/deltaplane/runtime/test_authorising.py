"""Each cell of docs/reference/authorisation.md, by real calls with real certificates."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from deltaplane.errors import Forbidden, Throttled
from deltaplane.runtime import authorising, rpc, tls
from deltaplane.runtime.authorising import Authoriser
from deltaplane.runtime.limiting import Buckets, Limit
from deltaplane.v1 import (
    agent_pb2,
    audit_pb2,
    bridge_pb2,
    ipam_pb2,
    receipts_pb2,
    registry_pb2,
    slicer_pb2,
)
from tests.trust import Trust, trust

DOCUMENT = Path(__file__).parents[4] / "docs/reference/authorisation.md"
FILES = (
    *(agent_pb2, audit_pb2, bridge_pb2, ipam_pb2, receipts_pb2, registry_pb2, slicer_pb2),
    *(health_pb2, reflection_pb2),
)
METHODS = {
    f"{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
HOST = "n1"
"""Node of the agent that is called."""


def documented() -> dict[str, dict[str, str]]:
    """The cells of the document by call and column."""
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    columns = rows[0][1:]
    found = {}
    for call, *cells in rows[1:]:
        name = call.strip("`")
        full = name if name.startswith("grpc.") else f"deltaplane.v1.{name}"
        found[full] = dict(zip(columns, cells, strict=True))
    return found


TABLE = documented()
ROLES = ("admin", "bridge", "ipam", "endpoints", "slicer", "etcd")
CALLERS = (*ROLES, "node/n1", "node/n2")


def request_of(method: str, *nodes: str) -> Message:
    """A request that names these nodes where the table looks for them."""
    made: Message = METHODS[method].input_type._concrete_class()
    *way, last = authorising.TABLE[method].names.split(".")
    for node in nodes:
        message: Any = made
        for part in way:
            inner = getattr(message, part)
            message = inner if isinstance(inner, Message) else inner.add()
        if last:
            setattr(message, last, node)
    return made


class Everything(grpc.GenericRpcHandler):
    """Serves every method of every service; the handlers that ask for themselves do so."""

    def __init__(self) -> None:
        self._handlers: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        name = str(handler_call_details.method).lstrip("/")
        if name not in self._handlers:
            self._handlers[name] = self._handler(name)
        return self._handlers[name]

    def _handler(self, name: str) -> Any:
        method = METHODS[name]
        of = method.input_type._concrete_class
        asks = TABLE[name]["node"] == "own" and not authorising.TABLE[name].names

        async def unary(_request: Any, _context: Any) -> bytes:
            if asks:
                authorising.require_own([HOST])
            return b""

        async def stream(_request: Any, _context: Any) -> Any:
            if asks:
                authorising.require_own([HOST])
            yield b""

        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(stream)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, request_deserializer=of.FromString)
        return grpc.unary_unary_rpc_method_handler(unary, request_deserializer=of.FromString)


async def outcome(channel: Any, method: str, request: Message) -> str:
    """ "yes", or the class of the error."""
    data = request.SerializeToString()
    kind = METHODS[method]
    try:
        if kind.client_streaming:
            call: Any = channel.stream_stream(f"/{method}")(iter([data]), timeout=10)
        elif kind.server_streaming:
            call = channel.unary_stream(f"/{method}")(data, timeout=10)
        else:
            await channel.unary_unary(f"/{method}")(data, timeout=10)
            return "yes"
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return type(rpc.translate(error)).__name__
    return "yes"


async def all_outcomes(ca: Trust) -> dict[tuple[str, str, tuple[str, ...]], str]:
    """What came of every call with every certificate, naming these nodes."""
    server = grpc.aio.server(interceptors=[rpc.ErrorInterceptor(), Authoriser(HOST)])
    server.add_generic_rpc_handlers((Everything(),))
    port = server.add_secure_port("127.0.0.1:0", tls.server_credentials(ca.issue("slicer")))
    await server.start()
    found = {}
    try:
        for caller in CALLERS:
            async with rpc.channel(f"127.0.0.1:{port}", ca.of(caller, "slicer")) as channel:
                for method in METHODS:
                    for nodes in named(method):
                        asked = request_of(method, *nodes)
                        found[caller, method, nodes] = await outcome(channel, method, asked)
    finally:
        await server.stop(0)
    return found


def named(method: str) -> list[tuple[str, ...]]:
    """Which nodes to name in requests of a method."""
    path = authorising.TABLE[method].names
    if not path:
        return [()]
    many = path.split(".")[0] in ("endpoints", "releases")
    return [("n1",), ("n2",), (), *([("n1", "n2")] if many else [])]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, str]:
    return asyncio.run(all_outcomes(trust(tmp_path_factory.mktemp("ca"))))


def test_document_table_and_protos_have_the_same_calls() -> None:
    assert set(TABLE) == set(authorising.TABLE)
    # Health.List is newer than the Python package that we test with may be.
    assert set(METHODS) | {"grpc.health.v1.Health/List"} == set(TABLE)


@pytest.mark.parametrize("method", METHODS)
def test_each_cell(method: str, outcomes: dict[Any, str]) -> None:
    cells = TABLE[method]
    for role, nodes in itertools.product(ROLES, named(method)):
        assert outcomes[role, method, nodes] == ("yes" if cells[role] else "Forbidden"), role
    for node, nodes in itertools.product(("n1", "n2"), named(method)):
        match cells["node"]:
            case "own" if authorising.TABLE[method].names:
                allowed = set(nodes) == {node}
            case "own" | "host":
                allowed = node == HOST
            case cell:
                allowed = cell == "yes"
        found = outcomes[f"node/{node}", method, nodes]
        assert found == ("yes" if allowed else "Forbidden"), (node, nodes)


async def test_what_is_not_in_the_table_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, method = trust(tmp_path / "ca"), "deltaplane.v1.Ipam/ListPools"
    table = {name: rule for name, rule in authorising.TABLE.items() if name != method}
    monkeypatch.setattr(authorising, "TABLE", table)
    found = await calls(ca, "admin", method, count=1)
    assert [type(error) for error in found] == [Forbidden]


async def test_a_node_that_calls_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    ca, method = trust(tmp_path / "ca"), "deltaplane.v1.Ipam/ListPools"
    buckets = Buckets(Limit(rate=0.01, burst=3))
    assert await calls(ca, "node/n1", method, count=3, buckets=buckets) == [None] * 3
    [error] = await calls(ca, "node/n1", method, count=1, buckets=buckets)
    assert isinstance(error, Throttled)
    assert 90 < error.seconds <= 100
    assert await calls(ca, "node/n2", method, count=3, buckets=buckets) == [None] * 3
    assert await calls(ca, "admin", method, count=9, buckets=buckets) == [None] * 9


async def calls(
    ca: Trust, caller: str, method: str, *, count: int, buckets: Buckets | None = None
) -> list[Exception | None]:
    """What came of so many calls."""
    server = grpc.aio.server(interceptors=[rpc.ErrorInterceptor(), Authoriser(HOST, buckets)])
    server.add_generic_rpc_handlers((Everything(),))
    port = server.add_secure_port("127.0.0.1:0", tls.server_credentials(ca.issue("ipam")))
    await server.start()
    found: list[Exception | None] = []
    try:
        async with rpc.channel(f"127.0.0.1:{port}", ca.of(caller, "ipam")) as channel:
            call: Any = channel.unary_unary(f"/{method}")
            for _ in range(count):
                try:
                    await call(b"", timeout=10)
                except grpc.aio.AioRpcError as error:
                    found.append(rpc.translate(error))
                else:
                    found.append(None)
    finally:
        await server.stop(0)
    return found

"""A real server of one small service, on a unix socket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog

from deltaplane.errors import DeltaplaneError
from deltaplane.runtime import rpc
from deltaplane.runtime.config import ProcessConfig
from deltaplane.runtime.service import serve

SERVICE = "test.Echo"
METHODS = ("Unary", "Stream", "Written", "Chat")


@dataclass
class Echo:
    """Answers what it is asked, or raises `failure`; a request "wait" waits for `go_on`."""

    failure: BaseException | None = None
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)

    async def unary(self, request: bytes, _context: object) -> bytes:
        self.started.set()
        if request == b"wait":
            await self.go_on.wait()
        if self.failure:
            raise self.failure
        return request

    async def stream(self, request: bytes, context: object) -> AsyncIterator[bytes]:
        yield await self.unary(b"", context) + request

    async def written(self, request: bytes, context: Any) -> None:
        await context.write(await self.unary(request, context))

    async def chat(self, requests: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
        async for request in requests:
            yield await self.unary(request, context)

    def register(self, server: grpc.aio.Server) -> tuple[str, ...]:
        handlers: dict[str, Any] = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Stream": grpc.unary_stream_rpc_method_handler(self.stream),
            "Written": grpc.unary_stream_rpc_method_handler(self.written),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        return (SERVICE,)


async def ask(channel: Any, method: str, request: bytes = b"hello") -> bytes:
    """One call of any kind, one answer. The methods have no stubs, so the channel no type."""
    path = f"/{SERVICE}/{method}"
    match method:
        case "Unary":
            return bytes(await channel.unary_unary(path)(request, timeout=5))
        case "Chat":
            call: Any = channel.stream_stream(path)(iter([request]))
        case _:
            call = channel.unary_stream(path)(request)
    [answer] = [bytes(part) async for part in call]
    return answer


@dataclass(kw_only=True)
class Running:
    config: ProcessConfig
    channel: grpc.aio.Channel
    stop: asyncio.Event
    done: "asyncio.Task[None]"


Start = Callable[..., Any]


@pytest.fixture
def config(tmp_path: Path) -> ProcessConfig:
    return ProcessConfig(
        listen=(f"unix:{tmp_path}/grpc.sock", "127.0.0.1:0"), admin=f"unix:{tmp_path}/admin.sock"
    )


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@asynccontextmanager
async def running(
    config: ProcessConfig, echo: Echo, **options: Callable[[], Awaitable[Any]]
) -> AsyncIterator[Running]:
    """Serves while the block runs, and stops gracefully."""
    stop = asyncio.Event()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        done = group.create_task(
            serve(config, name="test", register=echo.register, stop=stop, **options)
        )
        async with rpc.channel(config.listen[0]) as channel:
            await asyncio.wait(
                {done, waiting := group.create_task(channel.channel_ready())},
                return_when=asyncio.FIRST_COMPLETED,
            )
            waiting.cancel()
            yield Running(config=config, channel=channel, stop=stop, done=done)
        stop.set()


async def failure_of(call: Awaitable[object]) -> DeltaplaneError:
    """What a call fails with, translated."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return rpc.translate(caught.value)

"""The agent's client against servers that misbehave; the real one: tests/unit/services/slicer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog.testing

from deltaplane.delta.messages import (
    Ack,
    Barrier,
    Drain,
    Hello,
    Mode,
    SnapshotBegin,
    SnapshotEnd,
    Welcome,
)
from deltaplane.delta.view import View
from deltaplane.delta.wire import ProtobufEncoder, bundled, decode_request
from nodeagent import stream as stream_module
from nodeagent.stream import ApplyResult, BarrierReached, HelloState, SlicerStream, Timing

PATIENCE = 10.0
ENCODER = ProtobufEncoder()
FAST = Timing(welcome=0.2, retry_min=0.01, retry_max=0.02)
HELLO = HelloState(node="node-1", node_uid="uid")

_Context = grpc.aio.ServicerContext[bytes, bytes]
Behaviour = Callable[[_Context], Awaitable[None]]

WELCOME = ENCODER.control(
    Welcome(
        lineage=b"L" * 16,
        server_id="test",
        mode=Mode.SNAPSHOT,
        head_revision=5,
        bookmark_period_ms=250,
        ack_interval_ms=100,
    )
)
EMPTY_SNAPSHOT = (
    ENCODER.control(SnapshotBegin(id=1, revision=5)),
    ENCODER.control(SnapshotEnd(id=1, chunks=0, objects=0, root_digest=View().digest.root)),
    ENCODER.control(Barrier(revision=5, head_revision=5, head_unix_ns=0)),
)


class Server:
    """Answers each stream with the next behaviour, the last one again and again."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.hellos: list[Hello] = []
        self._behaviours = behaviours

    async def stream(self, _requests: object, context: _Context) -> None:
        data = await context.read()
        assert isinstance(data, bytes)
        hello = decode_request(data)
        assert isinstance(hello, Hello)
        self.hellos.append(hello)
        await self._behaviours[min(len(self.hellos), len(self._behaviours)) - 1](context)


@contextlib.asynccontextmanager
async def serving(server: Server, folder: Path) -> AsyncIterator[str]:
    target = f"unix:{folder}/test.sock"
    grpc_server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Stream": grpc.stream_stream_rpc_method_handler(server.stream)
    }
    generic = grpc.method_handlers_generic_handler("deltaplane.v1.Slicer", handlers)
    grpc_server.add_generic_rpc_handlers((generic,))
    grpc_server.add_insecure_port(target)
    await grpc_server.start()
    try:
        yield target
    finally:
        await grpc_server.stop(0)


async def say_nothing(_: _Context) -> None:
    await asyncio.Event().wait()


async def welcome_and_fall_silent(context: _Context) -> None:
    await context.write(WELCOME)
    await asyncio.Event().wait()


async def talk_nonsense(context: _Context) -> None:
    await context.write(WELCOME)
    await context.write(b"\xff\xff")
    await asyncio.Event().wait()


async def send_snapshot(context: _Context) -> None:
    for message in bundled([WELCOME, *EMPTY_SNAPSHOT]):
        await context.write(message)
    await asyncio.Event().wait()


async def snapshot_and_goodbye(context: _Context) -> None:
    for message in (WELCOME, *EMPTY_SNAPSHOT):
        await context.write(message)
    await context.write(ENCODER.control(Drain(deadline_ms=1000, retry_after_ms=1)))
    await asyncio.Event().wait()


class Application:
    def __init__(self) -> None:
        self.barriers: list[BarrierReached] = []
        self.reached = asyncio.Event()

    async def apply(self, barrier: BarrierReached) -> ApplyResult:
        self.barriers.append(barrier)
        self.reached.set()
        return ApplyResult()


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (say_nothing, "nothing heard"),
        (welcome_and_fall_silent, "nothing heard"),
        (talk_nonsense, "malformed"),
    ],
)
async def test_a_bad_stream_is_given_up_and_tried_again(
    tmp_path: Path, behaviour: Behaviour, reason: str
) -> None:
    server, application = Server(behaviour, send_snapshot), Application()
    stream = SlicerStream(timing=FAST)
    async with serving(server, tmp_path) as target:
        running = asyncio.create_task(stream.run([target], HELLO, application.apply))
        async with asyncio.timeout(PATIENCE):
            await application.reached.wait()
        assert reason in stream.last_error
        assert len(server.hellos) == 2
        assert (stream.connected, stream.received_revision) == (True, 5)
        assert stream.lineage == b"L" * 16
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not stream.connected


@pytest.mark.parametrize(("remind_seconds", "lines"), [(60.0, [0]), (0.0, [0, 0, 0])])
async def test_a_refusal_that_goes_on_is_logged_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remind_seconds: float, lines: list[int]
) -> None:
    async def refuse(context: _Context) -> None:
        await context.abort(grpc.StatusCode.NOT_FOUND, "not registered")

    monkeypatch.setattr(stream_module, "REMIND_SECONDS", remind_seconds)
    server, application = Server(refuse, refuse, refuse, send_snapshot), Application()
    async with serving(server, tmp_path) as target:
        with structlog.testing.capture_logs() as logged:
            stream = SlicerStream(timing=FAST)
            running = asyncio.create_task(stream.run([target], HELLO, application.apply))
            async with asyncio.timeout(PATIENCE):
                await application.reached.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    ended = [line for line in logged if line["event"] == "stream_ended"]
    assert [line["unlogged_before"] for line in ended] == lines
    assert {line["reason"] for line in ended} == {"not registered"}
    assert [line["event"] for line in logged][-1] == "stream_up"


async def test_a_goodbye_is_no_error_and_the_view_is_kept(tmp_path: Path) -> None:
    server, application = Server(snapshot_and_goodbye, send_snapshot), Application()
    stream = SlicerStream(timing=FAST)
    async with serving(server, tmp_path) as target:
        running = asyncio.create_task(stream.run([target], HELLO, application.apply))
        async with asyncio.timeout(PATIENCE):
            while len(server.hellos) < 2:  # noqa: ASYNC110 - the server is another task
                await asyncio.sleep(0.005)
        assert stream.last_error == ""
        # The barrier that came with the goodbye was applied before the next stream began.
        assert [h.applied_revision for h in server.hellos] == [0, 5]
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_the_last_barrier_before_a_broken_message_is_applied(tmp_path: Path) -> None:
    written = asyncio.Event()

    async def barrier_then_nonsense(context: _Context) -> None:
        for message in (WELCOME, *EMPTY_SNAPSHOT):
            await context.write(message)
        await application.reached.wait()
        await context.write(ENCODER.control(Barrier(revision=9, head_revision=9, head_unix_ns=0)))
        await context.write(b"\xff\xff")
        written.set()
        await asyncio.Event().wait()

    class Slow(Application):
        async def apply(self, barrier: BarrierReached) -> ApplyResult:
            result = await super().apply(barrier)
            if barrier.revision == 5:
                await written.wait()
                for _ in range(200):  # lets both messages come in, so that they are one batch
                    await asyncio.sleep(0)
            return result

    application, server = Slow(), Server(barrier_then_nonsense, send_snapshot)
    async with serving(server, tmp_path) as target:
        running = asyncio.create_task(
            SlicerStream(timing=FAST).run([target], HELLO, application.apply)
        )
        async with asyncio.timeout(PATIENCE):
            while len(server.hellos) < 2 and not running.done():  # noqa: ASYNC110 - another task
                await asyncio.sleep(0.005)
        assert [h.applied_revision for h in server.hellos] == [0, 9]
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_what_is_not_on_disk_is_not_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    ended = asyncio.Event()

    async def snapshot_and_barrier(context: _Context) -> None:
        for message in (WELCOME, *EMPTY_SNAPSHOT):
            await context.write(message)
        await application.reached.wait()
        await context.write(ENCODER.control(Barrier(revision=9, head_revision=9, head_unix_ns=0)))
        while 9 not in acknowledged:
            data = await context.read()
            assert isinstance(data, bytes)
            if isinstance(answer := decode_request(data), Ack):
                acknowledged.append(answer.applied_revision)
        ended.set()

    class Full(Application):
        async def apply(self, barrier: BarrierReached) -> ApplyResult:
            await super().apply(barrier)
            return ApplyResult(unwritten=barrier.revision == 5)

    application = Full()
    async with serving(Server(snapshot_and_barrier), tmp_path) as target:
        async with asyncio.timeout(PATIENCE):
            running = asyncio.create_task(
                SlicerStream(timing=FAST).run([target], HELLO, application.apply)
            )
            await ended.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert [barrier.revision for barrier in application.barriers] == [5, 9]
    assert set(acknowledged) <= {0, 9}


async def test_what_is_not_on_disk_is_not_claimed_later(tmp_path: Path) -> None:
    async def apply(_: BarrierReached) -> ApplyResult:
        return ApplyResult(unwritten=True)

    server = Server(snapshot_and_goodbye, say_nothing)
    async with serving(server, tmp_path) as target:
        running = asyncio.create_task(SlicerStream(timing=FAST).run([target], HELLO, apply))
        async with asyncio.timeout(PATIENCE):
            while len(server.hellos) < 2 and not running.done():  # noqa: ASYNC110 - another task
                await asyncio.sleep(0.005)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert [hello.applied_revision for hello in server.hellos[:2]] == [0, 0]


async def test_what_apply_raises_ends_the_run(tmp_path: Path) -> None:
    async def apply(_: BarrierReached) -> ApplyResult:
        raise OSError("the kernel said no")

    async with serving(Server(send_snapshot), tmp_path) as target:
        with pytest.raises(OSError, match="the kernel said no"):
            async with asyncio.timeout(PATIENCE):
                await SlicerStream(timing=FAST).run([target], HELLO, apply)


async def test_one_target_away_the_next_is_tried(tmp_path: Path) -> None:
    application = Application()
    async with serving(Server(send_snapshot), tmp_path) as target:
        targets = [f"unix:{tmp_path}/nobody-1.sock", f"unix:{tmp_path}/nobody-2.sock", target]
        stream = SlicerStream(timing=FAST)
        running = asyncio.create_task(stream.run(targets, HELLO, application.apply))
        async with asyncio.timeout(PATIENCE):
            await application.reached.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

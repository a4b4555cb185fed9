import asyncio
import contextlib
import inspect
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from prometheus_client import REGISTRY

from deltaplane import errors
from deltaplane.errors import (
    Compacted,
    DeltaplaneError,
    Internal,
    Invalid,
    Throttled,
    Unavailable,
)
from deltaplane.runtime import rpc
from deltaplane.runtime.config import ProcessConfig
from tests.unit.deltaplane.runtime.conftest import METHODS, SERVICE, Echo, ask, failure_of, running

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, DeltaplaneError) and kind is not DeltaplaneError
]


def example(kind: type[DeltaplaneError]) -> DeltaplaneError:
    if kind is Invalid:
        return Invalid("spec.ingress[0].päth", "must be less than 3")
    if kind is Compacted:
        return Compacted(42)
    if kind is Throttled:
        return Throttled(1.25)
    return kind("höw it happened")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_every_error_arrives_as_what_it_was(
    config: ProcessConfig, method: str, kind: type[DeltaplaneError]
) -> None:
    sent = example(kind)
    async with running(config, Echo(failure=sent)) as server:
        received = await failure_of(ask(server.channel, method))
    assert type(received) is kind
    assert vars(received) == vars(sent)
    assert str(received) == (f"INTERNAL: {sent}" if kind is Internal else str(sent))


@pytest.mark.parametrize("method", METHODS)
async def test_a_bug_is_internal_logged_and_keeps_its_text_to_itself(
    config: ProcessConfig, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(config, Echo(failure=KeyError("secret"))) as server:
        received = await failure_of(ask(server.channel, method))
    assert isinstance(received, Internal)
    assert "secret" not in str(received)
    log = capsys.readouterr().err
    assert "rpc_failed" in log
    assert "secret" in log


async def test_who_leaves_while_it_is_written_to_is_no_bug(
    config: ProcessConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    class Flood(Echo):
        async def written(self, request: bytes, context: Any) -> None:
            async def write() -> None:
                while True:
                    await context.write(request)

            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(write())
                    await asyncio.Event().wait()
            finally:
                ended.set()

    ended = asyncio.Event()
    async with running(config, Flood()) as server:
        # Its methods have no stubs, so it has no type.
        channel: Any = server.channel
        # Each time it is chance where a write is then.
        for _ in range(30):
            call = channel.unary_stream(f"/{SERVICE}/Written")(bytes(100))
            await call.read()
            call.cancel()
            await ended.wait()
            ended.clear()
    assert "rpc_failed" not in capsys.readouterr().err


@pytest.mark.parametrize("method", METHODS)
async def test_calls_are_answered_and_counted(config: ProcessConfig, method: str) -> None:
    def count(code: str) -> float:
        labels = {"method": f"{SERVICE}/{method}", "code": code}
        return REGISTRY.get_sample_value("deltaplane_rpc_calls_total", labels) or 0

    def timed() -> float:
        labels = {"method": f"{SERVICE}/{method}"}
        return REGISTRY.get_sample_value("deltaplane_rpc_latency_seconds_count", labels) or 0

    before = (count("OK"), count("NOT_FOUND"), timed())
    echo = Echo()
    async with running(config, echo) as server:
        for _ in range(3):
            assert await ask(server.channel, method) == b"hello"
        echo.failure = errors.NotFound("it")
        await failure_of(ask(server.channel, method))
    assert count("OK") == before[0] + 3
    assert count("NOT_FOUND") == before[1] + 1
    # Streams live as long as they like: only unary calls are timed.
    assert timed() == before[2] + (3 if method == "Unary" else 0)


async def test_an_unknown_method_is_our_callers_bug(config: ProcessConfig) -> None:
    async with running(config, Echo()) as server:
        received = await failure_of(ask(server.channel, "None"))
    assert isinstance(received, Internal)
    assert "UNIMPLEMENTED" in str(received)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, Unavailable),
        (grpc.StatusCode.CANCELLED, Unavailable),
        (grpc.StatusCode.ABORTED, errors.Conflict),
        (grpc.StatusCode.PERMISSION_DENIED, errors.Forbidden),
        (grpc.StatusCode.OUT_OF_RANGE, Internal),
        (grpc.StatusCode.DATA_LOSS, Internal),
    ],
)
def test_a_status_that_we_do_not_send_has_a_meaning_too(
    code: grpc.StatusCode, kind: type[DeltaplaneError]
) -> None:
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="why")
    received = rpc.translate(error)
    assert type(received) is kind
    assert "why" in str(received)


async def test_a_request_above_the_limit_is_refused(config: ProcessConfig) -> None:
    async with running(config, Echo()) as server:
        just_fits = bytes(rpc.MAX_MESSAGE_BYTES)
        assert await ask(server.channel, "Unary", just_fits) == just_fits
        received = await failure_of(ask(server.channel, "Unary", just_fits + b"x"))
    assert isinstance(received, errors.Exhausted)


async def test_several_targets_take_turns_and_stand_in_for_each_other(
    config: ProcessConfig, unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    here = config.model_copy(update={"listen": (config.listen[0], f"127.0.0.1:{unused_tcp_port}")})
    # Port 9 (discard) has no server.
    targets = f"127.0.0.1:9,127.0.0.1:{unused_tcp_port}"
    async with running(here, Echo()), rpc.channel(targets) as channel:
        await channel.channel_ready()
        for _ in range(10):
            assert await ask(channel, "Unary") == b"hello"
    assert "rpc_failed" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "target", ["", "a", "127.0.0.1:1,[::1]:1", "unix:/a,unix:/b", "localhost:1,localhost:2"]
)
def test_a_target_that_cannot_work_is_refused(target: str) -> None:
    with pytest.raises(Invalid):
        rpc.channel(target)


async def test_a_server_that_is_away_is_unavailable(config: ProcessConfig) -> None:
    async with rpc.channel(config.listen[0]) as channel:
        received = await failure_of(ask(channel, "Unary"))
    assert isinstance(received, Unavailable)


async def test_a_handshake_may_take_longer_than_the_pause_between_attempts(
    tmp_path: Path,
) -> None:
    """A server on a busy machine: it accepts at once and speaks late."""
    slow = tmp_path / "slow.sock"
    attempts, ended = 0, asyncio.Event()

    async def speak_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        await asyncio.sleep(0.3)
        writer.write(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))  # an empty SETTINGS frame
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        writer.close()
        ended.set()

    async with asyncio.timeout(10), await asyncio.start_unix_server(speak_late, slow):
        async with rpc.channel(f"unix:{slow}") as channel:
            await channel.channel_ready()
        await ended.wait()
    assert attempts == 1


async def test_a_new_channel_has_a_connection_of_its_own(
    config: ProcessConfig, tmp_path: Path
) -> None:
    """An address may lead elsewhere by now: the old connection is not taken over."""
    other = config.model_copy(
        update={"listen": (f"unix:{tmp_path}/other.sock",), "admin": f"unix:{tmp_path}/adm.sock"}
    )
    link = tmp_path / "any.sock"
    async with running(config, Echo()), running(other, Echo(failure=errors.NotFound("other"))):
        link.symlink_to(config.listen[0].removeprefix("unix:"))
        async with rpc.channel(f"unix:{link}") as first:
            assert await ask(first, "Unary") == b"hello"
            link.unlink()
            link.symlink_to(other.listen[0].removeprefix("unix:"))
            async with rpc.channel(f"unix:{link}") as second:
                assert isinstance(await failure_of(ask(second, "Unary")), errors.NotFound)

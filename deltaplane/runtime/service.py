"""The life of a serving process: listen, say ready, wait for a signal, stop in the right order.

Stop order: health says NOT_SERVING → `on_drain` (streams say goodbye) → the gRPC server ends its
calls → admin HTTP ends → `serve` returns and the caller closes its store.
"""

import asyncio
import contextlib
import json
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from deltaplane.errors import DeltaplaneError, Refused
from deltaplane.runtime import address, admin, interpreter, listen, log, tls, tracing
from deltaplane.runtime.authorising import Authoriser
from deltaplane.runtime.config import ProcessConfig
from deltaplane.runtime.limiting import Buckets
from deltaplane.runtime.roles import Peer, Role
from deltaplane.runtime.rpc import MAX_MESSAGE_BYTES, ErrorInterceptor

DRAIN_SECONDS = 5.0
"""How long `on_drain` may take."""

GRACE_SECONDS = 5.0
"""How long running calls may go on after draining; then they are cancelled."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    # Two processes on one port would each get half of the calls; we want an error.
    ("grpc.so_reuseport", 0),
    # A connection has one stream and a few calls at a time.
    ("grpc.max_concurrent_streams", 1000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Clients may ping as often as `rpc.channel` does, also between calls.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


async def serve(
    config: ProcessConfig,
    *,
    name: str,
    register: Callable[[grpc.aio.Server], Sequence[str]],
    ready: Callable[[], Awaitable[bool]] | None = None,
    on_drain: Callable[[], Awaitable[None]] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serves until SIGTERM, SIGINT or `stop`; cancelled, it ends at once without grace.

    When it serves it prints the ready line on standard output. Background tasks belong to the
    caller.

    Args:
        config: where to listen.
        name: of the process, for its logs.
        register: adds servicers to the server and returns their full service names.
        ready: answers /readyz; None: ready as long as it serves.
        on_drain: ends the caller's long streams; more than DRAIN_SECONDS is cut short.
        stop: another way to stop it, for a caller that is not a whole process.

    Raises:
        Refused: an address cannot be had, or the certificate is not usable. The text names it.
    """
    log.configure(config.log_format, config.log_level, name)
    stopping = stop or asyncio.Event()
    _check_certificate(config, name)
    server = grpc.aio.server(interceptors=_interceptors(config), options=_OPTIONS)
    checks = _Health()
    await _register(server, checks, register)

    async def is_ready() -> bool:
        return not stopping.is_set() and (ready is None or await ready())

    bound: list[address.Address] = []
    recorder = _recorder(config, name)
    try:
        for text in config.listen:
            # gRPC asks each of them once for a first certificate: one for each address.
            credentials = tls.server_credentials(config.tls_dir) if config.tls_dir else None
            where = listen.bind_grpc(server, address.parse(text), credentials)
            bound.append(where)
        async with admin.serving(address.parse(config.admin), is_ready) as admin_address:
            await server.start()
            interpreter.settled()
            with tracing.recording(recorder), _signals(stopping):
                _announce(bound, admin_address)
                await stopping.wait()
                log.get().info("stopping")
                await checks.drain()
                await _drain(on_drain)
                await server.stop(GRACE_SECONDS)
    finally:
        # After a graceful stop this does nothing; else it ends what is left.
        await server.stop(0)
        for where in bound:
            listen.forget(where)
    log.get().info("stopped")


def _interceptors(config: ProcessConfig) -> list[grpc.aio.ServerInterceptor]:
    """The first sees a call first, and what the others raise."""
    if config.tls_dir is None:
        return [ErrorInterceptor()]
    buckets = Buckets(config.limit) if config.limit else None
    return [ErrorInterceptor(), Authoriser(config.instance, buckets)]


def _check_certificate(config: ProcessConfig, name: str) -> None:
    """Raises Refused: the certificate is not usable, or another process's."""
    if config.tls_dir is None:
        log.get().warning("insecure", reason="--insecure: plain text, and everybody may do all")
        return
    own = tls.read(config.tls_dir).peer
    wanted = Peer(Role.NODE, config.instance) if config.instance else Peer(Role(name))
    if own != wanted:
        raise Refused(f"{config.tls_dir}: the certificate is that of {own}, not of {wanted}")


def _recorder(config: ProcessConfig, name: str) -> tracing.Recorder | None:
    if not config.trace_ratio:
        return None
    # A tenth of a second of CPU that a process without traces does not spend.
    from deltaplane.runtime.recording import SdkRecorder  # noqa: PLC0415

    return SdkRecorder(
        process=name,
        instance=config.instance,
        ratio=config.trace_ratio,
        collector=config.trace_otlp,
    )


def run(main: Coroutine[Any, Any, None]) -> int:
    """Runs a process's main coroutine; the exit code.

    What fails on purpose is one clear line in the log, without a traceback.
    """
    interpreter.prepare()
    failures: list[BaseException] = []
    try:
        asyncio.run(main)
    except* DeltaplaneError as group:
        failures.extend(_leaves(group))
    for failure in failures:
        log.get().error("failed", kind=type(failure).__name__, reason=str(failure))
    return 1 if failures else 0


class _Health(health.aio.HealthServicer):  # type: ignore[misc] # grpc_health has no annotations
    """The health service. Its watches end when the process drains, else they use up the grace."""

    def __init__(self) -> None:
        super().__init__()
        self._drained = asyncio.Event()

    async def Watch(  # noqa: N802 - the name comes from the proto file
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        """A service's status, and its end. It changes only by draining."""
        answer = health_pb2.HealthCheckResponse
        status = self._server_status.get(request.service, answer.SERVICE_UNKNOWN)
        await context.write(answer(status=status))
        if not self._drained.is_set():
            await self._drained.wait()
            if status == answer.SERVING:
                await context.write(answer(status=answer.NOT_SERVING))

    async def drain(self) -> None:
        """Every service says NOT_SERVING from now on."""
        await self.enter_graceful_shutdown()
        self._drained.set()


async def _register(
    server: grpc.aio.Server,
    checks: _Health,
    register: Callable[[grpc.aio.Server], Sequence[str]],
) -> None:
    names = tuple(register(server))
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for service in names:
        await checks.set(service, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection(
        (*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )


async def _drain(on_drain: Callable[[], Awaitable[None]] | None) -> None:
    if on_drain is None:
        return
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await on_drain()
    except TimeoutError:
        log.get().warning("drain_cut_short", after_seconds=DRAIN_SECONDS)
    except Exception:  # noqa: BLE001 - a failing goodbye must not keep the process alive
        log.get().exception("drain_failed")


def _announce(bound: Sequence[address.Address], admin_address: address.Address) -> None:
    where = {"listen": [str(entry) for entry in bound], "admin": str(admin_address)}
    sys.stdout.write(json.dumps({"event": "ready", **where}) + "\n")
    sys.stdout.flush()
    log.get().info("serving", **where)


@contextlib.contextmanager
def _signals(stopping: asyncio.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set the event. Only the main thread gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stopping.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error

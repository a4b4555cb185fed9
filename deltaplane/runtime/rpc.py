"""gRPC as every process uses it: channels, and `deltaplane.errors` on both sides of a call."""

import asyncio
import inspect
import ipaddress
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from types import MappingProxyType
from typing import Any, TypeAlias

import grpc
import grpc.aio

from deltaplane import errors
from deltaplane.runtime import address, log, metrics
from deltaplane.runtime.renewing import RenewingChannel
from deltaplane.runtime.tls import Tls

DEADLINE_SECONDS = 5
"""Deadline of a call where the caller has no better reason."""

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Largest request that a server takes."""

CONNECT_MS = 3000
"""Longest attempt to connect, with the handshake: a busy machine or a far one takes its time."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Largest answer that a client takes: a listing of 100,000 endpoints is below 16 MiB."""

_FIELD_KEY = "deltaplane-field-bin"
_COMPACT_KEY = "deltaplane-compact-revision"
_AGAIN_KEY = "deltaplane-retry-after-ms"

# The one table between exceptions and status. Read downwards: the first class that fits.
_STATUS_OF: Mapping[type[errors.DeltaplaneError], grpc.StatusCode] = MappingProxyType(
    {
        errors.Invalid: grpc.StatusCode.INVALID_ARGUMENT,
        errors.NotFound: grpc.StatusCode.NOT_FOUND,
        errors.Conflict: grpc.StatusCode.ALREADY_EXISTS,
        errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
        errors.Refused: grpc.StatusCode.FAILED_PRECONDITION,
        errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
        errors.Throttled: grpc.StatusCode.RESOURCE_EXHAUSTED,
        errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
        errors.Compacted: grpc.StatusCode.OUT_OF_RANGE,
        errors.Internal: grpc.StatusCode.INTERNAL,
    }
)
_ERROR_OF: Mapping[grpc.StatusCode, Callable[[str], errors.DeltaplaneError]] = MappingProxyType(
    {
        grpc.StatusCode.NOT_FOUND: errors.NotFound,
        grpc.StatusCode.ALREADY_EXISTS: errors.Conflict,
        grpc.StatusCode.ABORTED: errors.Conflict,
        grpc.StatusCode.FAILED_PRECONDITION: errors.Refused,
        grpc.StatusCode.PERMISSION_DENIED: errors.Forbidden,
        grpc.StatusCode.UNAUTHENTICATED: errors.Forbidden,
        grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Exhausted,
        grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
        grpc.StatusCode.DEADLINE_EXCEEDED: errors.Unavailable,
        grpc.StatusCode.CANCELLED: errors.Unavailable,
    }
)

_BY_NUMBER = {int(code.value[0]): code for code in grpc.StatusCode}

# A text: the class has type parameters for mypy only.
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"

_CALLS = metrics.counter("rpc_calls", "RPCs served, by outcome", ("method", "code"))
_LATENCY = metrics.histogram("rpc_latency_seconds", "Time to answer unary RPCs", ("method",))


_OPTIONS = (
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Not a pause, whatever its name says: what one attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", CONNECT_MS),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    # Else a channel that is made when another to the same address has just been closed
    # inherits its connection, perhaps to the very replica that said goodbye.
    ("grpc.use_local_subchannel_pool", 1),
    # Cluster traffic never goes through the proxy of somebody's shell.
    ("grpc.enable_http_proxy", 0),
)


def channel(target: str, tls: Tls | None = None) -> grpc.aio.Channel:
    """A channel that connects by itself, again and again.

    Args:
        target: `host:port`, `unix:/path`, or several IP addresses with ports separated by commas,
            which take turns.
        tls: our certificate, and what the server's has to say; None: in plain text.

    Raises:
        Invalid: an address is malformed, or several are not IP addresses of one family.
        Refused: our certificate is not usable.
    """
    return channel_to(_grpc_target(target), _OPTIONS, tls)


def channel_to(
    target: str, options: Sequence[tuple[str, str | int]], tls: Tls | None
) -> grpc.aio.Channel:
    """A channel with options of one's own. target: as gRPC wants it."""
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options)
    named = (*options, *tls.names)
    return RenewingChannel(
        lambda credentials: grpc.aio.secure_channel(target, credentials, options=named), tls
    )


def _grpc_target(target: str) -> str:
    parts = [part.strip() for part in target.split(",")]
    parsed = [address.parse(part) for part in parts]
    if len(parsed) == 1:
        return str(parsed[0])
    try:
        versions = {
            ipaddress.ip_address(part.host).version
            for part in parsed
            if isinstance(part, address.Tcp)
        }
    except ValueError:
        versions = set()
    if len(versions) != 1 or not all(isinstance(part, address.Tcp) for part in parsed):
        raise errors.Invalid("", f"{target!r}: several targets are IP addresses of one family")
    return f"ipv{versions.pop()}:{','.join(str(part) for part in parsed)}"


def translate(error: grpc.aio.AioRpcError) -> errors.DeltaplaneError:
    """The exception that a failed call stands for. Raise it `from` the error."""
    details = error.details() or error.code().name
    metadata: dict[str, str | bytes] = dict(error.trailing_metadata() or ())
    match error.code():
        case grpc.StatusCode.INVALID_ARGUMENT:
            field = metadata.get(_FIELD_KEY, b"")
            return errors.Invalid(field.decode() if isinstance(field, bytes) else field, details)
        case grpc.StatusCode.OUT_OF_RANGE if _COMPACT_KEY in metadata:
            return errors.Compacted(int(metadata[_COMPACT_KEY]))
        case grpc.StatusCode.RESOURCE_EXHAUSTED if _AGAIN_KEY in metadata:
            return errors.Throttled(int(metadata[_AGAIN_KEY]) / 1000)
        case code:
            return _error(code, details)


def error_of(code: int, details: str) -> errors.DeltaplaneError:
    """The exception that a status inside an answer stands for, where a batch has one for each part.

    Args:
        code: number of a gRPC status; see `status_number`.
        details: its text.
    """
    status = _BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN)
    if status is grpc.StatusCode.INVALID_ARGUMENT:
        return errors.Invalid("", details)
    return _error(status, details)


def status_number(error: errors.DeltaplaneError) -> int:
    """The number of the gRPC status by which an exception travels inside an answer."""
    code, _, _ = status_of(error)
    return int(code.value[0])


def _error(code: grpc.StatusCode, details: str) -> errors.DeltaplaneError:
    if code in _ERROR_OF:
        return _ERROR_OF[code](details)
    return errors.Internal(f"{code.name}: {details}")


def status_of(error: errors.DeltaplaneError) -> tuple[grpc.StatusCode, str, grpc.aio.Metadata]:
    """The status, text and trailing metadata by which an exception travels."""
    code = next(
        (code for kind, code in _STATUS_OF.items() if isinstance(error, kind)),
        grpc.StatusCode.INTERNAL,
    )
    match error:
        case errors.Invalid():
            return code, error.reason, grpc.aio.Metadata((_FIELD_KEY, error.field.encode()))
        case errors.Compacted():
            return code, str(error), grpc.aio.Metadata((_COMPACT_KEY, str(error.compact_revision)))
        case errors.Throttled():
            again = str(math.ceil(error.seconds * 1000))
            return code, str(error), grpc.aio.Metadata((_AGAIN_KEY, again))
        case _:
            return code, str(error), grpc.aio.Metadata()


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns exceptions of handlers into status, counts calls and measures unary ones.

    An exception that is not of our tree is a bug: it is logged with its traceback and answered as
    INTERNAL without its text.
    """

    def __init__(self) -> None:
        self._wrapped: dict[str, tuple[_Handler, _Handler]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Wraps the handler of a method, once."""
        handler = await continuation(handler_call_details)
        if handler is None:  # unknown method: grpc answers UNIMPLEMENTED
            return None
        method = str(handler_call_details.method)
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = self._wrapped[method] = (handler, _wrap(handler, method.lstrip("/")))
        return known[1]


def _wrap(handler: Any, method: str) -> Any:  # noqa: ANN401 - grpc's own tuple of functions
    served = _Served(method)
    if handler.response_streaming:
        name = "stream_stream" if handler.request_streaming else "unary_stream"
    else:
        name = "stream_unary" if handler.request_streaming else "unary_unary"
    behaviour = getattr(handler, name)
    if inspect.isasyncgenfunction(behaviour):
        wrapped: Any = served.generator(behaviour)
    elif inspect.iscoroutinefunction(behaviour):
        wrapped = served.coroutine(behaviour, timed=not handler.response_streaming)
    else:
        # grpc runs a plain function in a thread; ours are all coroutines.
        return handler
    return handler._replace(**{name: wrapped})


def _tells_of_leaving(error: BaseException) -> bool:
    """Whether the other side was gone while it was written to; an internal error to grpc."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_tells_of_leaving, error.exceptions))
    return isinstance(error, grpc.aio.InternalError)


class _Served:
    """What a method's wrapper needs; the children of the metrics are looked up once."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._ok = _CALLS.labels(method, "OK")
        self._latency = _LATENCY.labels(method)

    def coroutine(self, behaviour: Any, *, timed: bool) -> Any:  # noqa: ANN401 - as grpc has it
        async def call(request: Any, context: Any) -> Any:  # noqa: ANN401 - as grpc has it
            started = perf_counter()
            try:
                answer = await behaviour(request, context)
            except BaseException as error:
                await self._fail(error, context)
                raise
            self._ok.inc()
            if timed:
                self._latency.observe(perf_counter() - started)
            return answer

        return call

    def generator(self, behaviour: Any) -> Any:  # noqa: ANN401 - as grpc has it
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - as grpc has it
            try:
                async for answer in behaviour(request, context):
                    yield answer
            except BaseException as error:
                await self._fail(error, context)
                raise
            self._ok.inc()

        return call

    async def _fail(
        self, error: BaseException, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Ends the call with the error's status; returns if the error is not ours to translate."""
        if isinstance(error, errors.DeltaplaneError):
            code, details, metadata = status_of(error)
            if isinstance(error, errors.Internal):
                log.get().exception("rpc_failed", method=self._method)
            _CALLS.labels(self._method, code.name).inc()
            await context.abort(code, details, tuple(metadata))
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)) or _tells_of_leaving(error):
            _CALLS.labels(self._method, "CANCELLED").inc()
        elif isinstance(error, grpc.aio.AbortError):
            _CALLS.labels(self._method, "ABORTED_BY_HANDLER").inc()
        elif isinstance(error, Exception):
            log.get().exception("rpc_failed", method=self._method)
            _CALLS.labels(self._method, "INTERNAL").inc()
            await context.abort(grpc.StatusCode.INTERNAL, "internal error; the log has the details")

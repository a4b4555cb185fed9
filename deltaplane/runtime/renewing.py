"""A channel whose certificate is replaced without losing a call.

gRPC's own channels keep the certificate that they were made with. This one makes a new channel when
the files have changed: new calls go there, and the former one is closed when its last call is over.
Stubs are made on it as on any other.
"""

import asyncio
from collections.abc import AsyncIterable, Callable
from typing import Any, Self

import grpc
import grpc.aio

from deltaplane.runtime.tls import Tls

Make = Callable[[grpc.ChannelCredentials], grpc.aio.Channel]


class _Generation:
    """One channel, and how many calls it has."""

    def __init__(self, channel: grpc.aio.Channel, stamp: object) -> None:
        self.channel = channel
        self.stamp = stamp
        self.methods: dict[object, Any] = {}
        self.calls = 0
        self.is_former = False
        self._closing: asyncio.Task[None] | None = None

    def begin(self, call: Any) -> None:  # noqa: ANN401 - any kind of call
        self.calls += 1
        call.add_done_callback(self._over)

    def retire(self) -> None:
        """No further calls come; it ends with the last one."""
        self.is_former = True
        self._close_if_idle()

    def _over(self, _call: object) -> None:
        self.calls -= 1
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self.is_former and not self.calls and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self.channel.close())


class RenewingChannel(grpc.aio.Channel):
    """See above.

    Args:
        make: a channel with these credentials.
        tls: whose certificate.

    Raises:
        Refused: the files are not usable.
    """

    def __init__(self, make: Make, tls: Tls) -> None:
        self._make = make
        self._tls = tls
        self._former: list[_Generation] = []
        self._newest = self._generation()

    def _generation(self) -> _Generation:
        stamp = self._tls.stamp()
        return _Generation(self._make(self._tls.credentials()), stamp)

    def current(self) -> _Generation:
        """The channel to call on now."""
        if self._tls.stamp() is not self._newest.stamp:
            former, self._newest = self._newest, self._generation()
            self._former = [item for item in self._former if item.calls] + [former]
            former.retire()
        return self._newest

    # --- what stubs ask for ----------------------------------------------------------------------

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as grpc has it
        """See grpc.aio.Channel."""
        return _Method(self, "unary_unary", arguments, options)

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as grpc has it
        """See grpc.aio.Channel."""
        return _Method(self, "unary_stream", arguments, options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as grpc has it
        """See grpc.aio.Channel."""
        return _Method(self, "stream_unary", arguments, options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as grpc has it
        """See grpc.aio.Channel."""
        return _Method(self, "stream_stream", arguments, options)

    # --- the connection --------------------------------------------------------------------------

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 - as grpc has it
        """See grpc.aio.Channel."""
        return self.current().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See grpc.aio.Channel."""
        await self.current().channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See grpc.aio.Channel."""
        await self.current().channel.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        """See grpc.aio.Channel. The calls of former certificates end, too."""
        for generation in (*self._former, self._newest):
            await generation.channel.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Method:
    """A method of a stub: makes each call on the channel of the moment."""

    __slots__ = ("_arguments", "_channel", "_kind", "_options")

    def __init__(
        self,
        channel: RenewingChannel,
        kind: str,
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> None:
        self._channel = channel
        self._kind = kind
        self._arguments = arguments
        self._options = options

    def __call__(
        self,
        request: "AsyncIterable[Any] | Any" = None,  # noqa: ANN401 - as grpc has it
        **options: Any,  # noqa: ANN401 - as grpc has it
    ) -> Any:  # noqa: ANN401 - as grpc has it
        generation = self._channel.current()
        method = generation.methods.get(self)
        if method is None:
            made = getattr(generation.channel, self._kind)(*self._arguments, **self._options)
            method = generation.methods[self] = made
        call = method(request, **options)
        generation.begin(call)
        return call

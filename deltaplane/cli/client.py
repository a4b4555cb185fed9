"""Blocking gRPC clients of the services, with errors as exceptions of `deltaplane.errors`.

Blocking, because a person waits for each answer anyway and threads do the lab's parallel work.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

import grpc

from deltaplane.errors import DeltaplaneError, Unavailable
from deltaplane.runtime import rpc
from deltaplane.runtime.roles import Role
from deltaplane.runtime.tls import Tls
from deltaplane.v1 import (
    agent_pb2_grpc,
    audit_pb2_grpc,
    bridge_pb2_grpc,
    ipam_pb2_grpc,
    receipts_pb2_grpc,
    registry_pb2_grpc,
    slicer_pb2_grpc,
)

MAX_MESSAGE_BYTES = 64 << 20

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # An http_proxy of the shell is not meant for a cluster's control plane.
    ("grpc.enable_http_proxy", 0),
    # A channel of its own: a second one to a restarted server must not inherit its back-off.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """gRPC targets (`host:port` or `unix:/path`) of the services.

    Attributes:
        hint: what to do when one is not reachable, a sentence for people.
        tls_dir: folder with our certificate; None: in plain text.
    """

    registry: str
    ipam: str
    slicer: str
    hint: str = ""
    tls_dir: Path | None = None


class Unreachable(Unavailable):
    """A service does not answer; the message says which, where, and what to do."""


@contextmanager
def translated(service: str, target: str, hint: str) -> Iterator[None]:
    """Turns gRPC errors of the block into exceptions of our tree.

    Raises:
        DeltaplaneError: as the service said.
        Unreachable: nobody answers at the target.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise _translate(error, service, target, hint) from error


def _translate(error: grpc.RpcError, service: str, target: str, hint: str) -> DeltaplaneError:
    # The blocking API's errors have the same methods as AioRpcError, which `translate` is typed
    # for.
    known = rpc.translate(cast("grpc.aio.AioRpcError", error))
    if not isinstance(known, Unavailable):
        return known
    return Unreachable(f"{service} at {target}: {known}{'. ' if hint else ''}{hint}")


class _Translator(grpc.UnaryUnaryClientInterceptor):
    """Gives every unary call a deadline and our exceptions."""

    def __init__(self, service: str, target: str, hint: str) -> None:
        self._names = (service, target, hint)

    def intercept_unary_unary(
        self,
        continuation: Callable[..., Any],
        client_call_details: grpc.ClientCallDetails,
        request: Any,  # noqa: ANN401 - any message
    ) -> Any:  # noqa: ANN401 - grpc's own call object
        """Calls; raises what `translated` raises."""
        details = client_call_details
        if details.timeout is None:
            details = cast("Any", details)._replace(timeout=rpc.DEADLINE_SECONDS)
        call = continuation(details, request)
        with translated(*self._names):
            call.result()
        return call


class Client:
    """Stubs of all services. Channels connect at the first call."""

    def __init__(self, targets: Targets) -> None:
        self.targets = targets
        self._channels: list[grpc.Channel] = []

    def _channel(self, service: str, target: str, role: Role) -> grpc.Channel:
        if self.targets.tls_dir is None:
            channel = grpc.insecure_channel(target, options=_OPTIONS)
        else:
            tls = Tls(self.targets.tls_dir, role)
            channel = grpc.secure_channel(
                target, tls.credentials(), options=(*_OPTIONS, *tls.names)
            )
        self._channels.append(channel)
        return grpc.intercept_channel(channel, _Translator(service, target, self.targets.hint))

    @cached_property
    def registry(self) -> registry_pb2_grpc.RegistryStub:
        """Nodes, namespaces, pods, endpoints, identities, policies."""
        channel = self._channel("the endpoint registry", self.targets.registry, Role.ENDPOINTS)
        return registry_pb2_grpc.RegistryStub(channel)

    @cached_property
    def ipam(self) -> ipam_pb2_grpc.IpamStub:
        """Pools and blocks."""
        return ipam_pb2_grpc.IpamStub(self._channel("ipam", self.targets.ipam, Role.IPAM))

    @cached_property
    def slicer(self) -> slicer_pb2_grpc.SlicerStub:
        """Slices and connected agents."""
        channel = self._channel("the slicer", self.targets.slicer, Role.SLICER)
        return slicer_pb2_grpc.SlicerStub(channel)

    @cached_property
    def receipts(self) -> receipts_pb2_grpc.ReceiptsStub:
        """Where something is enforced. Iterate its streams inside `translated`."""
        channel = self._channel("the slicer", self.targets.slicer, Role.SLICER)
        return receipts_pb2_grpc.ReceiptsStub(channel)

    @cached_property
    def records(self) -> audit_pb2_grpc.AddressRecordsStub:
        """Addresses as etcd has them."""
        channel = self._channel("the endpoint registry", self.targets.registry, Role.ENDPOINTS)
        return audit_pb2_grpc.AddressRecordsStub(channel)

    def node_addresses(self, target: str) -> audit_pb2_grpc.NodeAddressesStub:
        """Addresses as one node has them."""
        channel = self._channel("the agent", target, Role.NODE)
        return audit_pb2_grpc.NodeAddressesStub(channel)

    def agent(self, target: str) -> agent_pb2_grpc.AgentStub:
        """One node's agent."""
        return agent_pb2_grpc.AgentStub(self._channel("the agent", target, Role.NODE))

    def bridge(self, target: str) -> bridge_pb2_grpc.BridgeStub:
        """One replica of the bridge."""
        return bridge_pb2_grpc.BridgeStub(self._channel("the bridge", target, Role.BRIDGE))

    def close(self) -> None:
        """Closes every channel."""
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

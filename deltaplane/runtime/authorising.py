"""Who may call what. One table; docs/reference/authorisation.md is made of it.

A role in a rule may make the call. `admin` may make every one. A node's agent acts for its own node
only: where a rule says OWN, each node that the request names has to be the one in its certificate.
What is not in the table is nobody's.

Without TLS there is no caller to ask about, and everything is allowed: see `--insecure`.
"""

import enum
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from types import MappingProxyType
from typing import Any, TypeAlias

import grpc
import grpc.aio

from deltaplane.errors import Forbidden, Internal, Throttled
from deltaplane.runtime import log, metrics, tls
from deltaplane.runtime.limiting import Buckets
from deltaplane.runtime.roles import Peer, Role


class May(enum.Enum):
    """What a node's agent may."""

    NO = "no"
    YES = "yes"
    OWN = "for its own node"
    HOST = "on its own node"
    """Where the agent that is called is that of its node: itself, or somebody with its files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Who may make a call.

    Attributes:
        roles: that may, besides admin.
        node: what an agent may.
        names: with OWN: the request's fields that name nodes, as in "endpoint.node"; empty: the
            handler asks `require_own`.
    """

    roles: frozenset[Role] = frozenset()
    node: May = May.NO
    names: str = ""


def _rule(*roles: Role, node: May = May.NO, names: str = "") -> Rule:
    return Rule(roles=frozenset(roles), node=node, names=names)


_ADMIN_ONLY = _rule()
_BRIDGE = _rule(Role.BRIDGE)
_EVERYBODY = _rule(*(set(Role) - {Role.ADMIN, Role.NODE}), node=May.YES)

TABLE: Mapping[str, Rule] = MappingProxyType(
    {
        "deltaplane.v1.Ipam/CreatePool": _ADMIN_ONLY,
        "deltaplane.v1.Ipam/UpdatePool": _ADMIN_ONLY,
        "deltaplane.v1.Ipam/DeletePool": _ADMIN_ONLY,
        "deltaplane.v1.Ipam/ListPools": _rule(node=May.YES),
        "deltaplane.v1.Ipam/ClaimBlocks": _rule(node=May.OWN, names="node"),
        "deltaplane.v1.Ipam/ClaimAddress": _rule(node=May.OWN, names="node"),
        "deltaplane.v1.Ipam/ReleaseBlock": _rule(node=May.OWN, names="node"),
        "deltaplane.v1.Ipam/ListBlocks": _rule(node=May.OWN, names="node"),
        "deltaplane.v1.Registry/RegisterNode": _rule(node=May.OWN, names="node.name"),
        "deltaplane.v1.Registry/ListNodes": _BRIDGE,
        "deltaplane.v1.Registry/DeleteNode": _BRIDGE,
        "deltaplane.v1.Registry/ApplyNamespaces": _BRIDGE,
        "deltaplane.v1.Registry/ListNamespaces": _BRIDGE,
        "deltaplane.v1.Registry/DeleteNamespaces": _BRIDGE,
        "deltaplane.v1.Registry/ApplyPods": _BRIDGE,
        "deltaplane.v1.Registry/ListPods": _BRIDGE,
        "deltaplane.v1.Registry/DeletePods": _BRIDGE,
        "deltaplane.v1.Registry/RegisterEndpoint": _rule(node=May.OWN, names="endpoint.node"),
        "deltaplane.v1.Registry/RegisterEndpoints": _rule(node=May.OWN, names="endpoints.node"),
        "deltaplane.v1.Registry/ReleaseEndpoints": _rule(node=May.OWN, names="releases.node"),
        "deltaplane.v1.Registry/ListEndpoints": _rule(Role.BRIDGE, node=May.OWN, names="node"),
        "deltaplane.v1.Registry/ListIdentities": _ADMIN_ONLY,
        "deltaplane.v1.Registry/ApplyPolicies": _BRIDGE,
        "deltaplane.v1.Registry/ListPolicies": _BRIDGE,
        "deltaplane.v1.Registry/DeletePolicies": _BRIDGE,
        "deltaplane.v1.Registry/ApplyServices": _BRIDGE,
        "deltaplane.v1.Registry/ListServices": _BRIDGE,
        "deltaplane.v1.Registry/DeleteServices": _BRIDGE,
        "deltaplane.v1.Registry/ApplyEndpointSlices": _BRIDGE,
        "deltaplane.v1.Registry/ListEndpointSlices": _BRIDGE,
        "deltaplane.v1.Registry/DeleteEndpointSlices": _BRIDGE,
        "deltaplane.v1.AddressRecords/ListRecords": _ADMIN_ONLY,
        "deltaplane.v1.AddressRecords/RepairPointers": _ADMIN_ONLY,
        "deltaplane.v1.AddressRecords/RemoveLeftovers": _ADMIN_ONLY,
        "deltaplane.v1.Slicer/Stream": _rule(node=May.OWN),
        "deltaplane.v1.Slicer/ListSlices": _ADMIN_ONLY,
        "deltaplane.v1.Slicer/ListAgents": _ADMIN_ONLY,
        "deltaplane.v1.Slicer/GetQuarantine": _ADMIN_ONLY,
        "deltaplane.v1.Receipts/Watch": _rule(Role.BRIDGE, node=May.OWN),
        "deltaplane.v1.Receipts/ListEffective": _rule(Role.SLICER),
        "deltaplane.v1.Bridge/GetStatus": _ADMIN_ONLY,
        "deltaplane.v1.Bridge/ConfirmSweep": _ADMIN_ONLY,
        "deltaplane.v1.Agent/GetStatus": _rule(node=May.HOST),
        "deltaplane.v1.Agent/ListDenials": _rule(node=May.HOST),
        "deltaplane.v1.Agent/ListInterfaces": _rule(node=May.HOST),
        "deltaplane.v1.Agent/ListCounters": _rule(node=May.HOST),
        "deltaplane.v1.Agent/ListRuleCounters": _rule(node=May.HOST),
        "deltaplane.v1.Agent/ListFrontends": _rule(node=May.HOST),
        "deltaplane.v1.Agent/ConfirmSweep": _ADMIN_ONLY,
        "deltaplane.v1.NodeAddresses/ListAddresses": _rule(node=May.HOST),
        "deltaplane.v1.NodeAddresses/RepairAddresses": _ADMIN_ONLY,
        "grpc.health.v1.Health/Check": _EVERYBODY,
        "grpc.health.v1.Health/List": _EVERYBODY,
        "grpc.health.v1.Health/Watch": _EVERYBODY,
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _ADMIN_ONLY,
    }
)

_DENIED = metrics.counter("rpc_denied", "Calls that the caller may not make", ("method", "role"))
_THROTTLED = metrics.counter("rpc_throttled", "Calls refused because a node calls too often")

_REMIND_SECONDS = 60.0
"""Between two log lines of the same caller and method."""

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"

_caller: ContextVar[Peer | None] = ContextVar("caller", default=None)


def allows(rule: Rule, peer: Peer, *, host: str = "") -> bool:
    """Whether a caller may make a call at all; what it asks for is looked at besides.

    Args:
        rule: of the call.
        peer: the caller.
        host: node of the agent that is called; empty: it is no agent.
    """
    if peer.role is Role.ADMIN:
        return True
    if peer.role is not Role.NODE:
        return peer.role in rule.roles
    if rule.node is May.HOST:
        return peer.node == host
    return rule.node is not May.NO


def require_own(nodes: Iterable[str]) -> None:
    """In a handler: refuses a node that asks about other nodes. nodes: those that it asks about.

    Raises:
        Forbidden: it does, or about none in particular.
    """
    peer = _caller.get()
    if peer is None or peer.role is not Role.NODE:
        return
    asked = set(nodes)
    if asked != {peer.node}:
        raise Forbidden(f"node {peer.node} asks about {', '.join(sorted(asked)) or 'all nodes'}")


class Authoriser(grpc.aio.ServerInterceptor):
    """Looks at every call of a server with TLS.

    Args:
        host: node of this agent; empty: this is none.
        buckets: how often each node may call; None: as often as it likes.
    """

    def __init__(self, host: str = "", buckets: Buckets | None = None) -> None:
        self._host = host
        self._buckets = buckets
        self._wrapped: dict[str, tuple[_Handler, _Handler]] = {}
        self._logged: dict[tuple[str, str], float] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Wraps the handler of a method, once."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = self._wrapped[method] = (handler, self._wrap(handler, method.lstrip("/")))
        return known[1]

    def _wrap(self, handler: Any, method: str) -> Any:  # noqa: ANN401 - grpc's own tuple of functions
        answers = "stream" if handler.response_streaming else "unary"
        name = f"{'stream' if handler.request_streaming else 'unary'}_{answers}"
        behaviour = getattr(handler, name)
        reads = not handler.request_streaming
        if inspect.isasyncgenfunction(behaviour):

            async def generator(request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
                self._admit(method, context, request if reads else None)
                async for answer in behaviour(request, context):
                    yield answer

            return handler._replace(**{name: generator})

        async def coroutine(request: Any, context: Any) -> Any:  # noqa: ANN401 - as grpc has it
            self._admit(method, context, request if reads else None)
            if not inspect.iscoroutinefunction(behaviour):
                raise Internal(f"{method} is no coroutine")
            return await behaviour(request, context)

        return handler._replace(**{name: coroutine})

    def _admit(self, method: str, context: Any, request: Any) -> None:  # noqa: ANN401 - as grpc has it
        """Raises Forbidden or Throttled. request: None: there are many of them."""
        peer = tls.peer_of(context)
        if peer.role is Role.NODE and self._buckets is not None:
            wait = self._buckets.take(peer.node, monotonic())
            if wait:
                _THROTTLED.inc()
                raise Throttled(wait)
        rule = TABLE.get(method)
        if rule is None or not allows(rule, peer, host=self._host):
            raise self._denied(method, peer, f"{peer} may not call {method}")
        _caller.set(peer)
        if rule.names and request is not None:
            try:
                require_own(_values(request, rule.names.split(".")))
            except Forbidden as error:
                raise self._denied(method, peer, str(error)) from None

    def _denied(self, method: str, peer: Peer, reason: str) -> Forbidden:
        _DENIED.labels(method, str(peer.role)).inc()
        key, now = (method, str(peer)), monotonic()
        if now - self._logged.get(key, float("-inf")) >= _REMIND_SECONDS:
            self._logged[key] = now
            log.get().warning("rpc_denied", method=method, peer=str(peer), reason=reason)
        return Forbidden(reason)


def _values(message: Any, path: list[str]) -> list[str]:  # noqa: ANN401 - any message
    """The texts in a field of a message; of all its messages where it has many."""
    found = getattr(message, path[0])
    if len(path) == 1:
        return [found]
    parts = [found] if hasattr(found, "DESCRIPTOR") else found
    return [value for part in parts for value in _values(part, path[1:])]

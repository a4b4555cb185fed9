"""Requests to an API server over HTTPS: each has a deadline, a permission, and a typed error."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from enum import Enum
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from deltaplane.errors import Unavailable
from services.kubernetes.api import events
from services.kubernetes.api.kubeconfig import Connection
from services.kubernetes.api.permissions import PERMISSIONS, Permission, Verb, require
from services.kubernetes.api.resource import EVENTS, Resource
from services.kubernetes.api.transport import DEADLINE_SECONDS, LIST_SECONDS, Request, Transport
from services.kubernetes.api.types import UNDECODABLE, Body

T = TypeVar("T")


class PatchType(Enum):
    """How a patch is to be read."""

    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"


class Client:
    """An API server, seen by one process. Closes its connections when the `async with` ends."""

    def __init__(
        self,
        connection: Connection,
        *,
        permissions: tuple[Permission, ...] = PERMISSIONS,
        deadline_seconds: float = DEADLINE_SECONDS,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Connects when the first request is made.

        Args:
            connection: where, and who we are.
            permissions: what may be asked; anything else is Internal.
            deadline_seconds: for each call.
            pause: waits that many seconds.

        Raises:
            Invalid: the connection's certificates are of no use.
        """
        self.connection = connection
        self._permissions = permissions
        self._transport = Transport(connection, deadline_seconds=deadline_seconds, pause=pause)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes all connections."""
        await self._transport.close()

    async def get(self, resource: Resource, name: str, kind: type[T], *, namespace: str = "") -> T:
        """One object, as it is now.

        Raises:
            NotFound: it does not exist.
            DeltaplaneError: see `failures`.
        """
        request = self._request(Verb.GET, "GET", resource, name, namespace)
        return _decode(await self._transport.call(request), kind, request.what)

    async def page(self, resource: Resource, params: Mapping[str, str]) -> bytes:
        """A list, or a chunk of one, undecoded.

        Args:
            resource: the kind.
            params: of the query: limit, continue.
        """
        self._may(resource, Verb.LIST)
        return await self._transport.call(
            Request(
                method="GET",
                path=resource.collection(),
                what=f"list {resource}",
                params=params,
                deadline_seconds=LIST_SECONDS,
            )
        )

    async def create(
        self, resource: Resource, body: Body, kind: type[T], *, namespace: str = ""
    ) -> T:
        """Creates an object; gives what the server made of it.

        Raises:
            Conflict: there is one of that name.
        """
        self._may(resource, Verb.CREATE)
        what = f"create {resource}"
        request = Request(
            method="POST",
            path=resource.collection(namespace),
            what=what,
            body=msgspec.json.encode(body),
        )
        return _decode(await self._transport.call(request), kind, what)

    async def update(
        self, resource: Resource, name: str, body: Body, kind: type[T], *, namespace: str = ""
    ) -> T:
        """Replaces an object. With a resourceVersion in its metadata only if it is still at that.

        Raises:
            Conflict: it has changed.
        """
        request = self._request(Verb.UPDATE, "PUT", resource, name, namespace, body=body)
        return _decode(await self._transport.call(request), kind, request.what)

    async def patch_status(
        self,
        resource: Resource,
        name: str,
        body: Body,
        *,
        namespace: str = "",
        how: PatchType = PatchType.STRATEGIC,
        subresource: str = "status",
    ) -> None:
        """Changes fields of an object's status. subresource: by which of its ways.

        A strategic patch merges lists whose items have names: a condition of one type leaves the
        others as they are. Custom kinds know only MERGE.

        Raises:
            NotFound: the object is gone.
            Conflict: the patch names a resourceVersion, and it is another by now.
            Invalid: the patch names a uid, and it is another object by now.
        """
        request = self._request(
            Verb.PATCH,
            "PATCH",
            resource,
            name,
            namespace,
            body=body,
            subresource=subresource,
            content_type=how.value,
        )
        await self._transport.call(request)

    async def create_event(
        self, report: events.Report, reporter: events.Reporter, *, wall_ns: int
    ) -> None:
        """Tells people something about an object.

        Args:
            report: what.
            reporter: who says so.
            wall_ns: when: nanoseconds since 1970-01-01 UTC.
        """
        body = events.body(report, reporter, wall_ns)
        await self.create(EVENTS, body, msgspec.Raw, namespace=report.namespace)

    @contextlib.asynccontextmanager
    async def watch(
        self, resource: Resource, params: Mapping[str, str], *, silence_seconds: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A watch: an iterator of chunks of bytes; whoever ends it early closes the connection.

        Args:
            resource: the kind.
            params: of the query, without "watch".
            silence_seconds: so long nothing may come before the watch counts as dead.

        Raises:
            Unavailable: connection lost, or silent; also while it is iterated.
            DeltaplaneError: the server refuses the watch, see `failures`.
        """
        self._may(resource, Verb.WATCH)
        request = Request(
            method="GET",
            path=resource.collection(),
            what=f"watch {resource}",
            params={"watch": "true", **params},
        )
        async with self._transport.stream(request, silence_seconds=silence_seconds) as chunks:
            yield chunks

    def _may(self, resource: Resource, verb: Verb, subresource: str = "") -> None:
        require(resource, verb, subresource=subresource, permissions=self._permissions)

    def _request(
        self,
        verb: Verb,
        method: str,
        resource: Resource,
        name: str,
        namespace: str,
        *,
        body: Body | None = None,
        subresource: str = "",
        content_type: str = "application/json",
    ) -> Request:
        """A request about one object, if it is permitted."""
        self._may(resource, verb, subresource)
        where = f"{namespace}/{name}" if namespace else name
        return Request(
            method=method,
            path=resource.item(name, namespace, subresource=subresource),
            what=f"{verb.value} {resource} {where}",
            body=None if body is None else msgspec.json.encode(body),
            content_type=content_type,
        )


def _decode(body: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except UNDECODABLE as error:
        raise Unavailable(f"{what}: the answer is not what it should be: {error}") from error

"""Bare HTTP to a server: what a contract is asked with, and who makes objects in a real cluster."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2

LEASES = "/apis/coordination.k8s.io/v1"
POLICIES = "/apis/networking.k8s.io/v1"
SECONDS = 20
STREAMING = {
    "sendInitialEvents": "true",
    "resourceVersionMatch": "NotOlderThan",
    "allowWatchBookmarks": "true",
}
Object = dict[str, Any]


class Api:
    """A namespace of a server, and bare HTTP."""

    def __init__(self, http: httpx2.AsyncClient, namespace: str) -> None:
        self.http = http
        self.namespace = namespace
        self.leases = f"{LEASES}/namespaces/{namespace}/leases"

    async def ok(self, method: str, path: str, **fields: Any) -> Object:
        answer = await self.http.request(method, path, **fields)
        assert answer.is_success, answer.text
        return answer.json()  # type: ignore[no-any-return]

    async def status(self, method: str, path: str, **fields: Any) -> tuple[int, str]:
        answer = await self.http.request(method, path, **fields)
        return answer.status_code, answer.json()["reason"]

    async def lease(self, name: str, seconds: int = 10) -> Object:
        body = {"metadata": {"name": name}, "spec": {"leaseDurationSeconds": seconds}}
        return await self.ok("POST", self.leases, json=body)

    async def change(self, lease: Object, seconds: int) -> Object:
        body = lease | {"spec": {"leaseDurationSeconds": seconds}}
        return await self.ok("PUT", f"{self.leases}/{lease['metadata']['name']}", json=body)

    async def has_streaming_lists(self) -> bool:
        """Before 1.32 they are off by default, and with an old etcd they fail."""
        params = {"watch": "true", "timeoutSeconds": "1"} | STREAMING
        answer = await self.http.get(self.leases, params=params)
        return answer.is_success and b'"ERROR"' not in answer.content

    @contextlib.asynccontextmanager
    async def watch(self, **params: str) -> AsyncIterator[AsyncIterator[Object]]:
        params = {"watch": "true", "timeoutSeconds": str(SECONDS)} | params
        async with self.http.stream("GET", self.leases, params=params) as answer:
            assert answer.status_code == 200, await answer.aread()
            yield (json.loads(line) async for line in answer.aiter_lines() if line)

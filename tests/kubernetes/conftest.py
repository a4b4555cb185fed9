"""The servers that a test talks to."""

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from services.kubernetes.api.kubeconfig import Connection
from tests.kubernetes import cleaning, real
from tests.kubernetes.apiserver import ApiServer
from tests.kubernetes.bare import SECONDS, Api
from tests.kubernetes.stage import Stage, staged

# What only a real server can show.
collect_ignore = [] if real.asked() else ["clusters"]


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture(params=("fake", "real") if real.asked() else ("fake",))
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    """Of the fake and, where it is asked for, of a real server."""
    if request.param == "real":
        yield real.connection()
        return
    with ApiServer() as server:
        yield server.connection()


@pytest.fixture(scope="session")
def ending() -> Iterator[list[tuple[Connection, str]]]:
    """Namespaces that controllers end while other tests run: 7 s each."""
    paths: list[tuple[Connection, str]] = []
    yield paths
    for connection, path in paths:
        asyncio.run(_ended(connection, path))


async def _ended(connection: Connection, path: str) -> None:
    async with _http(connection) as http:
        await cleaning.gone(http, path)


def _http(connection: Connection) -> httpx2.AsyncClient:
    token = {"Authorization": f"Bearer {connection.token}"} if connection.token else {}
    return httpx2.AsyncClient(
        base_url=connection.server,
        verify=connection.tls(),
        headers=token,
        timeout=SECONDS,
        trust_env=False,
    )


@pytest.fixture
async def api(connection: Connection, ending: list[tuple[Connection, str]]) -> AsyncIterator[Api]:
    async with _http(connection) as http:
        namespace = f"deltaplane-{secrets.token_hex(4)}"
        api = Api(http, namespace)
        await api.ok("POST", "/api/v1/namespaces", json={"metadata": {"name": namespace}})
        try:
            yield api
        finally:
            if path := await cleaning.namespace(http, namespace):
                ending.append((connection, path))


@pytest.fixture
async def stage(api: Api, connection: Connection) -> AsyncIterator[Stage]:
    # Not tmp_path: a unix socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="dp-") as folder:
        async with staged(api, connection, Path(folder) / "registry") as found:
            yield found

"""Requests of the client: what is sent, what comes back, and what every failure is called."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from deltaplane.errors import (
    Conflict,
    DeltaplaneError,
    Internal,
    Invalid,
    NotFound,
    Refused,
    Unavailable,
)
from services.kubernetes.api import resource as resources
from services.kubernetes.api.client import Client
from services.kubernetes.api.events import EventType, Report, Reporter
from services.kubernetes.api.failures import Expired, Throttled
from services.kubernetes.api.kubeconfig import Connection
from services.kubernetes.api.types import Lease, LeaseSpec, ObjectMeta, RawList
from tests.kubernetes.apiserver import ApiServer
from tests.kubernetes.storing import Refusal

REPORTER = Reporter(controller="deltaplane.dev/bridge", instance="test")
MOMENT_NS = 1_790_000_000_123_456_789


async def test_lists_come_in_chunks_with_a_token(server: ApiServer) -> None:
    for number in range(3):
        server.create(resources.PODS, f"p{number}")
    async with Client(server.connection()) as client:
        first = msgspec.json.decode(await client.page(resources.PODS, {"limit": "2"}), type=RawList)
        params = {"limit": "2", "continue": first.metadata.continue_}
        second = msgspec.json.decode(await client.page(resources.PODS, params), type=RawList)
    assert [len(first.items or ()), len(second.items or ())] == [2, 1]
    assert not second.metadata.continue_


async def test_a_lease_is_created_read_and_replaced(server: ApiServer) -> None:
    server.create(resources.NAMESPACES, "dp")
    body = {"metadata": {"name": "bridge"}, "spec": {"leaseDurationSeconds": 10}}
    async with Client(server.connection()) as client:
        made = await client.create(resources.LEASES, body, Lease, namespace="dp")
        assert made.spec == LeaseSpec(lease_duration_seconds=10)
        read = await client.get(resources.LEASES, "bridge", Lease, namespace="dp")
        assert read == made
        seen = {"name": "bridge", "resourceVersion": made.metadata.resource_version}
        body = {"metadata": seen, "spec": {"leaseDurationSeconds": 20}}
        await client.update(resources.LEASES, "bridge", body, Lease, namespace="dp")
        with pytest.raises(Conflict):
            await client.update(resources.LEASES, "bridge", body, Lease, namespace="dp")
        with pytest.raises(Conflict):
            await client.create(resources.LEASES, body, Lease, namespace="dp")
        with pytest.raises(NotFound):
            await client.get(resources.LEASES, "other", Lease, namespace="dp")


async def test_a_condition_is_merged_into_the_others(server: ApiServer) -> None:
    ready = {"type": "Ready", "status": "True"}
    server.create(resources.NODES, "n1", status={"conditions": [ready]})
    ours = {"type": "NetworkUnavailable", "status": "False"}
    async with Client(server.connection()) as client:
        await client.patch_status(resources.NODES, "n1", {"status": {"conditions": [ours]}})
        assert server.get(resources.NODES, "n1")["status"]["conditions"] == [ready, ours]
        with pytest.raises(NotFound):
            await client.patch_status(resources.NODES, "n2", {"status": {}})
        server.create(resources.PODS, "p", namespace="a")
        body = {"metadata": {"uid": "of its predecessor"}, "status": {}}
        with pytest.raises(Invalid):
            await client.patch_status(resources.PODS, "p", body, namespace="a")


@pytest.mark.parametrize(("namespace", "where"), [("shop", "shop"), ("", "default")])
async def test_an_event_stands_beside_its_object(
    server: ApiServer, namespace: str, where: str
) -> None:
    server.create(resources.NAMESPACES, where)
    metadata = ObjectMeta(name="p", namespace=namespace, uid="u")
    resource = resources.NETWORK_POLICIES if namespace else resources.CLUSTER_NETWORK_POLICIES
    report = Report(
        resource=resource,
        metadata=metadata,
        type=EventType.WARNING,
        reason="PolicyRefused",
        note="é" * 1000,
    )
    async with Client(server.connection()) as client:
        await client.create_event(report, REPORTER, wall_ns=MOMENT_NS)
    (key,) = server.storage.keys(resources.EVENTS)
    event = server.storage.get(resources.EVENTS, key)
    assert key.startswith(f"{where}/p-")
    assert event["note"] == "é" * 512
    assert event["eventTime"] == "2026-09-21T14:13:20.123456Z"
    assert event["regarding"]["uid"] == "u"
    assert event["regarding"].get("namespace", "") == namespace


async def test_what_is_not_permitted_is_not_sent(server: ApiServer) -> None:
    async with Client(server.connection()) as client:
        with pytest.raises(Internal, match="no permission to create pods"):
            await client.create(resources.PODS, {}, msgspec.Raw, namespace="a")
        with pytest.raises(Internal, match="no permission to patch services/status"):
            await client.patch_status(resources.SERVICES, "s", {}, namespace="a")
        with pytest.raises(Internal, match="no permission to list leases"):
            await client.page(resources.LEASES, {})
    assert not server.calls


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (400, Invalid),
        (401, Refused),
        (403, Refused),
        (404, NotFound),
        (409, Conflict),
        (410, Expired),
        (418, Unavailable),
        (422, Invalid),
        (429, Throttled),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
async def test_failures_have_names(
    server: ApiServer, code: int, expected: type[DeltaplaneError]
) -> None:
    retry_after = 60 if code == 429 else 0
    server.refuse("list", Refusal(code, "Reason", "so it is", retry_after))
    async with Client(server.connection()) as client:
        with pytest.raises(expected, match=r"list pods.*so it is") as caught:
            await client.page(resources.PODS, {})
    assert type(caught.value) is expected


async def test_a_server_that_is_busy_is_asked_again_when_it_says(server: ApiServer) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    server.refuse("list", Refusal(429, "TooManyRequests", "", 2), Refusal(503, "Busy", "", 3))
    async with Client(server.connection(), pause=pause) as client:
        await client.page(resources.PODS, {})
    assert pauses == [2.0, 3.0]
    assert len(server.asked("list")) == 3


async def test_a_request_has_a_deadline() -> None:
    left = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()
        left.set()

    listener = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    connection = Connection(server=f"http://127.0.0.1:{port}")
    async with listener, Client(connection, deadline_seconds=0.05) as client:
        with pytest.raises(Unavailable, match=r"get leases.* no answer within"):
            await client.get(resources.LEASES, "a", Lease, namespace="b")
        await left.wait()


async def test_nobody_listens() -> None:
    async with Client(Connection(server="http://127.0.0.1:9")) as client:
        with pytest.raises(Unavailable, match="list pods: ConnectError"):
            await client.page(resources.PODS, {})


async def test_a_token_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    with ApiServer(tokens=["old"]) as server:
        async with Client(server.connection(token_file=token)) as client:
            await client.page(resources.PODS, {})
            server.tokens = {"new"}
            with pytest.raises(Refused):
                await client.page(resources.PODS, {})
            token.write_text("new\n")
            await client.page(resources.PODS, {})
            token.unlink()
            await client.page(resources.PODS, {})
            server.tokens = {"newer"}
            with pytest.raises(Unavailable, match="token"):
                await client.page(resources.PODS, {})
            for torn in (b"a\nHost: b", "é".encode(), b"\xff"):
                token.write_bytes(torn)
                with pytest.raises(Unavailable, match="token"):
                    await client.page(resources.PODS, {})

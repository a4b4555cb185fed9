"""From nothing to a connection: a node asks, the bridge grants, a service believes it."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from typer.testing import CliRunner

from deltaplane.certs import files, issuing
from deltaplane.certs.renewal import Renewal
from deltaplane.cli import requesting
from deltaplane.cli.main import app
from deltaplane.errors import Forbidden, Refused, Unavailable
from deltaplane.runtime import rpc, tls
from deltaplane.runtime.authorising import Authoriser
from deltaplane.runtime.clock import SystemClock
from deltaplane.runtime.roles import Peer, Role
from deltaplane.runtime.tls import Tls
from deltaplane.store.memory import MemoryStore
from deltaplane.v1 import ipam_pb2, ipam_pb2_grpc
from services.ipam.repository import Repository
from services.ipam.repository.coalescing import Coalescer
from services.ipam.servicer import IpamServicer
from services.kubernetes import certifying, metrics
from services.kubernetes.api import resource as resources
from services.kubernetes.api.backoff import Pauses
from services.kubernetes.api.certificates import SIGNER, USAGES
from services.kubernetes.api.client import Client
from services.kubernetes.certifying import Authority, Certifier
from services.kubernetes.signing import NODE_NAME, NODE_UID
from tests.kubernetes.apiserver import ApiServer
from tests.kubernetes.storing import Object, Refusal
from tests.kubernetes.test_tls import server as authority
from tests.services.plane import failure, ok
from tests.trust import Trust, trust

REQUESTS = resources.CERTIFICATE_REQUESTS
ACCOUNT = "system:serviceaccount:deltaplane-system:deltaplane-agent"
PAUSES = Pauses(first=0.01, longest=0.05)
SECONDS = 20.0


@dataclass
class Cluster:
    """An API server, a CA, a bridge that grants, and nodes' folders."""

    server: ApiServer
    ca: Trust
    folder: Path
    nodes: dict[str, str] | None = field(default_factory=dict)
    is_leader: bool = True
    said: list[str] = field(default_factory=list)
    certifier: Certifier | None = None
    looks: int = 0

    def node(self, name: str) -> None:
        """A node that has joined, and the token of its agent's pod."""
        uid = f"uid-{name}"
        self.nodes = {**(self.nodes or {}), name: uid}
        extra = {NODE_NAME: [name], NODE_UID: [uid]}
        self.server.storage.users[f"token-{name}"] = {"username": ACCOUNT, "extra": extra}

    def renewal(self, name: str) -> Renewal:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return Renewal(folder, Peer(Role.NODE, name), (self.ca.folder / tls.CA).read_bytes())

    async def ask(self, name: str, *, token: str = "", seconds: float = SECONDS) -> Renewal:
        renewal = self.renewal(name)
        await requesting.obtain(
            renewal,
            [self.server.connection(token=token or f"token-{name}")],
            seconds=seconds,
            say=self.said.append,
            pauses=PAUSES,
        )
        return renewal

    async def is_left_waiting(self, name: str) -> None:
        """It asks, and is ended when it has seen that there is no answer."""
        waits = asyncio.Event()

        def say(text: str) -> None:
            if "waits for the bridge" in text:
                waits.set()

        connection = self.server.connection(token=f"token-{name}")
        asking = requesting.obtain(
            self.renewal(name), [connection], seconds=SECONDS, say=say, pauses=PAUSES
        )
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(asking)
            await waits.wait()
            task.cancel()
        [request] = self.requests()
        assert conditions(request) == []

    async def is_left_alone(self) -> None:
        """The bridge knows of a request, has looked at it again and again, and does nothing."""
        assert self.certifier is not None
        async with asyncio.timeout(SECONDS):
            while not self.certifier._open:  # noqa: ASYNC110 - of a loop that we have no part in
                await asyncio.sleep(0.01)
            until = self.looks + 4
            while self.looks < until:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        [request] = self.requests()
        assert conditions(request) == []

    def _known(self) -> dict[str, str] | None:
        self.looks += self.nodes is None
        return self.nodes

    def _leads(self) -> bool:
        self.looks += not self.is_leader
        return self.is_leader

    def requests(self) -> list[Object]:
        return [
            self.server.storage.get(REQUESTS, key) for key in self.server.storage.keys(REQUESTS)
        ]

    @contextlib.asynccontextmanager
    async def bridge(self, **connection: Any) -> AsyncIterator[None]:
        signs = Authority(folder=self.ca.node_authority(), account=ACCOUNT, days=7)
        async with Client(self.server.connection(**connection)) as client:
            certifier = self.certifier = Certifier(client, signs, self._known, SystemClock())
            async with asyncio.TaskGroup() as tasks:
                loops = [
                    tasks.create_task(certifier.follow()),
                    tasks.create_task(certifier.run(self._leads)),
                ]
                yield
                for loop in loops:
                    loop.cancel()


@pytest.fixture
def cluster(server: ApiServer, tmp_path: Path) -> Cluster:
    return Cluster(server, trust(tmp_path / "ca"), tmp_path)


@contextlib.asynccontextmanager
async def ipam(ca: Trust) -> AsyncIterator[str]:
    server = grpc.aio.server(interceptors=[rpc.ErrorInterceptor(), Authoriser()])
    repository = Repository(MemoryStore())
    servicer = IpamServicer(repository, Coalescer(repository.claimer))
    ipam_pb2_grpc.add_IpamServicer_to_server(servicer, server)
    port = server.add_secure_port("127.0.0.1:0", tls.server_credentials(ca.issue("ipam")))
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def conditions(request: Object) -> list[str]:
    return [it["type"] for it in request["status"].get("conditions", ())]


async def test_a_node_gets_a_certificate_and_is_believed_to_be_that_node(tmp_path: Path) -> None:
    """By the command, and over TLS, as a pod of the agent does."""
    own, account = authority(tmp_path, ips=("127.0.0.1",)), tmp_path / "account"
    account.mkdir()
    for name, text in (("ca.crt", own.authorities), ("token", "token-n1"), ("namespace", "dp")):
        (account / name).write_text(text)
    with ApiServer(tls=own.files) as api:
        cluster = Cluster(api, trust(tmp_path / "ca"), tmp_path)
        cluster.node("n1")
        folder = tmp_path / "etc/tls"
        arguments = [
            *(
                "certs",
                "request",
                "--node",
                "n1",
                "--out",
                str(folder),
                "-o",
                "json",
                "--timeout",
                "20",
            ),
            *("--ca", str(cluster.ca.folder / tls.CA), "--account", str(account)),
            *("--api-server", f"127.0.0.1:1,{api.url.removeprefix('https://')}"),
        ]
        async with cluster.bridge(authorities=own.authorities):
            for line in ("asking for a certificate: there is no tls.crt", ""):
                done = await asyncio.to_thread(CliRunner().invoke, app, arguments)
                assert done.exit_code == 0, done.output
                assert line in done.stderr
                assert "node/n1" in done.stdout
    [request] = cluster.requests()
    assert conditions(request) == ["Approved"]
    assert "PRIVATE" not in json.dumps(request)
    assert sorted(it.name for it in folder.iterdir()) == ["ca.crt", "tls.crt", "tls.key"]
    async with ipam(cluster.ca) as target, rpc.channel(target, Tls(folder, Role.IPAM)) as channel:
        stub: ipam_pb2_grpc.IpamAsyncStub = ipam_pb2_grpc.IpamStub(channel)
        assert not (await ok(stub.ListBlocks(ipam_pb2.ListBlocksRequest(node="n1")))).blocks
        error = await failure(stub.ListBlocks(ipam_pb2.ListBlocksRequest(node="n2")))
        assert isinstance(error, Forbidden)
        assert "node n1 asks about n2" in str(error)
        assert isinstance(await failure(stub.CreatePool(ipam_pb2.CreatePoolRequest())), Forbidden)


async def test_it_is_renewed_in_time_with_another_key(cluster: Cluster) -> None:
    cluster.node("n1")
    async with cluster.bridge():
        renewal = await cluster.ask("n1")
        before = tls.read(renewal.folder)
        made = issuing.describe(before.certificate)
        third = (made.ends - made.starts) / 3
        assert renewal.reason(made.ends - third - timedelta(seconds=1)) == ""
        assert renewal.reason(made.ends - third) == "it ends soon"
        await cluster.ask("n1")
    after = tls.read(renewal.folder)
    assert after is not before
    assert after.key != before.key
    assert len(cluster.requests()) == 2


async def test_who_acts_for_another_node_is_denied_and_told_why(cluster: Cluster) -> None:
    for name in ("n1", "n2"):
        cluster.node(name)
    async with cluster.bridge():
        with pytest.raises(Forbidden, match=r"denied: names: exactly .*/node/n2 are needed, not"):
            await cluster.ask("n1", token="token-n2")
        [request] = cluster.requests()
        assert conditions(request) == ["Denied"]
        await cluster.ask("n1")
    assert len(cluster.requests()) == 2, "the next one is another request"


async def test_a_request_that_somebody_has_approved_fails_all_the_same(cluster: Cluster) -> None:
    cluster.node("n1")
    asking = cluster.renewal("n2").asking()
    wanted = {"signerName": SIGNER, "usages": list(USAGES)}
    request = {"request": base64.b64encode(asking.request).decode()}
    approved = {"type": "Approved", "status": "True", "lastUpdateTime": "2026-01-01T01:02:03Z"}
    cluster.server.create(
        REQUESTS,
        asking.name,
        spec=wanted | request | cluster.server.storage.users["token-n1"],
        status={"conditions": [approved]},
    )
    async with cluster.bridge():
        with pytest.raises(Forbidden, match="failed: names: exactly"):
            await cluster.ask("n2")
    [request] = cluster.requests()
    assert conditions(request) == ["Approved", "Failed"]


async def test_it_waits_and_goes_on_with_the_same_request(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until a bridge runs, knows the nodes, and leads; until its second write succeeds."""
    monkeypatch.setattr(certifying, "WAIT_SECONDS", 0.01)
    cluster.node("n1")
    nodes, cluster.nodes = cluster.nodes, None

    await cluster.is_left_waiting("n1")
    with pytest.raises(Unavailable, match="no certificate within 0 s"):
        await cluster.ask("n1", seconds=0)
    async with cluster.bridge():
        await cluster.is_left_alone()
        cluster.nodes, cluster.is_leader = nodes, False
        await cluster.is_left_alone()
        cluster.server.refuse("patch", None, Refusal(500, "InternalError"))
        cluster.is_leader = True
        await cluster.ask("n1")
    [request] = cluster.requests()
    assert conditions(request) == ["Approved"]
    patched = cluster.server.verbs
    assert patched["patch", f"{REQUESTS}/approval"] == 1
    assert patched["patch", f"{REQUESTS}/status"] == 2


async def test_a_server_that_is_away_gives_way_to_the_next(cluster: Cluster) -> None:
    cluster.node("n1")
    renewal = cluster.renewal("n1")
    away = cluster.server.connection(token="token-n1")
    dead = type(away)(server="http://127.0.0.1:1")
    cluster.server.refuse("create", Refusal(500, "InternalError", "etcd is away"))
    async with cluster.bridge():
        await requesting.obtain(
            renewal, [dead, away], seconds=SECONDS, say=cluster.said.append, pauses=PAUSES
        )
    assert any("ConnectError" in text for text in cluster.said)
    assert any("etcd is away" in text for text in cluster.said)


async def test_other_signers_are_not_even_asked_for(cluster: Cluster) -> None:
    cluster.server.create(
        REQUESTS, "other", spec={"signerName": "example.com/x", "request": "eA=="}
    )
    cluster.node("n1")
    async with cluster.bridge():
        await cluster.ask("n1")
    assert conditions_of(cluster, "other") == []
    for call in cluster.server.asked("watch", REQUESTS):
        assert call["fieldSelector"] == f"spec.signerName={SIGNER}"


def conditions_of(cluster: Cluster, name: str) -> list[Any]:
    return list(cluster.server.get(REQUESTS, name).get("status", {}).get("conditions", ()))


async def test_what_came_is_of_another_ca(cluster: Cluster, tmp_path: Path) -> None:
    cluster.node("n1")
    renewal = cluster.renewal("n1")
    other = (trust(tmp_path / "other").folder / tls.CA).read_bytes()
    stranger = Renewal(renewal.folder, renewal.peer, other)
    connection = cluster.server.connection(token="token-n1")
    async with cluster.bridge():
        with pytest.raises(Refused, match="local issuer"):
            await requesting.obtain(
                stranger, [connection], seconds=SECONDS, say=print, pauses=PAUSES
            )
    assert not list(renewal.folder.glob("tls.*"))


async def test_a_ca_that_is_put_right_is_used(cluster: Cluster) -> None:
    cluster.node("n1")
    folder = cluster.ca.node_authority()
    good = (folder / tls.KEY).read_bytes()
    (folder / tls.KEY).write_bytes(
        issuing.issue(
            files.read_authority(cluster.ca.folder),
            issuing.Wanted(peer=Peer(Role.IPAM)),
            now=issuing.now(),
        ).key
    )
    async with cluster.bridge():
        failures = metrics.CERTIFICATES.labels("error")._value
        before = failures.get()
        await cluster.is_left_waiting("n1")
        async with asyncio.timeout(SECONDS):
            while failures.get() == before:  # noqa: ASYNC110 - a counter
                await asyncio.sleep(0.01)
        [request] = cluster.requests()
        assert conditions(request) == [], "it is approved when it can be signed"
        (folder / tls.KEY).write_bytes(good)
        await cluster.ask("n1")

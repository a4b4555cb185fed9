"""Who asks for a node's certificate is what a real server says of tokens that it has made."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest

from deltaplane.certs import issuing
from deltaplane.certs.renewal import Renewal
from deltaplane.cli import requesting
from deltaplane.errors import Forbidden, Refused
from deltaplane.runtime import tls
from deltaplane.runtime.clock import SystemClock
from deltaplane.runtime.roles import Peer, Role
from services.kubernetes.api.backoff import Pauses
from services.kubernetes.api.certificates import APPROVED, CertificateRequest, concluded
from services.kubernetes.api.client import Client, PatchType
from services.kubernetes.api.kubeconfig import Connection
from services.kubernetes.api.resource import CERTIFICATE_REQUESTS, NODES
from services.kubernetes.certifying import Authority, Certifier
from tests.kubernetes import account
from tests.kubernetes.bare import SECONDS, Api, Object
from tests.trust import Trust, trust

PAUSES = Pauses(first=0.05, longest=0.2)
REQUESTS = CERTIFICATE_REQUESTS.collection()


@dataclass
class Cluster:
    """A cluster with nodes of a test's own, and agents' pods on them."""

    api: Api
    server: Connection
    ca: Trust
    bridge: str
    folder: Path
    nodes: dict[str, str] = field(default_factory=dict)

    def node(self, number: int) -> str:
        return f"{self.api.namespace}-n{number}"

    def as_token(self, token: str) -> Connection:
        return replace(self.server, token=token, certificate=None, token_file=None)

    async def add(self, number: int) -> None:
        name = self.node(number)
        made = await self.api.ok("POST", NODES.collection(), json={"metadata": {"name": name}})
        self.nodes[name] = made["metadata"]["uid"]
        pod: Object = {
            "metadata": {"name": name},
            "spec": {
                "nodeName": name,
                "serviceAccountName": account.agent(self.api.namespace),
                "automountServiceAccountToken": False,
                "containers": [{"name": "main", "image": "x"}],
            },
        }
        await self.api.ok("POST", f"/api/v1/namespaces/{self.api.namespace}/pods", json=pod)

    async def token(self, number: int) -> str:
        """Of the agent on a node; 0: of its account, and of no pod."""
        name = account.agent(self.api.namespace)
        path = f"/api/v1/namespaces/{self.api.namespace}/serviceaccounts/{name}/token"
        pod = {"kind": "Pod", "apiVersion": "v1", "name": self.node(number)}
        spec: Object = {"expirationSeconds": 3600} | ({"boundObjectRef": pod} if number else {})
        return (await self.api.ok("POST", path, json={"spec": spec}))["status"]["token"]  # type: ignore[no-any-return]

    def renewal(self, number: int) -> Renewal:
        folder = self.folder / str(number)
        folder.mkdir(exist_ok=True)
        peer = Peer(Role.NODE, self.node(number))
        return Renewal(folder, peer, (self.ca.folder / tls.CA).read_bytes())

    async def ask(self, number: int, token: str) -> Renewal:
        renewal = self.renewal(number)
        servers = [self.as_token(token)]
        await requesting.obtain(renewal, servers, seconds=SECONDS, say=print, pauses=PAUSES)
        return renewal

    @contextlib.asynccontextmanager
    async def certifying(self) -> AsyncIterator[None]:
        user = f"system:serviceaccount:{self.api.namespace}:{account.agent(self.api.namespace)}"
        authority = Authority(folder=self.ca.node_authority(), account=user, days=7)
        async with Client(self.as_token(self.bridge)) as client:
            certifier = Certifier(client, authority, lambda: self.nodes, SystemClock())
            async with asyncio.TaskGroup() as tasks:
                loops = [
                    tasks.create_task(certifier.follow()),
                    tasks.create_task(certifier.run(lambda: True)),
                ]
                yield
                for loop in loops:
                    loop.cancel()

    async def remove(self) -> None:
        pods = f"/api/v1/namespaces/{self.api.namespace}/pods"
        # There is no kubelet to say that they have ended.
        await self.api.http.delete(pods, params={"gracePeriodSeconds": "0"})
        for name in (self.node(1), self.node(2)):
            await self.api.http.delete(f"{NODES.collection()}/{name}")
        for item in (await self.api.ok("GET", REQUESTS))["items"]:
            if self.api.namespace in item["metadata"]["name"]:
                await self.api.http.delete(f"{REQUESTS}/{item['metadata']['name']}")
        await account.remove(self.api)


@pytest.fixture
async def cluster(api: Api, connection: Connection, tmp_path: Path) -> AsyncIterator[Cluster]:
    token = await account.install(api)
    accounts = f"/api/v1/namespaces/{api.namespace}/serviceaccounts"
    await api.ok("POST", accounts, json={"metadata": {"name": account.agent(api.namespace)}})
    found = Cluster(api, connection, trust(tmp_path / "ca"), token, tmp_path)
    try:
        for number in (1, 2):
            await found.add(number)
        yield found
    finally:
        await found.remove()


async def test_a_node_gets_its_own_certificate_and_no_other(cluster: Cluster) -> None:
    token = await cluster.token(1)
    async with cluster.certifying():
        renewal = await cluster.ask(1, token)
        assert renewal.reason(issuing.now()) == ""
        with pytest.raises(Forbidden, match=f"denied: names: exactly .*{cluster.node(1)} are need"):
            await cluster.ask(2, token)
        with pytest.raises(Forbidden, match="denied: the token says 0 nodes"):
            await cluster.ask(2, await cluster.token(0))
        # Another one has been made with the same name: the token is still of the first.
        del cluster.nodes[cluster.node(1)]
        with pytest.raises(Forbidden, match="denied: there is no node"):
            await cluster.ask(1, token)
        cluster.nodes[cluster.node(1)] = "another"
        with pytest.raises(Forbidden, match="denied: the token is of an earlier node"):
            await cluster.ask(1, token)


async def test_an_approval_of_somebody_else_does_not_help(cluster: Cluster) -> None:
    asking = cluster.renewal(2).asking()
    spec: Object = {
        "signerName": "deltaplane.dev/node",
        "usages": ["digital signature", "server auth", "client auth"],
        "request": base64.b64encode(asking.request).decode(),
    }
    made = await cluster.api.ok(
        "POST", REQUESTS, json={"metadata": {"name": asking.name}, "spec": spec}
    )
    condition = {"type": "Approved", "status": "True", "reason": "Person", "message": "trust me"}
    made["status"] = {"conditions": [condition]}
    await cluster.api.ok("PUT", f"{REQUESTS}/{asking.name}/approval", json=made)
    async with cluster.certifying():
        with pytest.raises(Forbidden, match=r"failed: .* asks, and only .* may"):
            await cluster.ask(2, await cluster.token(2))
    found = await cluster.api.ok("GET", f"{REQUESTS}/{asking.name}")
    assert [it["reason"] for it in found["status"]["conditions"]] == ["Person", "DeltaplaneNode"]
    assert "certificate" not in found["status"]


async def test_the_bridge_can_approve_nothing_of_other_signers(cluster: Cluster) -> None:
    asking = cluster.renewal(1).asking()
    spec: Object = {
        "signerName": "example.com/other",
        "usages": ["client auth"],
        "request": base64.b64encode(asking.request).decode(),
    }
    body = {"metadata": {"name": asking.name}, "spec": spec}
    made = await cluster.api.ok("POST", REQUESTS, json=body)
    item = msgspec.convert(made, CertificateRequest)
    async with Client(cluster.as_token(cluster.bridge)) as bridge:
        with pytest.raises(Refused, match=r"example\.com/other"):
            await bridge.patch_status(
                CERTIFICATE_REQUESTS,
                asking.name,
                concluded(item, APPROVED, "x"),
                how=PatchType.MERGE,
                subresource="approval",
            )

"""Who the bridge and agents are in a cluster: service accounts with the roles of deploy/.

The manifests are read as they are shipped; only the names are the test's, since the cluster may
have Deltaplane already.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from services.kubernetes.api.kubeconfig import Connection
from tests.kubernetes.bare import SECONDS, Api, Object

SHIPPED = Path(__file__).parents[2] / "deploy/kubernetes/base/rbac.yaml"
NAME, NAMESPACE = "deltaplane-bridge", "deltaplane-system"
SIGNING, AGENT = "deltaplane-bridge-signing", "deltaplane-agent"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
PATHS = {
    "ClusterRole": RBAC + "/clusterroles",
    "ClusterRoleBinding": RBAC + "/clusterrolebindings",
    "Role": RBAC + "/namespaces/{}/roles",
    "RoleBinding": RBAC + "/namespaces/{}/rolebindings",
}


def _renamed(value: Any, names: dict[str, str]) -> Any:
    match value:
        case dict():
            return {key: _renamed(part, names) for key, part in value.items()}
        case list():
            return [_renamed(part, names) for part in value]
        case str():
            return names.get(value, value)
        case _:
            return value


def agent(namespace: str) -> str:
    """The account of agents."""
    return f"{namespace}-agent"


def _names(namespace: str) -> dict[str, str]:
    # A cluster role is everybody's to see: the test's namespace is a name that nobody else has.
    return {
        NAME: namespace,
        NAMESPACE: namespace,
        SIGNING: f"{namespace}-signing",
        AGENT: agent(namespace),
    }


def _objects(namespace: str) -> Iterator[tuple[str, Object]]:
    """Where each goes, and what it is."""
    names = _names(namespace)
    for item in yaml.safe_load_all(SHIPPED.read_text()):
        yield PATHS[item["kind"]].format(namespace), _renamed(item, names)


def anonymous(connection: Connection) -> Connection:
    """To the same server without our own certificate, which would count more than a token."""
    return Connection(
        server=connection.server,
        authorities=connection.authorities,
        server_name=connection.server_name,
    )


async def token_of(api: Api, name: str) -> str:
    """Makes a service account in the test's namespace; returns a token of it."""
    accounts = f"/api/v1/namespaces/{api.namespace}/serviceaccounts"
    await api.ok("POST", accounts, json={"metadata": {"name": name}})
    asked: Object = {"spec": {"audiences": [], "expirationSeconds": 3600}}
    answer = await api.ok("POST", f"{accounts}/{name}/token", json=asked)
    return answer["status"]["token"]  # type: ignore[no-any-return]


async def install(api: Api) -> str:
    """Makes the account with its roles; returns a token of it that is known to count."""
    token = await token_of(api, api.namespace)
    for path, item in _objects(api.namespace):
        await api.ok("POST", path, json=item)
    # Of the cluster role, and of the role: the server learns of them a moment later.
    async with asyncio.timeout(SECONDS):
        for group, plural, verb in (("", "pods", "list"), ("coordination.k8s.io", "leases", "get")):
            while not await _may(api, group, plural, verb):  # noqa: ASYNC110 - of the server
                await asyncio.sleep(0.05)
    return token


async def _may(api: Api, group: str, plural: str, verb: str) -> bool:
    attributes = {"namespace": api.namespace, "group": group, "resource": plural, "verb": verb}
    user = f"system:serviceaccount:{api.namespace}:{api.namespace}"
    body: Object = {"spec": {"user": user, "resourceAttributes": attributes}}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return (await api.ok("POST", path, json=body))["status"]["allowed"]  # type: ignore[no-any-return]


async def remove(api: Api) -> None:
    """What is left of it when the namespace is gone."""
    for kind in ("ClusterRoleBinding", "ClusterRole"):
        for name in set(_names(api.namespace).values()):
            await api.http.delete(f"{PATHS[kind]}/{name}")

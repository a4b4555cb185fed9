"""What kustomize and the chart make is what the server would take, field by field."""

import json
from collections.abc import AsyncIterator

import pytest

from tests.deploy.manifests import OVERLAYS, charted, kustomized
from tests.deploy.manifests import Object as Manifest
from tests.kubernetes.bare import Api

NAMESPACE = "deltaplane-system"
APPLY = {"Content-Type": "application/apply-patch+yaml"}
TRIED = {
    "dryRun": "All",
    "fieldManager": "deltaplane-test",
    "fieldValidation": "Strict",
    # Whoever has installed Deltaplane is its manager.
    "force": "true",
}


@pytest.fixture
async def installable(api: Api) -> AsyncIterator[Api]:
    """A trial in a namespace needs it; nothing is made in it."""
    path = f"/api/v1/namespaces/{NAMESPACE}"
    is_there = (await api.http.get(path)).is_success
    if not is_there:
        await api.ok("POST", "/api/v1/namespaces", json={"metadata": {"name": NAMESPACE}})
    yield api
    if not is_there:
        await api.http.delete(path)
        body = {"metadata": {"name": NAMESPACE}, "spec": {"finalizers": []}}
        await api.http.put(f"{path}/finalize", json=body)


async def plural(api: Api, item: Manifest) -> tuple[str, bool]:
    """How paths name its kind, and whether it lives in namespaces; "": nobody serves it."""
    version = item["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    answer = await api.http.get(root)
    if answer.status_code == 404:
        return "", False
    found = {
        it["kind"]: (f"{root}@/{it['name']}", it["namespaced"])
        for it in answer.json()["resources"]
        if "/" not in it["name"]
    }
    return found[item["kind"]]


async def refusals(api: Api, objects: tuple[Manifest, ...]) -> dict[str, str]:
    """What the server says about those that it would not take."""
    found = {}
    for item in objects:
        path, namespaced = await plural(api, item)
        name = f"{item['kind']} {item['metadata']['name']}"
        if not path:
            assert "cert-manager.io" in item["apiVersion"], name
            continue
        where = f"/namespaces/{item['metadata']['namespace']}" if namespaced else ""
        path = f"{path.replace('@', where)}/{item['metadata']['name']}"
        body = json.dumps(item)
        answer = await api.http.patch(path, params=TRIED, content=body, headers=APPLY)
        if not answer.is_success or answer.headers.get("warning"):
            found[name] = answer.json().get("message", "") or answer.headers["warning"]
    return found


@pytest.mark.parametrize("folder", OVERLAYS)
async def test_the_server_would_take_every_object(installable: Api, folder: str) -> None:
    assert await refusals(installable, kustomized(folder)) == {}
    assert await refusals(installable, charted(*OVERLAYS[folder])) == {}

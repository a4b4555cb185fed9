"""Definitions of the custom kinds that the bridge watches, where a server has none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.kubernetes.api.resource import Resource
from services.kubernetes.kinds import Kind
from tests.kubernetes import cleaning
from tests.kubernetes.bare import SECONDS, Api, Object

PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CUSTOM = tuple(kind.resource for kind in Kind if kind.resource.custom)


def definition(resource: Resource) -> Object:
    """Of a kind without a schema to speak of."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": resource.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": anything},
    }
    # Groups of Kubernetes itself are kept for what it has approved.
    approval = {"api-approved.kubernetes.io": "unapproved, for a test"}
    return {
        "metadata": {"name": str(resource), "annotations": approval},
        "spec": {
            "group": resource.group,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "names": {
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
            },
            "versions": [version],
        },
    }


@asynccontextmanager
async def defined(api: Api) -> AsyncIterator[None]:
    """All custom kinds are served; those that were not are taken away again."""
    missing = [
        resource for resource in CUSTOM if not (await api.http.get(_probe(resource))).is_success
    ]
    try:
        for resource in missing:
            body = definition(resource) | {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
            }
            await api.ok("POST", PATH, json=body)
        async with asyncio.timeout(SECONDS):
            for resource in missing:
                while not (await api.http.get(_probe(resource))).is_success:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        yield
    finally:
        for resource in missing:
            await api.http.delete(f"{PATH}/{resource}")
        for resource in missing:
            await cleaning.gone(api.http, f"{PATH}/{resource}")


def _probe(resource: Resource) -> str:
    return f"{resource.collection()}?limit=1"

"""Takes away what tests have made in a server, whether or not controllers help."""

import asyncio
import contextlib

import httpx2

from tests.kubernetes.bare import LEASES, POLICIES

GONE_SECONDS = 60
"""For controllers to end a namespace."""
FORCED = {"gracePeriodSeconds": "0"}

MADE = (
    "/api/v1/namespaces/{}/pods",
    "/api/v1/namespaces/{}/services",
    "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
    POLICIES + "/namespaces/{}/networkpolicies",
    LEASES + "/namespaces/{}/leases",
    "/apis/events.k8s.io/v1/namespaces/{}/events",
    "/apis/cilium.io/v2/namespaces/{}/ciliumnetworkpolicies",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "/api/v1/namespaces/{}/serviceaccounts",
)
"""What tests make in a namespace."""


async def namespace(http: httpx2.AsyncClient, name: str) -> str:
    """Removes a namespace of a test and all that tests make in it.

    Returns:
        Its path, if controllers end it meanwhile; else "".
    """
    path = f"/api/v1/namespaces/{name}"
    # A controller writes this into each namespace, and such controllers end namespaces, too.
    mark = await http.get(f"{path}/configmaps/kube-root-ca.crt")
    if not mark.is_success:
        for kind in MADE:
            await http.delete(kind.format(name), params=FORCED)
    answer = await http.delete(path)
    if not mark.is_success and answer.is_success and (await http.get(path)).is_success:
        body = {"metadata": {"name": name}, "spec": {"finalizers": []}}
        await http.put(f"{path}/finalize", json=body)
    return path if mark.is_success else ""


async def gone(http: httpx2.AsyncClient, path: str) -> None:
    """Waits until there is nothing at a path."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GONE_SECONDS):
            while (await http.get(path)).status_code != 404:  # noqa: ASYNC110 - of the server's doing
                await asyncio.sleep(0.1)
            return
    raise AssertionError(f"{path} is still there")

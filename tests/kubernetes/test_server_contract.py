"""What the client relies on, said by the fake and, with `make test-kubernetes`, by a real server.

Everything happens to leases in a namespace made for the test, and to one node that no machine has.
"""

import json

import pytest

from services.kubernetes.api.types import INITIAL_EVENTS_END
from tests.kubernetes.bare import LEASES, STREAMING, Api, Object

EVENTS = "/apis/events.k8s.io/v1"


def version(value: Object) -> str:
    return value["metadata"]["resourceVersion"]  # type: ignore[no-any-return]


async def test_a_list_says_where_a_watch_may_start(api: Api) -> None:
    listed = await api.ok("GET", api.leases)
    assert not listed["items"]
    first = await api.lease("a")
    second = await api.change(first, 20)
    deleted = await api.lease("b")
    await api.ok("DELETE", f"{api.leases}/b")
    async with api.watch(resourceVersion=version(listed)) as events:
        found = [await anext(events) for _ in range(4)]
    assert [it["type"] for it in found] == ["ADDED", "MODIFIED", "ADDED", "DELETED"]
    assert [version(it["object"]) for it in found[:3]] == [
        version(it) for it in (first, second, deleted)
    ]
    last = found[3]["object"]
    assert last["spec"] == deleted["spec"]
    assert last["metadata"]["uid"] == deleted["metadata"]["uid"]
    assert version(last) != version(deleted), "at the revision of its deletion"


async def test_a_watch_resumes_after_any_version_it_showed(api: Api) -> None:
    start = version(await api.ok("GET", api.leases))
    await api.lease("a")
    await api.lease("b")
    async with api.watch(resourceVersion=start) as events:
        seen = await anext(events)
    async with api.watch(resourceVersion=version(seen["object"])) as events:
        assert (await anext(events))["object"]["metadata"]["name"] == "b"


async def test_a_watch_from_long_ago_is_told_so_in_a_line(api: Api) -> None:
    async with api.watch(resourceVersion="1", timeoutSeconds="3") as events:
        last = await anext(events, None)
    if last is None:
        pytest.skip("the server's store is so new that it has all of its history")
    assert last["type"] == "ERROR"
    assert (last["object"]["code"], last["object"]["reason"]) == (410, "Expired")


async def test_a_watch_that_ends_says_before_how_far_it_has_come(api: Api) -> None:
    start = version(await api.ok("GET", api.leases))
    path = f"{LEASES}/namespaces/default/leases"
    params = {"resourceVersion": start, "allowWatchBookmarks": "true", "timeoutSeconds": "3"}
    try:
        async with api.watch(**params) as events:
            # In another namespace: no event of ours, but the bookmark is past it.
            other = await api.ok("POST", path, json={"metadata": {"name": api.namespace}})
            mark = await anext(events)
        assert mark["type"] == "BOOKMARK"
        assert int(version(mark["object"])) >= int(version(other))
    finally:
        await api.http.delete(f"{path}/{api.namespace}")


async def test_chunks_are_of_one_revision(api: Api) -> None:
    for name in ("a", "c", "e"):
        await api.lease(name)
    first = await api.ok("GET", api.leases, params={"limit": "2"})
    await api.lease("d")
    params = {"limit": "2", "continue": first["metadata"]["continue"]}
    second = await api.ok("GET", api.leases, params=params)
    names = [it["metadata"]["name"] for it in first["items"] + second["items"]]
    assert names == ["a", "c", "e"]
    assert version(first) == version(second)
    assert not second["metadata"].get("continue")


async def test_a_continue_token_from_nowhere_is_refused(api: Api) -> None:
    answer = await api.status("GET", api.leases, params={"limit": "2", "continue": "nonsense"})
    assert answer == (400, "BadRequest")


async def test_a_watch_without_a_version_begins_with_what_there_is(api: Api) -> None:
    await api.lease("a")
    async with api.watch() as events:
        assert (await anext(events))["type"] == "ADDED"
        await api.lease("b")
        assert (await anext(events))["object"]["metadata"]["name"] == "b"


async def test_a_streaming_list_ends_with_a_bookmark(api: Api) -> None:
    for name in ("a", "b"):
        await api.lease(name)
    if not await api.has_streaming_lists():
        pytest.skip("the server has no streaming lists")
    async with api.watch(**STREAMING) as events:
        found = [await anext(events) for _ in range(3)]
        assert [it["type"] for it in found] == ["ADDED", "ADDED", "BOOKMARK"]
        mark = found[2]["object"]["metadata"]
        assert mark["annotations"][INITIAL_EVENTS_END] == "true"
        later = await api.lease("c")
        assert version((await anext(events))["object"]) == version(later)
    async with api.watch(resourceVersion=mark["resourceVersion"]) as events:
        assert version((await anext(events))["object"]) == version(later)


@pytest.mark.parametrize(
    "params",
    [{"sendInitialEvents": "true"}, {"resourceVersionMatch": "NotOlderThan"}],
)
async def test_half_of_a_streaming_list_is_refused(api: Api, params: dict[str, str]) -> None:
    assert await api.status("GET", api.leases, params={"watch": "true"} | params) == (
        422,
        "Invalid",
    )


async def test_a_watch_ends_when_its_time_is_over(api: Api) -> None:
    async with api.watch(timeoutSeconds="1") as events:
        assert [it async for it in events if it["type"] != "BOOKMARK"] == []


async def test_a_version_is_a_condition(api: Api) -> None:
    old = await api.lease("a")
    await api.change(old, 20)
    assert await api.status("PUT", f"{api.leases}/a", json=old) == (409, "Conflict")
    body = {"metadata": {"name": "a"}}
    assert await api.status("POST", api.leases, json=body) == (409, "AlreadyExists")
    assert await api.status("PUT", f"{api.leases}/a", json=body) == (422, "Invalid")


async def test_writing_the_same_again_is_no_change(api: Api) -> None:
    lease = await api.lease("a")
    assert version(await api.change(lease, 10)) == version(lease)


async def test_what_is_missing_is_not_found(api: Api) -> None:
    assert (await api.http.get(f"{api.leases}/a")).status_code == 404
    assert (await api.http.get("/apis/deltaplane.dev/v1/nothings")).status_code == 404
    assert (await api.http.get("/apis/coordination.k8s.io/v1/nothings")).status_code == 404


async def test_a_status_patch_changes_the_status_alone(api: Api) -> None:
    name = f"{api.namespace}.node"
    await api.ok("POST", "/api/v1/nodes", json={"metadata": {"name": name}})
    try:
        kind = {"Content-Type": "application/strategic-merge-patch+json"}
        for condition in ("NetworkUnavailable", "Other"):
            patch = {
                "metadata": {"labels": {"from": "status"}},
                "spec": {"unschedulable": True},
                "status": {"conditions": [{"type": condition, "status": "False"}]},
            }
            path = f"/api/v1/nodes/{name}/status"
            await api.ok("PATCH", path, content=json.dumps(patch), headers=kind)
        node = await api.ok("GET", f"/api/v1/nodes/{name}")
        assert {it["type"] for it in node["status"]["conditions"]} == {
            "NetworkUnavailable",
            "Other",
        }
        assert not node.get("spec", {}).get("unschedulable")
    finally:
        await api.http.delete(f"/api/v1/nodes/{name}")


async def test_a_patch_for_another_uid_is_refused(api: Api) -> None:
    await api.lease("a")
    kind = {"Content-Type": "application/merge-patch+json"}
    patch = json.dumps({"metadata": {"uid": "another"}})
    answer = await api.status("PATCH", f"{api.leases}/a", content=patch, headers=kind)
    assert answer == (422, "Invalid")


async def test_nothing_is_made_in_a_namespace_that_does_not_exist(api: Api) -> None:
    path = f"{LEASES}/namespaces/{api.namespace}-not/leases"
    assert await api.status("POST", path, json={"metadata": {"name": "a"}}) == (404, "NotFound")


async def test_a_namespace_has_its_name_as_a_label(api: Api) -> None:
    made = await api.ok("GET", f"/api/v1/namespaces/{api.namespace}")
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": api.namespace}


async def test_a_service_gets_an_address_and_a_port(api: Api) -> None:
    spec = {"type": "NodePort", "selector": {"app": "a"}, "ports": [{"port": 80}]}
    path = f"/api/v1/namespaces/{api.namespace}/services"
    made = await api.ok("POST", path, json={"metadata": {"name": "a"}, "spec": spec})
    (address,), (port,) = made["spec"]["clusterIPs"], made["spec"]["ports"]
    assert made["spec"]["clusterIP"] == address
    assert len(made["spec"]["ipFamilies"]) == 1
    assert made["spec"]["ipFamilyPolicy"] == "SingleStack"
    assert (port["protocol"], port["targetPort"]) == ("TCP", 80)
    assert 30000 <= port["nodePort"] <= 32767


async def test_an_event_gets_a_name(api: Api) -> None:
    event = {
        "metadata": {"generateName": "a.b-"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "type": "Warning",
        "reason": "PolicyRefused",
        "action": "Program",
        "note": "why",
        "regarding": {"kind": "Lease", "name": "a", "namespace": api.namespace},
        "reportingController": "deltaplane.dev/bridge",
        "reportingInstance": "test",
    }
    path = f"{EVENTS}/namespaces/{api.namespace}/events"
    made = await api.ok("POST", path, json=event)
    assert made["metadata"]["name"].startswith("a.b-")
    # As client-go makes names; nobody may leave them to the server.
    dotted = event | {"metadata": {"generateName": "a."}}
    assert await api.status("POST", path, json=dotted) == (422, "Invalid")
    assert await api.status("POST", path, json=event | {"eventTime": None}) == (422, "Invalid")

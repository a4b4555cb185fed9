import asyncio
from pathlib import Path

from deltaplane.model.identity import Reserved
from deltaplane.store import keys
from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import Delete, Put, Store
from deltaplane.v1 import common_pb2
from deltaplane.v1 import registry_pb2 as pb
from services.endpoints.identity import LabelFilter
from services.endpoints.wire.records import encode
from tests.services.plane import Plane, endpoint, ok, plane, pod


async def stored_labels(plane: Plane) -> list[dict[str, str]]:
    """Labels of the identity of each endpoint, in the order of their keys."""
    identities = await plane.identities()
    return [dict(identities[item.identity].labels) for item in await plane.endpoints()]


async def test_new_labels_make_a_new_identity_in_the_same_incarnation(any_plane: Plane) -> None:
    await any_plane.ready_node()
    await any_plane.apply_pods(pod("web"))
    before = await any_plane.register(endpoint(1))

    revision = await any_plane.apply_pods(pod("web", {"app": "web", "version": "2"}))

    (after,) = await any_plane.endpoints()
    assert await stored_labels(any_plane) == [{"app": "web", "version": "2"}]
    assert after.identity != before.identity
    assert after.meta.create_revision == before.meta.create_revision
    assert before.meta.mod_revision < after.meta.mod_revision <= revision


async def test_a_named_port_is_part_of_the_identity(any_plane: Plane) -> None:
    await any_plane.ready_node()
    http = common_pb2.NamedPort(name="http", protocol=common_pb2.PROTOCOL_TCP, number=80)
    record = pod("web")
    record.named_ports.append(http)
    await any_plane.apply_pods(record)
    first = await any_plane.register(endpoint(1))
    record.named_ports[0].number = 8080
    await any_plane.apply_pods(record)
    (second,) = await any_plane.endpoints()
    identities = await any_plane.identities()
    assert list(identities[first.identity].named_ports) == [http]
    assert identities[second.identity].named_ports[0].number == 8080


async def test_namespace_labels_reach_every_endpoint_of_the_namespace(any_plane: Plane) -> None:
    await any_plane.ready_node()
    names = [f"pod-{number}" for number in range(1, 41)]
    await any_plane.apply_pods(*map(pod, names))
    await asyncio.gather(
        *(any_plane.register(endpoint(n, pod=name)) for n, name in enumerate(names, start=1))
    )
    await any_plane.register(endpoint(41, namespace="other", pod="bystander"))

    revision = await any_plane.apply_namespace({"team": "red"})

    identities = await any_plane.identities()
    for item in await any_plane.endpoints():
        if item.namespace == "shop":
            assert identities[item.identity].namespace_labels["team"] == "red"
            assert item.meta.mod_revision <= revision
        else:
            assert item.identity == Reserved.INIT
    assert len(identities) == 80


async def test_applying_the_same_again_writes_nothing(any_plane: Plane) -> None:
    await any_plane.ready_node()
    await any_plane.apply_namespace({"team": "red"})
    await any_plane.apply_pods(pod("web"))
    await any_plane.register(endpoint(1))
    before = await any_plane.store.head()
    await any_plane.apply_namespace({"team": "red"})
    await any_plane.apply_pods(pod("web"))
    assert await any_plane.store.head() == before


async def test_an_endpoint_never_gets_the_labels_of_its_pod_s_successor(any_plane: Plane) -> None:
    await any_plane.ready_node()
    await any_plane.apply_pods(pod("web", uid="uid-web"))
    before = await any_plane.register(endpoint(1))
    await any_plane.apply_pods(pod("web", {"app": "impostor"}, uid="successor"))
    await any_plane.apply_namespace({"team": "red"})
    assert await any_plane.endpoints() == [before]


async def test_deleting_the_record_leaves_the_endpoint(any_plane: Plane) -> None:
    await any_plane.ready_node()
    await any_plane.apply_pods(pod("web"))
    before = await any_plane.register(endpoint(1))
    request = pb.DeletePodsRequest(pods=[pb.PodRef(namespace="shop", name="web")])
    await ok(any_plane.registry.DeletePods(request))
    await ok(any_plane.registry.DeletePods(request))
    await any_plane.repositories.repairer.repair(thorough=True)
    assert await any_plane.endpoints() == [before]
    assert await any_plane.keys(keys.PODS) == {}


async def test_16_registrars_of_one_label_set_get_one_identity(any_plane: Plane) -> None:
    await any_plane.ready_node()
    names = [f"web-{number}" for number in range(1, 17)]
    await any_plane.apply_pods(*(pod(name, {"app": "web"}) for name in names))
    registered = await asyncio.gather(
        *(any_plane.register(endpoint(n, pod=name)) for n, name in enumerate(names, start=1))
    )
    assert {item.identity for item in registered} == {256}
    assert list(await any_plane.identities()) == [256]


async def test_replicas_agree_on_identities(any_store: Store, sockets: Path) -> None:
    async with plane(any_store, sockets / "a") as one, plane(any_store, sockets / "b") as two:
        await one.ready_node()
        two.nodes.update(one.nodes)
        names = [f"pod-{number}" for number in range(1, 33)]
        # 8 label sets, each of them wanted on both replicas at once.
        await one.apply_pods(*(pod(name, {"app": str(n % 8)}) for n, name in enumerate(names)))
        registered = await asyncio.gather(
            *(
                (one, two)[n // 8 % 2].register(endpoint(n + 1, pod=name))
                for n, name in enumerate(names)
            )
        )
        identities = await one.identities()
        assert sorted(identities) == list(range(256, 264))
        for n, item in enumerate(registered):
            assert identities[item.identity].labels["app"] == str(n % 8)


async def test_labels_change_while_endpoints_register(any_store: Store, sockets: Path) -> None:
    async with plane(any_store, sockets / "a") as one, plane(any_store, sockets / "b") as two:
        await one.ready_node()
        two.nodes.update(one.nodes)
        names = [f"pod-{number}" for number in range(1, 25)]

        async def relabel() -> None:
            for version in range(4):
                await two.apply_pods(*(pod(name, {"version": str(version)}) for name in names))

        await asyncio.gather(
            relabel(),
            *(one.register(endpoint(n, pod=name)) for n, name in enumerate(names, start=1)),
        )
        assert await stored_labels(one) == [{"version": "3"}] * len(names)


async def test_the_filter_is_configurable(sockets: Path) -> None:
    async with plane(MemoryStore(), sockets / "s", LabelFilter(("ci/*",))) as served:
        await served.ready_node()
        labels = {"app": "web", "ci/build": "7", "pod-template-hash": "kept-without-the-defaults"}
        await served.apply_pods(pod("web", labels))
        await served.register(endpoint(1))
        del labels["ci/build"]
        assert await stored_labels(served) == [labels]


async def test_a_new_filter_takes_effect_at_start(sockets: Path) -> None:
    store = MemoryStore()
    async with plane(store, sockets / "old") as served:
        await served.ready_node()
        await served.apply_namespace({})
        await served.apply_pods(pod("web", {"app": "web", "build": "7"}))
        await served.register(endpoint(1))
    async with plane(store, sockets / "new", LabelFilter(("build",))) as served:
        await served.repositories.repairer.repair(thorough=False)
        assert await stored_labels(served) == [{"app": "web", "build": "7"}]
        await served.repositories.repairer.repair(thorough=True)
        assert await stored_labels(served) == [{"app": "web"}]


async def test_the_repair_finishes_what_a_crash_interrupted(any_plane: Plane) -> None:
    await any_plane.ready_node()
    await any_plane.apply_pods(pod("web"), pod("db"))
    await any_plane.register(endpoint(1))
    kept = await any_plane.register(endpoint(2, pod="db"))
    # A replica that was killed between the pod record and the endpoints leaves exactly this.
    record = pod("web", {"app": "changed"})
    await any_plane.store.transact([], [Put(keys.pod("shop", "web"), encode(record))])

    await any_plane.repositories.repairer.repair(thorough=False)

    assert await stored_labels(any_plane) == [{"app": "db"}, {"app": "changed"}]
    assert (await any_plane.endpoints())[0] == kept
    head = await any_plane.store.head()
    await any_plane.repositories.repairer.repair(thorough=False)
    assert await any_plane.store.head() == head


async def test_a_namespace_that_goes_takes_its_labels_along_at_the_next_apply(
    any_plane: Plane,
) -> None:
    await any_plane.ready_node()
    await any_plane.apply_namespace({"team": "red"})
    await any_plane.apply_pods(pod("web"))
    await any_plane.register(endpoint(1))
    await any_plane.store.transact([], [Delete(keys.namespace("shop"))])
    await any_plane.repositories.repairer.repair(thorough=False)
    (item,) = await any_plane.endpoints()
    labels = (await any_plane.identities())[item.identity].namespace_labels
    assert labels == {"kubernetes.io/metadata.name": "shop"}

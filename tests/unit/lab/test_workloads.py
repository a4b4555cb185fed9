from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.errors import Invalid
from lab.pods import Phase, Pod, Port
from lab.workloads import Change, Workload, plan_apply, plan_delete

NODES = ("node-1", "node-2")


def uids() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"uid-{next(numbers)}"


NEW_UID = uids()


def deployment(name: str, replicas: int, **fields: object) -> Workload:
    known = Workload(kind="Deployment", namespace="shop", name=name, replicas=replicas)
    return replace(known, **fields)  # type: ignore[arg-type]


def lone(name: str, **fields: object) -> Workload:
    known = Workload(kind="Pod", namespace="shop", name=name)
    return replace(known, **fields)  # type: ignore[arg-type]


def carry_out(change: Change, pods: Sequence[Pod]) -> list[Pod]:
    """What the lab does, without the network."""
    gone = {pod.uid for pod in change.remove}
    now = {pod.uid: pod for pod in pods if pod.uid not in gone}
    now |= {pod.uid: pod for pod in change.update}
    now |= {pod.uid: replace(pod, phase=Phase.RUNNING) for pod in change.create}
    return list(now.values())


def apply(workloads: Sequence[Workload], pods: Sequence[Pod] = ()) -> list[Pod]:
    return carry_out(plan_apply(workloads, pods, NODES, NEW_UID), pods)


def names(pods: Sequence[Pod]) -> list[str]:
    return sorted(pod.name for pod in pods)


WORKLOADS = st.lists(
    st.one_of(
        st.builds(
            deployment,
            st.sampled_from(["web", "db", "cart"]),
            st.integers(0, 4),
            labels=st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"), max_size=2),
            ports=st.sampled_from([(), (Port("TCP", 80, "http"),)]),
        ),
        st.builds(
            lone,
            st.sampled_from(["one", "two"]),
            labels=st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"), max_size=2),
        ),
    ),
    unique_by=lambda workload: (workload.kind, workload.name),
    max_size=4,
)


@given(WORKLOADS, WORKLOADS)
def test_applying_reaches_what_is_wanted_and_then_changes_nothing(
    first: list[Workload], second: list[Workload]
) -> None:
    pods = apply(second, apply(first))

    assert plan_apply(second, pods, NODES, NEW_UID).is_empty
    for workload in second:
        mine = [
            pod for pod in pods if pod.name in workload.pod_names and pod.owner == workload.owner
        ]
        assert names(mine) == sorted(workload.pod_names)
        assert all(pod.labels == workload.labels and pod.ports == workload.ports for pod in mine)
    untouched = {(w.kind, w.name) for w in first} - {(w.kind, w.name) for w in second}
    for workload in first:
        if (workload.kind, workload.name) in untouched:
            assert set(workload.pod_names) <= set(names(pods))


@given(WORKLOADS)
def test_deleting_what_was_applied_leaves_nothing(workloads: list[Workload]) -> None:
    pods = apply(workloads)

    assert carry_out(plan_delete(workloads, (), pods), pods) == []


def test_a_label_change_keeps_the_pod_its_node_and_its_uid() -> None:
    pods = apply([deployment("web", 2, labels={"app": "web"})])

    change = plan_apply([deployment("web", 2, labels={"app": "new"})], pods, NODES, NEW_UID)

    assert not change.create
    assert not change.remove
    assert [(p.uid, p.node) for p in change.update] == [(p.uid, p.node) for p in pods]
    assert all(pod.labels == {"app": "new"} for pod in change.update)


def test_scaling_down_removes_the_highest_numbers() -> None:
    pods = apply([deployment("web", 3)])

    change = plan_apply([deployment("web", 1)], pods, NODES, NEW_UID)

    assert names(change.remove) == ["web-2", "web-3"]


def test_a_half_added_pod_is_added_again_under_a_new_uid() -> None:
    half = Pod(namespace="shop", name="one", uid="old", node="node-1", phase=Phase.ADDING)

    change = plan_apply([lone("one")], [half], NODES, NEW_UID)

    assert change.remove == (half,)
    assert [pod.name for pod in change.create] == ["one"]
    assert change.create[0].uid != "old"


def test_a_pod_does_not_move_but_a_deployments_pod_is_replaced() -> None:
    pods = apply([lone("one", node="node-1"), deployment("web", 1, node="node-1")])

    with pytest.raises(Invalid, match=r"shop/one runs on node-1; delete it to move it"):
        plan_apply([lone("one", node="node-2")], pods, NODES, NEW_UID)
    change = plan_apply([deployment("web", 1, node="node-2")], pods, NODES, NEW_UID)
    assert names(change.remove) == ["web-1"]
    assert [pod.node for pod in change.create] == ["node-2"]


def test_two_workloads_that_want_the_same_pod_are_refused() -> None:
    with pytest.raises(Invalid, match=r"Pod web-1 and Deployment web both make the pod shop/web-1"):
        plan_apply([deployment("web", 1), lone("web-1")], (), NODES, NEW_UID)


def test_a_pod_of_another_owner_is_not_taken_over() -> None:
    with pytest.raises(Invalid, match=r"shop/web-1 belongs to Deployment web already"):
        plan_apply([lone("web-1")], apply([deployment("web", 1)]), NODES, NEW_UID)


def test_deleting_a_namespace_removes_its_pods_only() -> None:
    pods = apply([lone("one"), replace(lone("two"), namespace="other")])

    assert [pod.name for pod in plan_delete((), ["other"], pods).remove] == ["two"]


def test_new_pods_of_a_deployment_take_the_addresses_that_old_ones_keep() -> None:
    blue = {"deltaplane.dev/ipv4-pool": "blue"}
    (old,) = apply([deployment("web", 1)])
    (same,) = apply([deployment("web", 1, annotations={"deltaplane.dev/other": "x"})], [old])
    assert same.uid == old.uid
    (new,) = apply([deployment("web", 1, annotations=blue)], [old])
    assert (new.uid != old.uid, new.annotations) == (True, blue)
    (again,) = apply([deployment("web", 1, annotations=blue)], [new])
    assert again.uid == new.uid


def test_a_lone_pod_keeps_its_addresses_whatever_its_annotations_say() -> None:
    (old,) = apply([lone("web")])
    (now,) = apply([lone("web", annotations={"deltaplane.dev/ipv4-pool": "blue"})], [old])
    assert now.uid == old.uid


def stateful(replicas: int, first: int = 0) -> Workload:
    return Workload(
        kind="StatefulSet",
        namespace="shop",
        name="db",
        replicas=replicas,
        first=first,
        subdomain="peers",
        hostname="ignored",
    )


def test_pods_of_a_stateful_set_keep_their_names_and_know_them() -> None:
    pods = apply([stateful(3)])

    assert names(pods) == ["db-0", "db-1", "db-2"]
    assert {(pod.name, pod.hostname, pod.subdomain) for pod in pods} == {
        (name, name, "peers") for name in names(pods)
    }
    assert names(apply([stateful(2, first=1)], pods)) == ["db-1", "db-2"]


def test_a_deployment_is_not_the_stateful_set_of_its_name() -> None:
    pods = apply([stateful(1)])

    assert names(apply([deployment("db", 1)], pods)) == ["db-0", "db-1"]
    assert plan_delete([deployment("db", 1)], (), pods).is_empty
    with pytest.raises(Invalid, match=r"shop/db-0 belongs to StatefulSet db already"):
        plan_apply([lone("db-0")], pods, NODES, NEW_UID)


def test_a_pod_that_is_ending_is_not_kept() -> None:
    pods = [replace(pod, phase=Phase.TERMINATING) for pod in apply([lone("one")])]

    change = plan_apply([lone("one")], pods, NODES, NEW_UID)

    assert (names(change.remove), names(change.create)) == (["one"], ["one"])

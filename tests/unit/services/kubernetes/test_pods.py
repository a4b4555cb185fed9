"""Pods of an API server, and the same pods read from a file by `deltaplane.manifest`."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane import manifest
from deltaplane.model.ports import NamedPort, Protocol
from deltaplane.model.records import PodRecord, own
from services.kubernetes.kinds import Kind, Pod
from services.kubernetes.pods import GATE, MIRROR, STATIC_UID, is_gated, translate_pod
from services.kubernetes.translating import NOTHING, Mode
from tests.unit.services.kubernetes.objects import decoded, pod


def record(value: dict[str, object]) -> PodRecord:
    found = translate_pod(decoded(Kind.POD, value)).record
    assert isinstance(found, PodRecord)
    return found


def test_a_pod() -> None:
    value = pod(
        labels={"app": "web"},
        annotations={"deltaplane.dev/ipv4-pool": "blue", "other.dev/note": "x"},
        spec={"containers": [{"name": "a", "ports": [{"name": "http", "containerPort": 80}]}]},
    )
    assert record(value) == PodRecord(
        namespace="shop",
        name="web",
        uid="uid-web",
        node="node-1",
        labels={"app": "web"},
        annotations={"deltaplane.dev/ipv4-pool": "blue"},
        named_ports=(NamedPort("http", Protocol.TCP, 80),),
    )


@pytest.mark.parametrize(
    "value",
    [
        pod(node=""),
        pod(spec={"hostNetwork": True}),
        pod(status={"phase": "Succeeded"}),
        pod(status={"phase": "Failed"}),
    ],
    ids=["unscheduled", "host network", "succeeded", "failed"],
)
def test_pods_without_an_address_of_ours(value: dict[str, object]) -> None:
    assert translate_pod(decoded(Kind.POD, value)) == NOTHING


def test_a_terminating_pod_still_has_its_record() -> None:
    value = pod()
    value["metadata"]["deletionTimestamp"] = "2026-11-27T02:00:00Z"
    assert record(value).uid == "uid-web"


def test_a_static_pod_has_the_uid_that_its_kubelet_gives_the_cni() -> None:
    value = pod(annotations={MIRROR: "0123", STATIC_UID: "0123"})
    assert record(value).uid == "0123"
    assert record(pod(annotations={STATIC_UID: "0123"})).uid == "uid-web"


def test_a_wrong_annotation_keeps_a_pod_from_starting_not_from_changing() -> None:
    value = pod(annotations={"deltaplane.dev/ip-addresses": "10.0.0.300"})
    found = translate_pod(decoded(Kind.POD, value))
    assert found.mode is Mode.IF_PRESENT
    assert found.problem.startswith(
        'metadata.annotations[deltaplane.dev/ip-addresses]: "10.0.0.300" is not valid'
    )
    assert isinstance(found.record, PodRecord)
    assert found.record.labels == {"app": "web"}
    assert found.record.annotations == {}


def test_which_pods_wait_for_our_condition() -> None:
    assert not is_gated(decoded(Kind.POD, pod()))
    gates = [{"conditionType": "example.com/other"}, {"conditionType": GATE}]
    assert is_gated(decoded(Kind.POD, pod(spec={"readinessGates": gates})))
    assert not is_gated(decoded(Kind.POD, pod(spec={"readinessGates": gates[:1]})))


@pytest.mark.parametrize("field", ["containers", "initContainers", "readinessGates"])
def test_null_is_an_absent_list(field: str) -> None:
    assert record(pod(spec={field: None})).named_ports == ()


PORTS = st.lists(
    st.fixed_dictionaries(
        {"containerPort": st.sampled_from([80, 443, 53])},
        optional={
            "name": st.sampled_from(["http", "dns", "a"]),
            "protocol": st.sampled_from(["TCP", "UDP", "SCTP"]),
        },
    ),
    max_size=3,
    unique_by=lambda port: port.get("name", id(port)),
)
CONTAINERS = st.lists(
    st.fixed_dictionaries({}, optional={"ports": PORTS, "restartPolicy": st.just("Always")}),
    max_size=3,
)


@given(containers=CONTAINERS, initial=CONTAINERS, labels=st.sampled_from([{}, {"app": "x"}]))
def test_it_is_read_as_from_a_file(
    containers: list[dict[str, object]], initial: list[dict[str, object]], labels: dict[str, str]
) -> None:
    named = [{"name": f"c-{n}", **it} for n, it in enumerate([{}, *containers, *initial])]
    middle = len(containers) + 1
    spec = {"containers": named[:middle], "initContainers": named[middle:]}
    value = pod(labels=labels, annotations={"deltaplane.dev/ipv6-pool": "p"}, spec=spec)
    (read,) = manifest.parse(json.dumps(value), "file")
    assert isinstance(read, manifest.PodManifest)
    assert record(value) == PodRecord(
        namespace=read.namespace,
        name=read.name,
        uid="uid-web",
        node=read.node_name or "",
        labels=dict(read.labels),
        annotations=own(read.annotations),
        named_ports=read.named_ports,
    )


def test_what_is_not_read_is_not_kept() -> None:
    fields = {name for struct in (Pod,) for name in struct.__struct_fields__}
    assert fields == {"metadata", "spec", "status"}
    small = msgspec.json.encode(decoded(Kind.POD, pod()))
    assert b"volumes" not in small
    assert b"image" not in small

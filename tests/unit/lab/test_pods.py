from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.errors import Refused
from lab import pods
from lab.pods import Phase, Pod, Port
from lab.records import pod_record

PODS = st.lists(
    st.builds(
        Pod,
        namespace=st.sampled_from("xy"),
        name=st.text("abc", min_size=1),
        uid=st.uuids().map(str),
        labels=st.dictionaries(st.text(max_size=3), st.text(max_size=3)),
        ports=st.lists(st.builds(Port, st.sampled_from(["TCP", "UDP"]), st.integers(1, 9))).map(
            tuple
        ),
        phase=st.sampled_from(Phase),
        addresses=st.lists(st.sampled_from(["10.0.0.1", "fd00::1"])).map(tuple),
    )
)


@given(PODS)
def test_what_was_saved_is_loaded_in_order(
    tmp_path_factory: pytest.TempPathFactory, known: list[Pod]
) -> None:
    file = tmp_path_factory.mktemp("pods") / "pods.json"

    pods.save(file, known)

    assert pods.load(file) == tuple(sorted(known, key=lambda pod: (pod.namespace, pod.name)))


def test_no_file_means_no_pods(tmp_path: Path) -> None:
    assert pods.load(tmp_path / "none") == ()


@pytest.mark.parametrize("content", ["", "{", '[{"name": 1}]', "[3]"])
def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "pods.json"
    file.write_text(content)

    with pytest.raises(Refused, match=r"pods\.json is damaged"):
        pods.load(file)


def test_the_record_has_named_ports_once_and_only_our_annotations() -> None:
    pod = Pod(
        namespace="x",
        name="a",
        uid="u",
        node="node-1",
        labels={"app": "web"},
        annotations={"deltaplane.dev/pool": "p", "other.dev/x": "y"},
        ports=(Port("TCP", 80, "http"), Port("TCP", 81), Port("TCP", 80, "http")),
    )

    record = pod_record(pod)

    assert [(port.name, port.protocol, port.number) for port in record.named_ports] == [
        ("http", 6, 80)
    ]
    assert dict(record.annotations) == {"deltaplane.dev/pool": "p"}
    assert dict(record.labels) == {"app": "web"}

"""Services in a lab of two nodes in two zones: each line of what Kubernetes' services can do."""

import json
import socket
from pathlib import Path

import pytest

from deltaplane import manifest
from deltaplane.cli.services import list_services
from deltaplane.errors import Invalid
from deltaplane.manifest.mistakes import ManifestError
from lab import Lab, manifests, topology
from lab.probe import Call
from tests.e2e.conftest import SERVICES, Command, command_of

NEAR, FAR = "default/near", "default/far"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def lab(services_lab: Lab) -> Lab:
    return services_lab


@pytest.fixture
def command(lab: Lab) -> Command:
    return command_of(lab)


def listed(command: Command, *arguments: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(command(*arguments, "-o", "json").stdout)
    return found


# --- what does not need the data path ------------------------------------------------------------


def test_services_get_what_they_ask_for(command: Command) -> None:
    known = {str(item["name"]): item for item in listed(command, "get", "services")}

    def families(name: str) -> list[bool]:
        ips = known[name]["cluster_ips"]
        assert isinstance(ips, list)
        return [":" in ip for ip in ips]

    assert families("four") == [False]
    assert families("six") == [True]
    assert families("dual") == [False, True]
    assert known["peers"]["cluster_ips"] == ["None"]
    assert known["dual"]["ports"] == ["80:30080/TCP", "81:30081/TCP", "53:30053/UDP"]
    assert known["kube-dns"]["cluster_ips"] == list(topology.NAME_SERVERS)
    assert known["guarded"]["external"] == [
        *("198.51.100.8", "2001:db8:1::8", "203.0.113.8", "2001:db8::8")
    ]


def test_slices_follow_the_pods(lab: Lab, command: Command) -> None:
    slices = listed(command, "get", "endpointslices", "--service", "default/dual")

    # Of each family, one for each number that the name "web" has.
    assert len(slices) == 4
    near, far = lab.pod(NEAR), lab.pod(FAR)
    assert {(str(item["ports"]), str(item["addresses"])) for item in slices} == {
        (str([f"http:{number}/TCP", "number:9000/TCP", "dns:5353/UDP"]), str([address]))
        for pod, number in ((near, 8080), (far, 8081))
        for address in pod.addresses
    }


def test_applying_again_changes_nothing(lab: Lab, command: Command) -> None:
    before = listed(command, "get", "services"), listed(command, "get", "endpointslices")
    done = lab.apply([SERVICES])
    assert (done.pods.added, done.pods.updated, done.pods.removed) == ((), (), ())
    assert (listed(command, "get", "services"), listed(command, "get", "endpointslices")) == before


def test_a_pod_knows_its_name_and_where_to_look_names_up(command: Command) -> None:
    script = "hostname; cat /etc/resolv.conf"
    done = command("lab", "exec", "db-1", "--", "sh", "-c", script)
    assert done.stdout == (
        "db-1\n"
        "nameserver 10.96.0.10\n"
        "nameserver fd00:10:96::a\n"
        "search default.svc.cluster.local svc.cluster.local cluster.local\n"
        "options ndots:5\n"
    )
    # The machine has its own still.
    assert socket.gethostname() != "db-1"
    assert "ndots:5" not in Path("/etc/resolv.conf").read_text()


def test_describe_says_what_becomes_of_clients(command: Command) -> None:
    text = command("describe", "service", "default/late").stdout
    assert "no backend is ready: connections are refused" in text
    assert "not ready" in text
    text = command("describe", "service", "default/alias").stdout
    assert "another name for peers.default.svc.cluster.local: DNS only" in text


EXTRA = """
apiVersion: v1
kind: Service
metadata: {name: extra}
spec: {selector: {app: extra}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: extra, labels: {app: extra}, annotations: {lab.deltaplane.dev/ready: "false"}}
spec: {containers: [{name: c, ports: [{containerPort: 80}]}]}
"""


def test_a_service_takes_its_slices_and_names_with_it(lab: Lab, command: Command) -> None:
    def slices() -> list[tuple[object, object]]:
        known = listed(command, "get", "endpointslices", "--service", "default/extra")
        return [(item["endpoints"], item["ready"]) for item in known]

    def names() -> bool:
        return "extra.default.svc.cluster.local" in json.loads(lab.layout.names.read_text())

    unready = manifests.sort(manifest.parse(EXTRA, source="extra"))
    ready = manifests.sort(manifest.parse(EXTRA.replace('"false"', '"true"'), source="extra"))
    lab.apply(unready)
    assert (slices(), names()) == ([(1, 0)], True)
    assert lab.apply(ready).pods.added == ()
    assert slices() == [(1, 1)]
    for _ in range(2):
        assert command("service", "delete", "default/extra").returncode == 0
        assert (slices(), names()) == ([], False)
    lab.apply(ready)
    assert (slices(), names()) == ([(1, 1)], True)
    for _ in range(2):
        lab.delete(ready)
        assert (slices(), names()) == ([], False)


def test_a_service_needs_its_namespace(lab: Lab) -> None:
    text = EXTRA.partition("---")[0].replace("{name: extra}", "{name: a, namespace: nowhere}")
    with pytest.raises(Invalid, match="Service a: there is no namespace 'nowhere'"):
        lab.apply(manifests.sort(manifest.parse(text, source="nowhere")))


WRONG = """
apiVersion: v1
kind: Service
metadata: {name: wrong}
spec: {type: %s, clusterIP: %s, ports: [{port: %s, nodePort: %s%s}]}
"""


@pytest.mark.parametrize(
    ("values", "field", "reason"),
    [
        (("NodePort", "10.97.0.1", 80, 30999, ""), "clusterIPs[0]", "outside the service range"),
        (("NodePort", "10.96.0.10", 80, 30999, ""), "clusterIPs[0]", "taken by service kube-"),
        (("NodePort", "fd00:10:97::1", 80, 30999, ""), "clusterIPs[0]", "outside the service"),
        (("NodePort", '""', 80, 30080, ""), "ports[0].nodePort", "taken by service default/dual"),
        (("NodePort", '""', 80, 80, ""), "ports[0].nodePort", "outside the node port range"),
        (("ClusterIP", '""', 80, 30999, ""), "ports[0].nodePort", "needs the type NodePort"),
        (("NodePort", '""', 65536, 30999, ""), "ports[0].port", "65535"),
        (("NodePort", '""', 80, 30999, ", colour: red"), "ports[0].colour", ""),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(
    lab: Lab, values: tuple[object, ...], field: str, reason: str
) -> None:
    before = list_services(lab.client)
    with pytest.raises((Invalid, ManifestError)) as refused:
        lab.apply(manifests.sort(manifest.parse(WRONG % values, source="wrong")))
    assert f"spec.{field}" in str(refused.value)
    assert reason in str(refused.value)
    assert list_services(lab.client) == before


def test_pods_answer_directly(lab: Lab) -> None:
    what = Call(address=lab.pod(FAR).addresses[0], port=9000, times=3)
    assert lab.call(lab.pod("default/client"), what) == [FAR] * 3
    assert lab.call(lab.topology.node("node-2"), what) == [FAR] * 3

import copy
import re
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from helm_python.chart import Chart
from kubernetes_validate import utils as validating

from services.kubernetes.api.permissions import NODE_PERMISSIONS, PERMISSIONS, Permission
from tests.deploy.manifests import OVERLAYS, by_name, charted, containers, kustomized, load, pods
from tools.generate_manifests import KUBERNETES, files, rendered

OLDEST = "1.30"
"""That the bridge is for."""

NEWEST = kubernetes_validate.latest_version()

ROOT = KUBERNETES.parents[1]


def test_every_object_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chart's are the same objects, see the next test; each is looked at once."""
    # Else a file of a megabyte is read for each of them.
    monkeypatch.setattr(validating, "schema_contents", cache(validating.schema_contents))
    seen = []
    for version, folder in [(OLDEST, "base"), *((NEWEST, folder) for folder in OVERLAYS)]:
        for item in kustomized(folder):
            if "cert-manager.io" not in item["apiVersion"] and (version, item) not in seen:
                kubernetes_validate.validate(item, version, strict=True)
                seen.append((version, item))


@pytest.mark.parametrize("folder", OVERLAYS)
def test_kustomize_and_the_chart_make_the_same(folder: str) -> None:
    one, other = by_name(kustomized(folder)), by_name(charted(*OVERLAYS[folder]))
    assert one.keys() == other.keys()
    for key, item in one.items():
        assert item == other[key], key


def test_the_base_is_what_the_chart_says() -> None:
    for name, text in files().items():
        assert (KUBERNETES / name).read_text() == text, name


def test_the_base_uses_every_file_that_is_generated_for_it() -> None:
    known = (KUBERNETES / "base/kustomization.yaml").read_text()
    for name in files():
        if name.parent == Path("base"):
            assert re.search(rf"\b{re.escape(name.name)}\b", known), name


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"agnet": {}}, "agnet"),
    ({"agent": {"routing": "bgp"}}, "routing"),
    ({"agent": {"maxUnavailable": 0}}, "maxUnavailable"),
    ({"agent": {"cgroup": "sys/fs/cgroup"}}, "cgroup"),
    ({"slicer": {"replicas": 0}}, "replicas"),
    ({"slicer": {"staleAfter": 1}}, "staleAfter"),
    ({"ipam": {"port": 70000}}, "port"),
    ({"controlPlane": {"hosts": []}}, "hosts"),
    ({"controlPlane": {"hosts": [{"name": "a", "address": "10.0.0.1:4001"}]}}, "address"),
    ({"images": {"registry": "example.com/us"}}, "registry"),
    ({"pools": ["10.0.0.0/8"]}, "pools"),
    ({"security": {"tls": {"enabled": "yes"}}}, "enabled"),
    ({"security": {"tls": {"nodeCertificates": "auto"}}}, "nodeCertificates"),
    ({"etcd": {"external": ["192.0.2.1"]}}, "external"),
]


@pytest.mark.parametrize(("values", "named"), WRONG, ids=[named for _, named in WRONG])
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(Exception, match=named):
        rendered(values)


def test_the_schema_knows_every_value() -> None:
    with Chart.load(KUBERNETES / "chart") as chart:
        schema = chart.schema
        assert schema is not None
        assert chart.values.keys() == schema["properties"].keys() - {"global"}


@pytest.mark.parametrize("folder", OVERLAYS)
def test_images_are_targets_of_the_dockerfile(folder: str) -> None:
    dockerfile = (ROOT / "deploy/images/Dockerfile").read_text()
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", dockerfile, re.MULTILINE))
    for pod in pods(kustomized(folder)).values():
        for container in containers(pod):
            name, _, tag = container["image"].partition(":")
            assert tag, "an image without a version"
            if name != "quay.io/coreos/etcd":
                assert name.removeprefix("deltaplane-") in targets


@pytest.mark.parametrize("folder", OVERLAYS)
def test_nothing_needs_the_network_that_it_makes(folder: str) -> None:
    for name, pod in pods(kustomized(folder)).items():
        assert pod["hostNetwork"], name
        assert pod["dnsPolicy"] == "Default", name
        assert pod["priorityClassName"].startswith("system-"), name
        assert "claimName" not in str(pod), name


def test_a_container_may_do_what_it_must() -> None:
    allowed = {
        ("deltaplane-agent", "bpffs"): "privileged",
        ("deltaplane-agent", "agent"): {"BPF", "PERFMON", "NET_ADMIN", "SYS_ADMIN"},
        ("deltaplane-cleanup", "uninstall"): {"BPF", "PERFMON", "NET_ADMIN", "SYS_ADMIN"},
    }
    for name, pod in pods(kustomized("base")).items():
        for container in containers(pod):
            security = container["securityContext"]
            granted = allowed.get((name, container["name"]), set())
            if granted == "privileged":
                assert security == {"privileged": True}
                continue
            assert set(security["capabilities"].get("add", ())) == granted
            assert security["capabilities"]["drop"] == ["ALL"]
            assert security["readOnlyRootFilesystem"]
            assert not security["allowPrivilegeEscalation"]
            if name not in ("deltaplane-agent", "deltaplane-cleanup", "deltaplane-etcd"):
                assert pod["securityContext"]["runAsNonRoot"], name


def test_who_has_a_token_for_the_api_server() -> None:
    """The bridge, and what gets nodes' certificates; the agent beside it has none."""
    found = pods(kustomized("base"))
    automatic = {name for name, pod in found.items() if pod["automountServiceAccountToken"]}
    assert automatic == {"deltaplane-bridge"}
    projected = {
        (name, container["name"])
        for name, pod in found.items()
        for volume in pod["volumes"]
        if "serviceAccountToken" in str(volume)
        for container in containers(pod)
        if volume["name"] in [mount["name"] for mount in container.get("volumeMounts", ())]
    }
    assert projected == {("deltaplane-agent", "certificate"), ("deltaplane-agent", "renewal")}


@pytest.mark.parametrize("folder", OVERLAYS)
def test_only_the_bridge_has_the_ca_for_nodes(folder: str) -> None:
    having = {
        name for name, pod in pods(kustomized(folder)).items() if "deltaplane-node-ca" in str(pod)
    }
    assert having == (set() if folder.endswith("plaintext-dev") else {"deltaplane-bridge"})


def test_certificates_that_are_brought_by_hand() -> None:
    objects = tuple(
        item
        for text in rendered({"security": {"tls": {"nodeCertificates": "manual"}}}).values()
        for item in load(text)
    )
    text = str(objects)
    for word in ("signing", "serviceAccountToken", "certificatesigningrequests", "/node-ca"):
        assert word not in text
    [folder] = [it for it in pods(objects)["deltaplane-agent"]["volumes"] if it["name"] == "tls"]
    assert folder["hostPath"] == {"path": "/etc/deltaplane/tls", "type": "Directory"}


@pytest.mark.parametrize("folder", ["base", "overlays/production"])
def test_replicas_are_on_different_hosts_and_go_one_by_one(folder: str) -> None:
    objects = by_name(kustomized(folder))
    for (kind, name), item in objects.items():
        if kind not in ("Deployment", "StatefulSet"):
            continue
        labels = item["spec"]["selector"]["matchLabels"]
        [term] = item["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        assert term["labelSelector"]["matchLabels"] == labels
        budget = objects["PodDisruptionBudget", name]["spec"]
        assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": labels}}
        if kind == "Deployment":
            assert item["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


def test_a_node_has_the_agent_or_its_cleanup() -> None:
    terms = {}
    for name in ("deltaplane-agent", "deltaplane-cleanup"):
        affinity = copy.deepcopy(pods(kustomized("base"))[name]["affinity"]["nodeAffinity"])
        [term] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        [leaving] = [e for e in term["matchExpressions"] if e["key"] == "deltaplane.dev/leave"]
        terms[leaving.pop("operator")] = leaving
    assert terms.keys() == {"In", "NotIn"}
    assert terms["In"] == terms["NotIn"]


Grant = tuple[bool, str, str, str, tuple[str, ...]]


def wanted_of(permissions: tuple[Permission, ...]) -> set[Grant]:
    return {
        (item.own_namespace, item.resource.group, item.rbac_resource, verb.value, item.names)
        for item in permissions
        for verb in item.verbs
    }


def granted_to(account: str, objects: dict[tuple[str, str], Any]) -> set[Grant]:
    bound = {
        (item["roleRef"]["kind"], item["roleRef"]["name"])
        for (kind, _), item in objects.items()
        if kind.endswith("RoleBinding")
        and [subject["name"] for subject in item["subjects"]] == [account]
    }
    return {
        (kind == "Role", group, resource, verb, tuple(rule.get("resourceNames", ())))
        for kind, name in bound
        for rule in objects[kind, name]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_rbac_grants_exactly_what_the_code_asks_for() -> None:
    wanted = {
        "deltaplane-bridge": wanted_of(PERMISSIONS),
        "deltaplane-agent": wanted_of(NODE_PERMISSIONS),
    }
    for objects in (by_name(kustomized("base")), by_name(charted())):
        for account, permissions in wanted.items():
            assert granted_to(account, objects) == permissions
        roles = {key for key in objects if key[0] in ("Role", "ClusterRole")}
        used = {
            (item["roleRef"]["kind"], item["roleRef"]["name"])
            for (kind, _), item in objects.items()
            if kind.endswith("RoleBinding") and item["subjects"][0]["name"] in wanted
        }
        assert roles == used

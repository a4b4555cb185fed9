"""Kubernetes YAML in, manifests or every mistake out."""

import pytest

from deltaplane.manifest import (
    ContainerPort,
    DeploymentManifest,
    ManifestError,
    NamespaceManifest,
    PodManifest,
    PolicyManifest,
    parse,
)
from deltaplane.model.addresses import Prefix
from deltaplane.model.policy import IPBlock, PolicyPort
from deltaplane.model.ports import NamedPort, Protocol
from deltaplane.model.selector import LabelSelector

SHOP = """\
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels: {team: red}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  strategy: {type: Recreate}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {deltaplane.dev/pool: blue}}
    spec:
      nodeName: node-1
      serviceAccountName: web
      containers:
      - name: web
        image: nginx
        env: [{name: A, value: b}]
        readinessProbe: {httpGet: {path: /, port: http}}
        ports:
        - {name: http, containerPort: 8080}
        - {name: dns, containerPort: 53, protocol: UDP}
        - {containerPort: 9090}
---
# nothing in here
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - namespaceSelector: {}
      podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [db]}]}
    - ipBlock: {cidr: 10.1.2.3/8, except: [10.1.0.0/16]}
    ports:
    - {port: http}
    - {port: 1000, endPort: 2000, protocol: SCTP}
"""


def mistakes(text: str) -> dict[str, str]:
    """Path → reason of every mistake; no two may share a path."""
    with pytest.raises(ManifestError) as caught:
        parse(text, "shop.yaml")
    found = caught.value.mistakes
    assert all(mistake.source == "shop.yaml" for mistake in found)
    assert len({mistake.path for mistake in found}) == len(found), found
    return {mistake.path: mistake.reason for mistake in found}


def pod(spec: str, metadata: str = "{name: a}") -> str:
    return f"apiVersion: v1\nkind: Pod\nmetadata: {metadata}\nspec: {spec}\n"


def policy(spec: str) -> str:
    return (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
        f"metadata: {{name: a}}\nspec: {spec}\n"
    )


def test_a_whole_file() -> None:
    namespace, deployment, policy_manifest = parse(SHOP, "shop.yaml")
    assert namespace == NamespaceManifest(name="shop", labels=(("team", "red"),))
    assert isinstance(deployment, DeploymentManifest)
    assert (deployment.namespace, deployment.name, deployment.replicas) == ("shop", "web", 3)
    assert deployment.template.labels == (("app", "web"),)
    assert deployment.template.annotations == (("deltaplane.dev/pool", "blue"),)
    assert deployment.template.node_name == "node-1"
    assert deployment.template.ports == (
        ContainerPort(number=8080, name="http"),
        ContainerPort(number=53, protocol=Protocol.UDP, name="dns"),
        ContainerPort(number=9090),
    )
    assert deployment.template.named_ports == (
        NamedPort("dns", Protocol.UDP, 53),
        NamedPort("http", Protocol.TCP, 8080),
    )
    assert isinstance(policy_manifest, PolicyManifest)
    found = policy_manifest.policy
    assert found.applies_to_ingress
    assert found.applies_to_egress
    by_label, by_address = found.ingress[0].peers
    assert by_label.namespace_selector == LabelSelector()
    # Bits behind the length are cleared, as the API does.
    assert by_address.ip_block == IPBlock(
        Prefix.parse("10.0.0.0/8"), (Prefix.parse("10.1.0.0/16"),)
    )
    assert found.ingress[0].ports == (
        PolicyPort(port="http"),
        PolicyPort(protocol=Protocol.SCTP, port=1000, end_port=2000),
    )


def test_a_list_stands_for_its_items() -> None:
    text = """\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: one}}
- {apiVersion: v1, kind: Namespace, metadata: {name: two}}
"""
    assert [manifest.name for manifest in parse(text, "list.yaml")] == ["one", "two"]
    assert mistakes(text.replace("name: two", "name: Two")).keys() == {"items[1].metadata.name"}


def test_json_is_yaml() -> None:
    text = '{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}'
    assert parse(text, "a.json") == (NamespaceManifest(name="a"),)


def test_an_empty_file_holds_nothing() -> None:
    assert parse("", "a.yaml") == ()
    assert parse("---\n---\n# a comment\n", "a.yaml") == ()


def test_the_namespace_is_default_unless_given() -> None:
    (manifest,) = parse(pod("{containers: [{name: a}]}"), "a.yaml")
    assert isinstance(manifest, PodManifest)
    assert manifest.namespace == "default"


def test_a_sidecars_ports_count_and_an_init_containers_do_not() -> None:
    ports = "ports: [{name: %s, containerPort: 80}]"
    text = pod(
        f"{{containers: [{{name: a}}], initContainers: [{{name: b, {ports % 'once'}}}, "
        f"{{name: c, restartPolicy: Always, {ports % 'stays'}}}]}}"
    )
    (manifest,) = parse(text, "a.yaml")
    assert isinstance(manifest, PodManifest)
    assert [port.name for port in manifest.named_ports] == ["stays"]


def test_a_pod_on_its_nodes_network_says_so() -> None:
    (manifest,) = parse(pod("{hostNetwork: true, containers: [{name: a}]}"), "a.yaml")
    assert isinstance(manifest, PodManifest)
    assert manifest.host_network


def test_all_mistakes_of_all_documents_come_together_with_their_place() -> None:
    text = SHOP.replace("team: red", "team: '-'").replace("endPort: 2000", "endPort: 20")
    with pytest.raises(ManifestError) as caught:
        parse(text.replace("replicas", "replica"), "shop.yaml")
    assert [(m.document, m.line, m.path) for m in caught.value.mistakes] == [
        (1, 5, "metadata.labels.team"),
        (2, 11, "spec.replica"),
        (4, 44, "spec.ingress[0].ports[1].endPort"),
    ]
    assert 'did you mean "replicas"?' in caught.value.mistakes[1].reason
    assert str(caught.value.mistakes[2]) == (
        "shop.yaml: document 4, line 44: spec.ingress[0].ports[1].endPort: "
        "20 is below port 1000; the range would be empty"
    )
    assert str(caught.value).count("\n") == 2


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        ("[]", "", "must be a Kubernetes object"),
        ("{}", "kind", "is required"),
        ("{apiVersion: v1, kind: Secret, metadata: {name: a}}", "kind", "supported are Namespace"),
        (
            "{apiVersion: v2, kind: Namespace, metadata: {name: a}}",
            "apiVersion",
            "supported are v1",
        ),
        ("{apiVersion: v1, kind: Namespace}", "metadata", "is required"),
        (
            "{apiVersion: v1, kind: Namespace, metadata: {}}",
            "metadata.name",
            "is required",
        ),
        (
            "{apiVersion: v1, kind: Namespace, metadata: {name: a, namespace: b}}",
            "metadata.namespace",
            "must be absent",
        ),
        (
            "{apiVersion: v1, kind: Namespace, metadata: {name: a.b}}",
            "metadata.name",
            "no DNS label",
        ),
        (
            "{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {x/y/z: b}}}",
            "metadata.labels[x/y/z]",
            "no label key",
        ),
        (
            "{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {b: 1}}}",
            "metadata.labels.b",
            "must be text, not a number; put it in quotes",
        ),
        (
            "{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {b: yes}}}",
            "metadata.labels.b",
            "not true or false; put it in quotes",
        ),
        (pod("{}"), "spec.containers", "is required"),
        (pod("{containers: []}"), "spec.containers", "at least one"),
        (pod("{containers: [{name: a}, {name: a}]}"), "spec.containers[1].name", "another"),
        (
            pod("{containers: [{name: a}]}", "{generateName: a-}"),
            "metadata.name",
            "generateName is not supported",
        ),
        (
            pod("{containers: [{name: a, ports: [{containerPort: 0}]}]}"),
            "spec.containers[0].ports[0].containerPort",
            "between 1 and 65535",
        ),
        (
            pod("{containers: [{name: a, ports: [{containerPort: true}]}]}"),
            "spec.containers[0].ports[0].containerPort",
            "must be an integer, not true or false",
        ),
        (
            pod("{containers: [{name: a, ports: [{containerPort: 1, protocol: tcp}]}]}"),
            "spec.containers[0].ports[0].protocol",
            "supported are TCP, UDP, SCTP",
        ),
        (
            pod(
                "{containers: [{name: a, ports: "
                "[{containerPort: 1, name: p}, {containerPort: 2, name: p}]}]}"
            ),
            "spec.containers[0].ports[1].name",
            "another port",
        ),
        (policy("{podSelectors: {}}"), "spec.podSelectors", 'did you mean "podSelector"?'),
        (policy("{podSelector: [a]}"), "spec.podSelector", "must be a mapping, not a list"),
        (policy("{ingress: {}}"), "spec.ingress", "must be a list, not a mapping"),
        (policy("{ingress: [null]}"), "spec.ingress[0]", "write {}"),
        (
            policy("{policyTypes: [ingress]}"),
            "spec.policyTypes[0]",
            "supported are Ingress, Egress",
        ),
        (
            policy("{policyTypes: [Ingress, Egress, Egress]}"),
            "spec.policyTypes",
            "at most 2",
        ),
        (policy("{ingress: [{to: []}]}"), "spec.ingress[0].to", "unknown field"),
        (
            policy("{ingress: [{ports: [{port: '80'}]}]}"),
            "spec.ingress[0].ports[0].port",
            "at least one letter",
        ),
        (
            policy("{ingress: [{ports: [{port: 65536}]}]}"),
            "spec.ingress[0].ports[0].port",
            "between 1 and 65535",
        ),
        (
            policy("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.1}}]}]}"),
            "spec.ingress[0].from[0].ipBlock.cidr",
            "0 to 32",
        ),
        (
            policy("{ingress: [{from: [{ipBlock: {cidr: '::ffff:1.2.3.4/128'}}]}]}"),
            "spec.ingress[0].from[0].ipBlock.cidr",
            "no address prefix",
        ),
        (
            policy("{ingress: [{from: [{ipBlock: {except: [10.0.0.0/8]}}]}]}"),
            "spec.ingress[0].from[0].ipBlock.cidr",
            "is required",
        ),
        (
            policy("{podSelector: {matchExpressions: [{key: a, operator: In}]}}"),
            "spec.podSelector.matchExpressions[0].values",
            "at least one value",
        ),
        (
            policy("{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}"),
            "spec.podSelector.matchExpressions[0].values",
            "must be absent",
        ),
        (
            policy("{podSelector: {matchExpressions: [{key: a, operator: Gt, values: ['1']}]}}"),
            "spec.podSelector.matchExpressions[0].operator",
            "supported are In, NotIn, Exists, DoesNotExist",
        ),
    ],
)
def test_a_mistake_names_its_path_and_what_would_be_right(
    text: str, path: str, reason: str
) -> None:
    found = mistakes(text)
    assert found.keys() == {path}
    assert reason in found[path]


def test_a_deployment_must_select_its_own_pods() -> None:
    assert mistakes(
        SHOP.replace("selector: {matchLabels: {app: web}}\n  t", "selector: {}\n  t")
    ) == {"spec.selector": "must not be empty: the deployment would own every pod"}
    assert "spec.selector" in mistakes(
        SHOP.replace(
            "selector: {matchLabels: {app: web}}\n  t", "selector: {matchLabels: {app: x}}\n  t"
        )
    )


def test_an_object_given_twice_is_a_mistake() -> None:
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n"
    assert mistakes(f"{namespace}---\n{namespace}") == {
        "metadata.name": "Namespace a is given twice; first in document 1, line 1"
    }


def test_a_mistake_in_one_place_hides_none_in_another() -> None:
    text = policy(
        "{ingress: [{from: [{}, {podSelector: {}, ipBlock: {cidr: 1.2.3.4/40}}], "
        "ports: [{endPort: 1}]}]}"
    )
    assert mistakes(text).keys() == {
        "spec.ingress[0].from[0]",
        "spec.ingress[0].from[1]",
        "spec.ingress[0].from[1].ipBlock.cidr",
        "spec.ingress[0].ports[0].endPort",
    }


def asking(annotations: str, *, replicas: int = 1) -> str:
    return (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n"
        f"  replicas: {replicas}\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n"
        f"    metadata: {{labels: {{app: web}}, annotations: {{{annotations}}}}}\n"
        "    spec: {containers: [{name: web}]}\n"
    )


def test_addresses_that_are_asked_for_are_read() -> None:
    text = "deltaplane.dev/ipv6-pool: blue, deltaplane.dev/ip-addresses: 10.244.0.9"
    (deployment,) = parse(asking(text), "web.yaml")
    assert isinstance(deployment, DeploymentManifest)
    assert deployment.template.annotations == (
        ("deltaplane.dev/ip-addresses", "10.244.0.9"),
        ("deltaplane.dev/ipv6-pool", "blue"),
    )


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ("deltaplane.dev/ipv4-pool: Blue", '"Blue" is no DNS label'),
        ("deltaplane.dev/ip-addresses: '10.0.0.1,10.0.0.2'", "has two IPv4 addresses"),
        ("deltaplane.dev/ip-addresses: 10.0.0.0/24", "is not valid at '10.0.0.0/24'"),
    ],
)
def test_annotations_about_addresses_are_checked(annotation: str, reason: str) -> None:
    key = annotation.partition(":")[0]
    path = f"metadata.annotations[{key}]"
    for text, where in (
        (asking(annotation), f"spec.template.{path}"),
        (pod("{containers: [{name: a}]}", f"{{name: a, annotations: {{{annotation}}}}}"), path),
    ):
        found = mistakes(text)
        assert found.keys() == {where}
        assert reason in found[where]


def test_several_replicas_cannot_have_one_address() -> None:
    found = mistakes(asking("deltaplane.dev/ip-addresses: 10.244.0.9", replicas=2))
    assert found == {
        "spec.template.metadata.annotations[deltaplane.dev/ip-addresses]": (
            '"10.244.0.9" would be asked for by each of the 2 replicas; set replicas to 1, or '
            "write one Pod for each address"
        )
    }


def test_a_namespace_asks_for_pools_but_not_for_addresses() -> None:
    text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, annotations: {%s}}\n"
    (namespace,) = parse(text % "deltaplane.dev/ipv4-pool: blue", "a.yaml")
    assert isinstance(namespace, NamespaceManifest)
    assert namespace.annotations == (("deltaplane.dev/ipv4-pool", "blue"),)
    (reason,) = mistakes(text % "deltaplane.dev/ip-addresses: 10.244.0.9").values()
    assert "is not possible for a namespace" in reason


def audited(value: str) -> str:
    return (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
        f"metadata: {{name: a, annotations: {{deltaplane.dev/audit: {value}}}}}\nspec: {{}}\n"
    )


@pytest.mark.parametrize(("value", "audit"), [('"true"', True), ('"false"', False)])
def test_an_annotation_puts_a_policy_under_audit(value: str, audit: bool) -> None:
    (found,) = parse(audited(value), "p.yaml")
    assert isinstance(found, PolicyManifest)
    assert found.policy.audit == audit


def test_an_audit_that_is_neither_true_nor_false_is_a_mistake() -> None:
    assert mistakes(audited('"yes"')) == {
        "metadata.annotations[deltaplane.dev/audit]": '"yes" must be "true" or "false"'
    }
    (reason,) = mistakes(audited("true")).values()
    assert reason.startswith("must be text")

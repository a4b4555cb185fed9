"""ClusterNetworkPolicy and its predecessors: the policies that they become."""

import json

import pytest
import yaml

from deltaplane.manifest import general_policy_to_object, general_policy_to_yaml
from deltaplane.model.addresses import Prefix
from deltaplane.model.policy import IPBlock
from deltaplane.model.ports import TRANSPORTS, PortRange, Protocol
from deltaplane.model.selector import LabelSelector, Operator, Requirement
from deltaplane.model.tiers import Action, Policy, PolicyKind, Rule, Selector, Tier
from tests.unit.deltaplane.manifest.cluster import GROUP, admin, cluster, mistakes, one

CLUSTER = f"""\
apiVersion: {GROUP}/v1alpha2
kind: ClusterNetworkPolicy
metadata: {{name: shop, labels: {{a: b}}, annotations: {{deltaplane.dev/audit: "true"}}}}
spec:
  tier: Baseline
  priority: 7
  subject:
    pods:
      namespaceSelector: {{matchLabels: {{team: red}}}}
      podSelector: {{matchExpressions: [{{key: app, operator: In, values: [web, api]}}]}}
  ingress:
  - name: from anywhere in red
    action: Accept
    from:
    - namespaces: {{matchLabels: {{team: red}}}}
    - pods: {{podSelector: {{}}}}
    protocols:
    - tcp: {{destinationPort: {{number: 80}}}}
    - tcp: {{destinationPort: {{range: {{start: 81, end: 90}}}}}}
    - udp: {{destinationPort: {{number: 53}}}}
    - sctp: {{destinationPort: {{range: {{start: 1, end: 65535}}}}}}
    - destinationNamedPort: http
  egress:
  - action: Pass
    to:
    - networks: [10.1.2.3/8, "2001:db8::/32"]
    - networks: [0.0.0.0/0]
    - namespaces: {{}}
  - action: Deny
    to:
    - pods:
        namespaceSelector: {{matchLabels: {{team: blue}}}}
        podSelector: {{matchLabels: {{app: db}}}}
    protocols:
    - destinationNamedPort: sql
status: {{conditions: []}}
"""
RED = LabelSelector.of({"team": "red"})


def every(name: str) -> tuple[tuple[str, Protocol], ...]:
    return tuple((name, protocol) for protocol in TRANSPORTS)


def test_a_cluster_network_policy() -> None:
    assert one(CLUSTER).policy == Policy(
        kind=PolicyKind.CLUSTER,
        namespace="",
        name="shop",
        tier=Tier.BASELINE,
        priority=7,
        audit=True,
        subject=Selector(
            namespaces=RED,
            pods=LabelSelector((Requirement("app", Operator.IN, ("api", "web")),)),
        ),
        ingress=(
            Rule(
                name="from anywhere in red",
                action=Action.ALLOW,
                selectors=(Selector(namespaces=RED), Selector()),
                ranges=(
                    PortRange(Protocol.TCP, 80, 90),
                    PortRange(Protocol.UDP, 53, 53),
                    PortRange(Protocol.SCTP, 1, 65535),
                ),
                port_names=every("http"),
            ),
        ),
        egress=(
            Rule(
                action=Action.PASS,
                selectors=(Selector(),),
                blocks=tuple(
                    IPBlock(Prefix.parse(text))
                    for text in ("10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0")
                ),
                any_port=True,
            ),
            Rule(
                action=Action.DENY,
                selectors=(
                    Selector(
                        namespaces=LabelSelector.of({"team": "blue"}),
                        pods=LabelSelector.of({"app": "db"}),
                    ),
                ),
                port_names=every("sql"),
            ),
        ),
    )


RULES = """\
{subject: {namespaces: {}}, %s
 ingress: [{action: Deny, name: n, from: [{namespaces: {matchLabels: {team: red}}}],
   ports: [{portNumber: {port: 80}}, {portNumber: {protocol: UDP, port: 53}}, {namedPort: web},
           {portRange: {protocol: SCTP, start: 1, end: 9}}, {portRange: {start: 81, end: 82}}]}],
 egress: [{action: Allow, to: [{networks: ["fd00::/8"]},
   {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}}]}]}
"""


@pytest.mark.parametrize(
    ("kind", "tier", "priority"),
    [
        (PolicyKind.ADMIN, Tier.ADMIN, 1000),
        (PolicyKind.BASELINE_ADMIN, Tier.BASELINE, 0),
    ],
)
def test_a_predecessor(kind: PolicyKind, tier: Tier, priority: int) -> None:
    text = admin(RULES % (f"priority: {priority}," if priority else ""), kind)
    assert one(text).policy == Policy(
        kind=kind,
        namespace="",
        name="default",
        tier=tier,
        priority=priority,
        subject=Selector(),
        ingress=(
            Rule(
                name="n",
                action=Action.DENY,
                selectors=(Selector(namespaces=RED),),
                ranges=(
                    PortRange(Protocol.TCP, 80, 82),
                    PortRange(Protocol.UDP, 53, 53),
                    PortRange(Protocol.SCTP, 1, 9),
                ),
                port_names=every("web"),
            ),
        ),
        egress=(
            Rule(
                action=Action.ALLOW,
                selectors=(Selector(pods=LabelSelector.of({"app": "db"})),),
                blocks=(IPBlock(Prefix.parse("fd00::/8")),),
                any_port=True,
            ),
        ),
    )


def test_an_admin_network_policy_passes_and_a_baseline_cannot() -> None:
    spec = "{subject: {namespaces: {}}, %s ingress: [{action: Pass, from: [{namespaces: {}}]}]}"
    assert one(admin(spec % "priority: 0,")).policy.ingress[0].action is Action.PASS
    assert mistakes(admin(spec % "", "BaselineAdminNetworkPolicy")) == {
        "spec.ingress[0].action": '"Pass" is not supported; supported are Allow, Deny'
    }


def test_a_policy_without_rules_is_fine() -> None:
    policy = one(cluster("{tier: Admin, priority: 0, subject: {namespaces: {}}}")).policy
    assert (policy.ingress, policy.egress, policy.audit) == ((), (), False)


def test_a_later_version_has_the_same_fields() -> None:
    later = one(CLUSTER.replace("v1alpha2", "v1beta1"))
    assert later == one(CLUSTER)


@pytest.mark.parametrize(
    "text",
    [CLUSTER, admin(RULES % "priority: 5,"), admin(RULES % "", "BaselineAdminNetworkPolicy")],
    ids=["cluster", "admin", "baseline"],
)
def test_what_is_printed_can_be_applied_again(text: str) -> None:
    manifest = one(text)
    printed = general_policy_to_yaml(manifest.policy, manifest.spec)
    assert one(printed) == manifest
    given = yaml.safe_load(text)
    assert yaml.safe_load(printed)["spec"] == given["spec"] == json.loads(manifest.spec)
    shown = general_policy_to_object(manifest.policy, manifest.spec)
    assert json.loads(json.dumps(shown))["spec"] == given["spec"]


def test_words_that_look_like_something_else_stay_text() -> None:
    subject = "{namespaces: {matchLabels: {'y': 'n', 'on': '1e3', 'null': '0x1'}}}"
    manifest = one(cluster(f"{{tier: Admin, priority: 0, subject: {subject}}}"))
    printed = general_policy_to_yaml(manifest.policy, manifest.spec)
    assert one(printed) == manifest
    assert '"y": "n"' in printed


def test_another_version_is_refused() -> None:
    found = mistakes(CLUSTER.replace("v1alpha2", "v1alpha1"))
    assert found["apiVersion"].startswith(f'"{GROUP}/v1alpha1" is not supported; supported are')

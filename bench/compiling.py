"""What policies cost the compiler: all of them at once, and one change after another.

One process, no store and no stream: the pure compiler. Pods count by their identities only; a pod
that has the identity of others is no change to it.
"""

import random
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench.times import Times
from deltaplane.model.addresses import Prefix
from deltaplane.model.identity import FIRST_IDENTITY, NAMESPACE_NAME_LABEL, Identity, LabelSet
from deltaplane.model.objects import SubjectPolicy
from deltaplane.model.policy import IPBlock, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.ports import NamedPort, PortRange, Protocol
from deltaplane.model.selector import LabelSelector
from deltaplane.model.tiers import Action, Policy, PolicyKind, Rule, Selector, Tier
from deltaplane.policy.compiler import Compiler
from deltaplane.runtime import interpreter

SEED = 1
TEAMS = 12
PER_NAMESPACE = 20
"""Deployments of a namespace, each with an identity of its own."""
CLUSTER_WIDE = 10
"""Policies of the admin tier; each selects the namespaces of one team."""

AnyPolicy = NetworkPolicy | Policy


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much there is; pods only say how many share an identity."""

    identities: int = 6000
    pods: int = 30_000
    policies: int = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiling:
    """What was measured.

    Attributes:
        full: everything in, first flush.
        policy: a policy of a namespace is replaced.
        cluster_policy: one of the admin tier is.
        new_pod: the first pod of an identity comes.
        last_pod: the last pod of one goes.
        subjects: subject policies that came out.
        peer_sets: peer sets that came out.
        rules: rules in all subject policies.
        max_rss: most memory that the process ever had, input included; bytes.
    """

    full: Times
    policy: Times
    cluster_policy: Times
    new_pod: Times
    last_pod: Times
    subjects: int
    peer_sets: int
    rules: int
    max_rss: int


def measure(size: Size, changes: int) -> Compiling:
    """Measures once; the process should be a new one, for its memory is measured, too."""
    drawn = random.Random(SEED)
    identities = tuple(_identities(size))
    policies = tuple(_policies(size, drawn))
    compiler = Compiler()
    interpreter.prepare()
    full = Times()
    with full.sample():
        for identity in identities:
            compiler.set_identity(identity)
        for policy in policies:
            compiler.set_policy(policy)
        first = compiler.flush()
    subjects = [value for value in first.upserts if isinstance(value, SubjectPolicy)]
    return Compiling(
        full=full,
        policy=_changes(compiler, _own(policies), changes, drawn),
        cluster_policy=_changes(compiler, _wide(policies), 10, drawn),
        new_pod=_new_pods(compiler, identities, changes, drawn),
        last_pod=_last_pods(compiler, identities, changes, drawn),
        subjects=len(subjects),
        peer_sets=len(first.upserts) - len(subjects),
        rules=sum(len(value.ingress.rules) + len(value.egress.rules) for value in subjects),
        max_rss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


# --- changes --------------------------------------------------------------------------------------


def _own(policies: Sequence[AnyPolicy]) -> list[AnyPolicy]:
    return [policy for policy in policies if policy.namespace]


def _wide(policies: Sequence[AnyPolicy]) -> list[AnyPolicy]:
    return [policy for policy in policies if not policy.namespace]


def _changes(
    compiler: Compiler, policies: Sequence[AnyPolicy], count: int, drawn: random.Random
) -> Times:
    """One more port in a rule of a policy, and back."""
    times = Times()
    for number in range(count):
        old = drawn.choice(policies)
        new = _changed(old, 20_000 + number)
        for policy in (new, old):
            with times.sample():
                compiler.set_policy(policy)
                found = compiler.flush()
            assert found.upserts, f"{policy.reference} selects nobody"
    return times


def _changed(policy: AnyPolicy, port: int) -> AnyPolicy:
    if isinstance(policy, NetworkPolicy):
        more = PolicyRule(ports=(PolicyPort(port=port),))
        if policy.applies_to_ingress:
            return replace(policy, ingress=(*policy.ingress, more))
        return replace(policy, egress=(*policy.egress, more))
    rule = Rule(all_peers=True, ranges=(PortRange(Protocol.TCP, port, port),))
    return replace(policy, ingress=(*policy.ingress, rule))


def _new_pods(
    compiler: Compiler, identities: Sequence[Identity], count: int, drawn: random.Random
) -> Times:
    """A pod like others but for one more label; it goes again, which is not timed."""
    times = Times()
    for number in range(count):
        old = drawn.choice(identities).label_set
        labels = (*old.labels, ("version", f"v{number}"))
        identity = Identity(FIRST_IDENTITY + len(identities), replace(old, labels=labels))
        with times.sample():
            compiler.set_identity(identity)
            compiler.flush()
        compiler.delete_identity(identity.id)
        compiler.flush()
    return times


def _last_pods(
    compiler: Compiler, identities: Sequence[Identity], count: int, drawn: random.Random
) -> Times:
    """The last pod of an identity goes; it comes back, which is not timed."""
    times = Times()
    for _ in range(count):
        identity = drawn.choice(identities)
        with times.sample():
            compiler.delete_identity(identity.id)
            compiler.flush()
        compiler.set_identity(identity)
        compiler.flush()
    return times


# --- the cluster ----------------------------------------------------------------------------------


def _namespaces(size: Size) -> int:
    return -(-size.identities // PER_NAMESPACE)


def _identities(size: Size) -> Iterator[Identity]:
    for number in range(size.identities):
        namespace, app = divmod(number, PER_NAMESPACE)
        labels = {"app": f"app-{app}", "tier": ("web", "api", "db")[app % 3], "release": "stable"}
        ports = (NamedPort("http", Protocol.TCP, 8080 + app % 4),)
        yield Identity(
            FIRST_IDENTITY + number,
            LabelSet.of(f"ns-{namespace}", {"team": f"team-{namespace % TEAMS}"}, labels, ports),
        )


def _policies(size: Size, drawn: random.Random) -> Iterator[AnyPolicy]:
    namespaces = _namespaces(size)
    # A small cluster has fewer teams.
    wide = min(CLUSTER_WIDE, namespaces)
    yield from map(_cluster_wide, range(wide))
    for number in range(size.policies - wide):
        index, namespace = divmod(number, namespaces)
        yield _policy(f"ns-{namespace}", index, namespaces, drawn)


def _cluster_wide(number: int) -> Policy:
    monitoring = LabelSelector.of({NAMESPACE_NAME_LABEL: "ns-0"})
    return Policy(
        kind=PolicyKind.CLUSTER,
        namespace="",
        name=f"admin-{number}",
        subject=Selector(namespaces=LabelSelector.of({"team": f"team-{number}"})),
        tier=Tier.ADMIN,
        priority=number,
        ingress=(
            Rule(selectors=(Selector(namespaces=monitoring),), any_port=True, name="monitoring"),
            Rule(action=Action.PASS, all_peers=True, any_port=True),
        ),
    )


def _policy(namespace: str, index: int, namespaces: int, drawn: random.Random) -> AnyPolicy:
    """The first of a namespace are for all of its pods, the others for one deployment each."""
    name = f"policy-{index}"
    if index == 0:
        return _of(namespace, name, LabelSelector(), ingress=(), egress=())
    if index == 1:
        system = LabelSelector.of({NAMESPACE_NAME_LABEL: "kube-system"})
        ports = (PolicyPort(protocol=Protocol.UDP, port=53), PolicyPort(port=53))
        to_dns = PolicyRule(peers=(PolicyPeer(namespace_selector=system),), ports=ports)
        return _of(namespace, name, LabelSelector(), egress=(to_dns,))
    subject = LabelSelector.of({"app": f"app-{index % PER_NAMESPACE}"})
    rule = PolicyRule(
        peers=tuple(_peer(namespaces, drawn) for _ in range(drawn.randint(1, 2))),
        ports=(_port(drawn),),
    )
    match index % 10:
        case 0:
            return _denying(namespace, name, subject, drawn)
        case 1 | 2 | 3:
            return _of(namespace, name, subject, egress=(rule,))
        case _:
            return _of(namespace, name, subject, ingress=(rule,))


def _of(
    namespace: str,
    name: str,
    subject: LabelSelector,
    *,
    ingress: tuple[PolicyRule, ...] | None = None,
    egress: tuple[PolicyRule, ...] | None = None,
) -> NetworkPolicy:
    return NetworkPolicy(
        namespace=namespace,
        name=name,
        pod_selector=subject,
        applies_to_ingress=ingress is not None,
        applies_to_egress=egress is not None,
        ingress=ingress or (),
        egress=egress or (),
    )


def _denying(namespace: str, name: str, subject: LabelSelector, drawn: random.Random) -> Policy:
    outside = IPBlock(Prefix.parse(f"192.0.{drawn.randint(0, 255)}.0/24"))
    return Policy(
        kind=PolicyKind.CILIUM,
        namespace=namespace,
        name=name,
        subject=Selector(namespace=namespace, pods=subject),
        ingress=(Rule(action=Action.DENY, blocks=(outside,), outside_only=True, any_port=True),),
    )


def _peer(namespaces: int, drawn: random.Random) -> PolicyPeer:
    app = LabelSelector.of({"app": f"app-{drawn.randrange(PER_NAMESPACE)}"})
    match drawn.randrange(10):
        case 0:
            whole = Prefix.parse(f"10.{drawn.randrange(256)}.0.0/16")
            hole = Prefix(whole.address, 24)
            return PolicyPeer(ip_block=IPBlock(whole, (hole,)))
        case 1:
            team = LabelSelector.of({"team": f"team-{drawn.randrange(TEAMS)}"})
            return PolicyPeer(namespace_selector=team, pod_selector=app)
        case 2 | 3:
            other = {NAMESPACE_NAME_LABEL: f"ns-{drawn.randrange(namespaces)}"}
            return PolicyPeer(namespace_selector=LabelSelector.of(other), pod_selector=app)
        case _:
            return PolicyPeer(pod_selector=app)


def _port(drawn: random.Random) -> PolicyPort:
    match drawn.randrange(10):
        case 0:
            return PolicyPort(port="http")
        case 1:
            return PolicyPort(port=8000, end_port=8999)
        case _:
            return PolicyPort(port=drawn.choice((80, 443, 5432, 6379, 8080, 9090)))

"""From what is wanted and what is there to what must change. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from deltaplane.errors import Invalid
from deltaplane.model import annotations as known
from lab.placement import place
from lab.pods import Phase, Pod, Port


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A Deployment, a StatefulSet or a Pod.

    Attributes:
        kind: "Deployment", "StatefulSet" or "Pod".
        replicas: number of pods; 1 for a Pod.
        first: number of a StatefulSet's first pod.
        labels: of each pod.
        annotations: of each pod.
        ports: containerPorts of all containers.
        node: node to run on; empty for any.
        hostname: of a pod to itself and to DNS; a StatefulSet's pods are called by their names.
        subdomain: name of the service below which DNS knows the pods; empty: none.
    """

    kind: str
    namespace: str
    name: str
    replicas: int = 1
    first: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    node: str = ""
    hostname: str = ""
    subdomain: str = ""

    @property
    def owner(self) -> str:
        """Owner of its pods; a Pod owns itself and has none."""
        return "" if self.kind == "Pod" else self.name

    @property
    def owner_kind(self) -> str:
        """Kind of the owner of its pods."""
        return "" if self.kind == "Pod" else self.kind

    @property
    def pod_names(self) -> tuple[str, ...]:
        """Names of its pods. Kubernetes draws those of a Deployment; here they repeat."""
        if self.kind == "Pod":
            return (self.name,)
        if self.kind == "StatefulSet":
            numbers = range(self.first, self.first + self.replicas)
            return tuple(f"{self.name}-{number}" for number in numbers)
        return tuple(f"{self.name}-{number}" for number in range(1, self.replicas + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What must happen to pods; no pod is in two of the three."""

    create: tuple[Pod, ...] = ()
    update: tuple[Pod, ...] = ()
    remove: tuple[Pod, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done."""
        return not (self.create or self.update or self.remove)


def owned_by(workload: Workload, pods: Iterable[Pod]) -> tuple[Pod, ...]:
    """The pods that a workload has already."""
    return tuple(
        pod
        for pod in pods
        if pod.namespace == workload.namespace
        and (pod.owner, pod.owner_kind) == (workload.owner, workload.owner_kind)
        and (workload.owner or pod.name == workload.name)
    )


def plan_apply(
    workloads: Sequence[Workload],
    pods: Sequence[Pod],
    nodes: Sequence[str],
    new_uid: Callable[[], str],
) -> Change:
    """Computes what makes the pods agree with the workloads; other workloads' pods stay.

    A pod that an earlier run left half added is added again under a new UID.

    Args:
        workloads: what is wanted.
        pods: what is there.
        nodes: node names.
        new_uid: gives a UID for a new pod.

    Raises:
        Invalid: two workloads want the same pod, an existing Pod is to move, or a node does not
        exist.
    """
    create: list[Pod] = []
    update: list[Pod] = []
    remove: list[Pod] = []
    by_reference = {pod.reference: pod for pod in pods}
    claimed: dict[str, Workload] = {}
    for workload in workloads:
        for name in workload.pod_names:
            reference = f"{workload.namespace}/{name}"
            _claim(reference, workload, claimed, by_reference.get(reference))
        mine = {pod.name: pod for pod in owned_by(workload, pods)}
        for name in workload.pod_names:
            existing = mine.pop(name, None)
            if existing is not None and not _must_replace(existing, workload):
                wanted = _shaped(existing, workload)
                update += [wanted] if wanted != existing else []
                continue
            remove += [existing] if existing is not None else []
            fresh = Pod(
                namespace=workload.namespace,
                name=name,
                uid=new_uid(),
                owner=workload.owner,
                owner_kind=workload.owner_kind,
                node=workload.node,
            )
            create.append(_shaped(fresh, workload))
        remove += mine.values()
    gone = {pod.uid for pod in remove}
    staying = [pod for pod in pods if pod.uid not in gone]
    return Change(create=place(create, staying, nodes), update=tuple(update), remove=tuple(remove))


def _claim(
    reference: str, workload: Workload, claimed: dict[str, Workload], existing: Pod | None
) -> None:
    other = claimed.setdefault(reference, workload)
    if other is not workload:
        raise Invalid(
            "metadata.name",
            f"{workload.kind} {workload.name} and {other.kind} {other.name}"
            f" both make the pod {reference}",
        )
    mine = (workload.owner, workload.owner_kind)
    if existing is not None and (existing.owner, existing.owner_kind) != mine:
        owner = f"{existing.owner_kind} {existing.owner}" if existing.owner else "a Pod of its own"
        raise Invalid("metadata.name", f"the pod {reference} belongs to {owner} already")


def _must_replace(pod: Pod, workload: Workload) -> bool:
    if pod.phase is not Phase.RUNNING:
        return True
    if workload.owner and _asked(pod.annotations) != _asked(workload.annotations):
        # A new template makes new pods; a Pod of its own keeps its addresses until it is deleted.
        return True
    if not workload.node or workload.node == pod.node:
        return False
    if workload.kind == "Pod":
        raise Invalid(
            "spec.nodeName", f"the pod {pod.reference} runs on {pod.node}; delete it to move it"
        )
    return True


def _asked(annotations: Mapping[str, str]) -> tuple[str | None, ...]:
    """What the annotations say about addresses, which a running pod does not change."""
    return tuple(
        annotations.get(key) for key in (known.IPV4_POOL, known.IPV6_POOL, known.IP_ADDRESSES)
    )


def _shaped(pod: Pod, workload: Workload) -> Pod:
    return replace(
        pod,
        labels=dict(workload.labels),
        annotations=dict(workload.annotations),
        ports=workload.ports,
        hostname=pod.name if workload.kind == "StatefulSet" else workload.hostname,
        subdomain=workload.subdomain,
    )


def plan_delete(
    workloads: Iterable[Workload], namespaces: Iterable[str], pods: Sequence[Pod]
) -> Change:
    """Computes which pods go with workloads and whole namespaces; absent ones are fine."""
    gone_namespaces = frozenset(namespaces)
    owned = {pod.uid for workload in workloads for pod in owned_by(workload, pods)}
    return Change(
        remove=tuple(pod for pod in pods if pod.uid in owned or pod.namespace in gone_namespaces)
    )

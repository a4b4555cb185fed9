"""Carries out the steps of `world` on a lab, as often as it takes, and watches who is reached.

No packet may reach a pod that policies shut: one of the vault from its birth, one of `open` from
its birth if its app was shut before, else from the receipt on.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from deltaplane import manifest
from deltaplane.cli import enforcement
from deltaplane.cli.enforcement import Subject
from deltaplane.errors import DeltaplaneError, Internal, NotFound, Unavailable
from lab import Lab, manifests, topology
from lab.cni import CniError
from lab.manifests import Manifests
from lab.pods import Phase, Pod, Port
from lab.workloads import Workload
from tests.chaos.arrivals import Ear, arrivals
from tests.chaos.spray import Pair, Spray
from tests.chaos.world import APPS, FOE, OPEN, STILL, VAULT, Act, Guest, Step, World

KEEPER = "keeper"
WITNESS = "witness"
PORTS = (Port("TCP", 8080, "web"), Port("UDP", 8081))
RETRY_SECONDS = 0.5
RECEIPT_SECONDS = 6.0
"""How long a step waits for a receipt; it is asked for again after later steps."""

SETTLED_SECONDS = 60.0
"""How long receipts may take once no fault is left."""

GROUND = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {STILL}}}
---
apiVersion: v1
kind: Namespace
metadata: {{name: {VAULT}}}
---
apiVersion: v1
kind: Namespace
metadata: {{name: {OPEN}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: nobody, namespace: {VAULT}}}
spec: {{podSelector: {{}}, policyTypes: [Ingress]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: friends, namespace: {VAULT}}}
spec:
  podSelector: {{matchLabels: {{app: {KEEPER}}}}}
  ingress:
  - from:
    - namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {OPEN}}}}}
      podSelector: {{matchLabels: {{app: friend}}}}
"""

SHUT = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: shut-{app}, namespace: open}}
spec: {{podSelector: {{matchLabels: {{app: {app}}}}}, policyTypes: [Ingress]}}
"""

SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {app}, namespace: open}}
spec:
  selector: {{app: {app}}}
  ipFamilyPolicy: RequireDualStack
  ports: [{{port: 80, targetPort: web}}]
"""


def _parsed(text: str) -> Manifests:
    return manifests.sort(manifest.parse(text, source="chaos"))


def _pod(guest: Guest) -> Manifests:
    workload = Workload(
        kind="Pod",
        namespace=guest.namespace,
        name=guest.name,
        labels={"app": guest.app},
        ports=PORTS,
        node=guest.node,
    )
    return Manifests(workloads=(workload,))


def ground(nodes: tuple[str, ...]) -> Manifests:
    """What stays: namespaces, their policies, two pods a node, and the witness."""
    staying = [
        Guest(namespace=namespace, name=f"{app}-{node}", app=app, node=node)
        for node in nodes
        for namespace, app in ((STILL, STILL), (VAULT, KEEPER))
    ]
    # Never shut: that it is reached shows that somebody asks.
    staying.append(Guest(namespace=OPEN, name=WITNESS, app=WITNESS, node=nodes[0]))
    pods = [workload for guest in staying for workload in _pod(guest).workloads]
    return replace(_parsed(GROUND), workloads=tuple(pods))


@dataclass(slots=True)
class _Watch:
    """A pod that nobody may reach.

    Attributes:
        seen: packets that had arrived before it was shut; None: the receipt is still missing.
        ear: says whose they are.
        subject: what the receipt is about.
    """

    pod: Pod
    seen: int | None
    ear: Ear
    subject: Subject = field(default_factory=Subject)


class Churn:
    """Steps, one after another. Used by one thread; `stop` may come from another.

    Args:
        labs: the same lab through one replica of the services each.
        spray: sends to those who may not be reached, too.
        tell: is told what happens.
    """

    def __init__(self, labs: tuple[Lab, ...], spray: Spray, tell: Callable[[str], None]) -> None:
        self.world = World()
        self.problems: list[str] = []
        self.done = 0
        self.received = 0
        self._labs = labs
        self._spray = spray
        self._tell = tell
        self._watched: dict[str, _Watch] = {}
        self._stopping = threading.Event()

    @property
    def lab(self) -> Lab:
        """The lab, through the replica that has answered last."""
        return self._labs[0]

    def begin(self) -> None:
        """Applies what stays. Nothing fails yet."""
        nodes = tuple(node.name for node in self.lab.topology.nodes)
        self.lab.wait_enforced(self.lab.apply(ground(nodes)), seconds=60)
        for pod in self.lab.pods:
            if pod.namespace == VAULT:
                self._watch(pod, seen=0)
        self._aim()

    def run(self, steps: Iterator[Step]) -> None:
        """Takes steps until it is stopped; what breaks them off is a problem."""
        try:
            for step in steps:
                if self._stopping.is_set():
                    return
                self.take(step)
        except Exception as error:  # noqa: BLE001 - nobody else hears of it
            self.problems.append(f"changes broke off after step {self.done}: {error!r}")

    def stop(self) -> None:
        """Lets `run` end after the step that it is at; that is still taken."""
        self._stopping.set()

    def take(self, step: Step) -> None:
        """Takes one step, again until it succeeds."""
        started = time.monotonic()
        self.look()
        if step.act is Act.REOPEN or (step.act is Act.RELABEL and step.guest is not None):
            self._forget_opened(step)
        tries = 1
        while (failure := self._try(step)) is not None:
            tries += 1
            if tries & (tries - 1) == 0:
                self._tell(f"{step}, try {tries}: {_reason(failure)}")
            time.sleep(RETRY_SECONDS)
        self.world = self.world.after(step)
        self._watch_new(step)
        self._aim()
        self.look()
        self.done += 1
        took = f"{time.monotonic() - started:.1f} s" + (f", {tries} tries" if tries > 1 else "")
        self._tell(f"{step}: {took}{self._where(step)}")

    def _where(self, step: Step) -> str:
        """The addresses of who has come."""
        if step.act is not Act.ADD or step.guest is None:
            return ""
        pod = next(pod for pod in self.lab.pods if pod.reference == step.guest.reference)
        return f", {', '.join(pod.addresses)}"

    # --- doing -----------------------------------------------------------------------------------

    def _try(self, step: Step) -> DeltaplaneError | None:
        try:
            self._do(step)
        except Internal as error:
            # Nothing that fails from outside makes a service, or an agent, say that it is broken.
            self.problems.append(f"{step}: {error}")
            return error
        except DeltaplaneError as error:
            if isinstance(error, CniError) and "internal error" in error.reason:
                self.problems.append(f"{step}: {error}")
            self._labs = (*self._labs[1:], self._labs[0])
            return error
        return None

    def _do(self, step: Step) -> None:
        match step.act:
            case Act.REMOVE:
                assert step.guest is not None
                self.lab.delete(_pod(step.guest))
            case Act.ADD | Act.RELABEL:
                assert step.guest is not None
                applied = self.lab.apply(_pod(step.guest))
                self._subject = Subject(revision=applied.revision or 1)
            case Act.SHUT:
                applied = self.lab.apply(_parsed(SHUT.format(app=step.app)))
                self._subject = Subject(revision=applied.revision or 1)
            case Act.REOPEN:
                self.lab.delete(_parsed(SHUT.format(app=step.app)))
            case Act.SERVE:
                self.lab.apply(_parsed(SERVICE.format(app=step.app)))
            case Act.CLOSE:
                self.lab.delete(_parsed(SERVICE.format(app=step.app)))

    # --- watching --------------------------------------------------------------------------------

    def _forget_opened(self, step: Step) -> None:
        """Those that the step is to open are not watched any more."""
        for uid, watch in list(self._watched.items()):
            guest = self.world.guests.get(watch.pod.reference)
            if guest is None or guest.namespace != OPEN:
                continue
            if step.guest is not None and step.guest.reference != guest.reference:
                continue
            if step.guest is None and step.app != guest.app:
                continue
            self._forget(uid)

    def _watch(self, pod: Pod, seen: int | None, subject: Subject | None = None) -> None:
        self._watched[pod.uid] = _Watch(
            pod=pod, seen=seen, ear=Ear(self._namespace(pod)), subject=subject or Subject()
        )

    def _forget(self, uid: str) -> None:
        self._watched.pop(uid).ear.close()

    def _watch_new(self, step: Step) -> None:
        pods = {pod.reference: pod for pod in self.lab.pods if pod.phase is Phase.RUNNING}
        there = {pod.uid for pod in pods.values()}
        for uid in self._watched.keys() - there:
            self._forget(uid)
        for guest in self.world.guests.values():
            pod = pods[guest.reference]
            if pod.uid in self._watched or not self.world.is_forbidden(guest):
                continue
            is_new = step.act is Act.ADD and step.guest == guest
            self._watch(pod, seen=0 if is_new else None, subject=self._subject)
        self._receipts(RECEIPT_SECONDS)

    def _receipts(self, seconds: float) -> None:
        """Begins to count where a receipt is there by now."""
        missing = {watch.subject for watch in self._watched.values() if watch.seen is None}
        for subject in missing:
            try:
                enforcement.await_enforced(
                    self.lab.client, subject, started=time.monotonic(), seconds=seconds
                )
            except (Unavailable, NotFound):
                continue
            for watch in self._watched.values():
                if watch.seen is None and watch.subject == subject:
                    watch.ear.heard()
                    watch.seen = arrivals(self._namespace(watch.pod))

    def look(self) -> None:
        """Checks that nobody was reached who must not be, and that no address is used twice."""
        for watch in self._watched.values():
            if watch.seen is None:
                continue
            now = arrivals(self._namespace(watch.pod))
            if now > watch.seen:
                self._note(
                    f"{now - watch.seen} packets have reached {watch.pod.reference} on "
                    f"{watch.pod.node} ({', '.join(watch.pod.addresses)}), which is shut: "
                    + "; ".join(map(str, watch.ear.heard()))
                )
                watch.seen = now
        pods = [pod for pod in self.lab.pods if pod.phase is Phase.RUNNING]
        addresses = [address for pod in pods for address in pod.addresses]
        twice = {address for address in addresses if addresses.count(address) > 1}
        for address in sorted(twice):
            self._note(f"{address} is the address of two pods")

    def _note(self, problem: str) -> None:
        self.problems.append(problem)
        self._tell(problem)

    def settle(self) -> None:
        """Waits for the receipts that are still missing; call it once all faults have ended."""
        deadline = time.monotonic() + SETTLED_SECONDS
        while (pending := self._unreceipted()) and (left := deadline - time.monotonic()) > 0:
            self._receipts(left)
            # Also whom a replica that has just come back does not reach at once.
            self._labs = (*self._labs[1:], self._labs[0])
        if pending:
            self.problems.append(f"there is no receipt for {', '.join(pending)}")
        self.look()
        # Only who is still sent to can tell.
        self._aim()
        opened = [pod for pod in self.lab.pods if pod.uid not in self._watched]
        self.received += sum(
            arrivals(self._namespace(pod)) for pod in opened if pod.namespace == OPEN
        )

    def close(self) -> None:
        """Watches nobody any more."""
        for uid in list(self._watched):
            self._forget(uid)

    def _unreceipted(self) -> list[str]:
        return [w.pod.reference for w in self._watched.values() if w.seen is None]

    def _namespace(self, pod: Pod) -> str:
        return topology.pod_namespace(self.lab.layout.lab, pod.uid)

    def _aim(self) -> None:
        self._spray.aim(list(self._pairs()))

    def _pairs(self) -> Iterator[Pair]:
        """Everybody who stays sends to every guest; foes who remain foes send to the keepers.

        A packet is judged when it arrives: one of a foe that has waited for a neighbour's answer,
        three seconds at most, may come in if its sender is a friend by then.
        """
        pods = [pod for pod in self.lab.pods if pod.phase is Phase.RUNNING]
        for source in pods:
            guest = self.world.guests.get(source.reference)
            is_foe = guest is not None and guest.app == FOE and guest.is_steady
            for target in pods:
                is_keeper = target.labels.get("app") == KEEPER
                from_still = source.namespace == STILL and target.namespace in (VAULT, OPEN)
                if (is_foe and is_keeper) or from_still:
                    for address in target.addresses:
                        yield self._namespace(source), address


def _reason(failure: DeltaplaneError) -> str:
    """Its first line."""
    return str(failure).splitlines()[0][:200]


def apps_served(world: World) -> tuple[str, ...]:
    """Those that have a service, in order."""
    return tuple(app for app in APPS if app in world.served)

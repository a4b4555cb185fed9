"""The chapters that every demonstration has, with packets and in memory, and what they found."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape

from deltaplane import manifest
from deltaplane.cli.enforcement import Subject
from deltaplane.cli.output import table_of
from deltaplane.cli.progress import show_enforcement
from lab import manifests, matrix
from lab.apply import AT_ONCE
from lab.cluster import Lab
from lab.pods import Pod
from lab.probing import ProbeResult

ENFORCE_SECONDS = 30.0

AFTERWARDS = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: after-the-kills, namespace: monitoring}
spec:
  podSelector:
    matchLabels: {app: prober}
  policyTypes: [Ingress]
---
apiVersion: v1
kind: Pod
metadata: {name: latecomer, namespace: shop, labels: {app: frontend}}
spec:
  containers: [{name: web, image: example.com/shop/frontend:1.0, ports: [{containerPort: 8080}]}]
"""
"""A pod that was open is closed and a pod is added: the control plane came back whole."""


@dataclass(slots=True)
class Findings:
    """What was measured, and what did not hold."""

    problems: list[str] = field(default_factory=list)
    measured: list[tuple[str, str]] = field(default_factory=list)

    def expect(self, *, held: bool, problem: str) -> None:
        """Notes a problem unless it held."""
        if not held:
            self.problems.append(problem)

    def note(self, what: str, value: str) -> None:
        """Notes a measurement."""
        self.measured.append((what, value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """How a kind of demonstration calls what it does.

    Attributes:
        label: stands before every heading and line; empty: none does.
        adding: heading of the chapter in which pods are added.
        added: how pods were added.
        enforced: what is waited for after policies were applied.
        asked: what a look at who reaches whom consists of.
    """

    label: str = ""
    adding: str = "Pods, added by the CNI plugin"
    added: str = "CNI ADD"
    enforced: str = "policies enforced on all nodes"
    asked: str = "probes"


class Teller:
    """Says what happens, on a console, and keeps what it has found."""

    def __init__(self, out: Console, words: Words) -> None:
        self.out = out
        self.words = words
        self.found = Findings()

    @property
    def _label(self) -> str:
        return escape(f"[{self.words.label}] ") if self.words.label else ""

    def line(self, text: str, style: str = "") -> None:
        """A line of text, with the label."""
        styled = f"[{style}]{self._label}{text}[/]" if style else f"{self._label}{text}"
        self.out.print(styled, highlight=False, soft_wrap=True)

    def step(self, text: str) -> None:
        """What goes on."""
        self.line(f"… {escape(text)}", "dim")

    def heading(self, text: str) -> None:
        """Begins a chapter; what follows without a label stands under it."""
        self.out.print(f"\n[bold cyan]── {self._label}{text} ──[/]", highlight=False)

    def story(
        self,
        lab: Lab,
        shop: manifests.Manifests,
        *,
        denials: Callable[[], None],
        kills: Callable[[], None],
    ) -> None:
        """All chapters in their order, up to the conclusion.

        Args:
            lab: one without pods.
            shop: the manifests.
            denials: tells who denies what, while the policies are there.
            kills: tells what is killed, and what that does.
        """
        self.heading(self.words.adding)
        self.workloads(lab, shop)
        self.heading("Without policies")
        self.probe(lab, "without policies")
        self.heading(f"Applying {len(shop.all_policies)} policies")
        self.enforce(lab, shop.only_policies(), self.words.enforced)
        self.heading("With policies")
        before = self.probe(lab, "with policies")
        denials()
        kills()
        self.heading("After the kills")
        after = self.probe(lab, "after the kills")
        self.found.expect(
            held=after.rows == before.rows, problem="the matrix is another one after the kills"
        )
        self.afterwards(lab)

    # --- chapters --------------------------------------------------------------------------------

    def workloads(self, lab: Lab, shop: manifests.Manifests) -> None:
        """Adds the pods."""
        started = time.monotonic()
        done = lab.apply(shop.without_policies(), self.step)
        elapsed = time.monotonic() - started
        self.out.print(table_of([_pod_row(pod) for pod in lab.pods]))
        milliseconds = sorted(1000 * seconds for seconds in done.pods.add_seconds)
        self.found.note(f"{len(milliseconds)} pods applied", f"{elapsed:.2f} s")
        if milliseconds:
            self.found.note(
                f"{self.words.added}, {AT_ONCE} at a time, start to answer",
                f"p50 {statistics.median(milliseconds):.1f} ms,"
                f" p99 {percentile(milliseconds, 99):.1f} ms",
            )
        self._expect_addresses(lab)

    def _expect_addresses(self, lab: Lab) -> None:
        addresses = [address for pod in lab.pods for address in pod.addresses]
        self.found.expect(
            held=len(addresses) == len(set(addresses)), problem="an address is used twice"
        )
        self.found.expect(
            held=all(len(pod.addresses) == 2 for pod in lab.pods),
            problem="a pod lacks an address of one family",
        )

    def probe(self, lab: Lab, when: str) -> ProbeResult:
        """Who reaches whom, as a table, compared with what the policies say."""
        what = f"{self.words.asked} {when}"
        result = lab.probe()
        self.out.print(matrix.table(result.rows, lab.pods, what))
        rounds = f"{result.rounds} round{'s' if result.rounds > 1 else ''}"
        self.found.note(
            what,
            f"{len(result.rows)}, {result.allowed} allowed; {rounds} in {result.seconds:.1f} s",
        )
        self.found.expect(held=result.stable, problem=f"{what}: never two equal rounds")
        self.found.problems.extend(f"{what}: {line}" for line in result.wrong)
        self.found.problems.extend(f"{what}: {line}" for line in lab.contradictions(result))
        return result

    def enforce(self, lab: Lab, policies: manifests.Manifests, what: str) -> None:
        """Applies policies and waits for the receipt of all nodes."""
        applied = lab.apply(policies)
        receipt = show_enforcement(
            lab.client,
            Subject(revision=applied.revision),
            started=applied.started,
            seconds=ENFORCE_SECONDS,
            console=self.out,
        )
        self.line(str(receipt), "green")
        self.found.note(
            what, f"{receipt.milliseconds:.0f} ms, {receipt.enforced}/{receipt.total} nodes"
        )
        self.found.expect(
            held=receipt.total == len(lab.topology.nodes),
            problem=f"{what}: {receipt.total} nodes count, but the lab has"
            f" {len(lab.topology.nodes)}",
        )

    def afterwards(self, lab: Lab) -> None:
        """One more pod and policy."""
        what = "one more pod and policy"
        extra = manifests.sort(manifest.parse(AFTERWARDS, source="after the kills"))
        self.enforce(lab, extra, what)
        self._expect_addresses(lab)
        result = lab.probe()
        self.found.expect(held=result.stable, problem=f"{what}: never two equal rounds")
        self.found.problems.extend(f"{what}: {line}" for line in result.wrong)
        self.found.problems.extend(f"{what}: {line}" for line in lab.contradictions(result))
        self.line(
            f"with one more pod and policy, {result.allowed} of {len(result.rows)}"
            f" {self.words.asked} are allowed"
        )

    def conclude(self) -> bool:
        """Shows what was measured and what did not hold; whether all did."""
        self.heading("Measured")
        self.out.print(
            table_of([{"what": what, "value": value} for what, value in self.found.measured])
        )
        for problem in self.found.problems:
            self.line(f"[red]did not hold:[/] {escape(problem)}")
        return not self.found.problems


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent of an ascending list do not exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def _pod_row(pod: Pod) -> dict[str, str]:
    return {
        "pod": pod.reference,
        "node": pod.node,
        "addresses": ", ".join(pod.addresses),
        "ports": ", ".join(f"{port.number}/{port.protocol}" for port in pod.ports),
    }

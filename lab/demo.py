"""The demonstration: a web shop, its policies, and no packet lost while everything dies.

Nothing is printed that was not measured, and it succeeds only if all of it held.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from deltaplane import manifest
from deltaplane.cli import output
from deltaplane.cli.enforcement import Subject
from deltaplane.cli.output import table_of
from deltaplane.cli.progress import show_enforcement
from deltaplane.errors import DeltaplaneError
from lab import binaries, denials, killing, manifests, matrix
from lab.apply import AT_ONCE
from lab.cluster import Lab, LabConfig
from lab.killing import Kill
from lab.pods import Pod
from lab.probing import ProbeResult
from lab.topology import DEFAULT_MTU

SHOP = binaries.shop()
FLOOD_SOURCE = "monitoring/prober-1"
DENIALS_SHOWN = 20
WIDTH = 120
"""Columns where the output is no terminal."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """What to show. keep: leave the lab running; shop: the manifests; the rest as in LabConfig."""

    name: str = "demo"
    nodes: int = 3
    routing: str = "native"
    mtu: int = DEFAULT_MTU
    keep: bool = False
    tls: bool = False
    shop: Path = SHOP


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


def run(config: DemoConfig, console: Console | None = None) -> bool:
    """Tells the whole story; returns whether all of it held.

    Raises:
        DeltaplaneError: the machine cannot run a lab, or something broke on the way.
    """
    out = console or output.console(WIDTH)
    found = Findings()
    began = time.monotonic()
    shop = manifests.read([config.shop])
    lab = Lab.up(
        LabConfig(
            name=config.name,
            nodes=config.nodes,
            routing=config.routing,
            mtu=config.mtu,
            tls=config.tls,
        ),
        lambda text: _step(out, text),
    )
    found.note("lab up", f"{time.monotonic() - began:.1f} s")
    try:
        _tell(lab, shop, out, found)
    except DeltaplaneError as error:
        found.problems.append(str(error))
    finally:
        if config.keep:
            out.print(f"\nthe lab keeps running: deltaplane lab status --name {config.name}")
        else:
            lab.down(lambda text: _step(out, text))
    found.note("whole demonstration", f"{time.monotonic() - began:.1f} s")
    _conclude(found, out)
    return not found.problems


def _tell(lab: Lab, shop: manifests.Manifests, out: Console, found: Findings) -> None:
    _workloads(lab, shop, out, found)
    _heading(out, "Without policies")
    _probe(lab, out, found, "probes without policies")
    _policies(lab, shop, out, found)
    _heading(out, "With policies")
    before = _probe(lab, out, found, "probes with policies")
    _denials(lab, out, found)
    _kills(lab, out, found)
    _heading(out, "After the kills")
    after = _probe(lab, out, found, "probes after the kills")
    found.expect(
        held=after.rows == before.rows, problem="the matrix is another one after the kills"
    )
    _afterwards(lab, out, found)


def _step(out: Console, text: str) -> None:
    out.print(f"[dim]… {text}[/]", highlight=False)


def _heading(out: Console, text: str) -> None:
    out.print(f"\n[bold cyan]── {text} ──[/]", highlight=False)


def _workloads(lab: Lab, shop: manifests.Manifests, out: Console, found: Findings) -> None:
    _heading(out, "Pods, added by the CNI plugin")
    started = time.monotonic()
    done = lab.apply(shop.without_policies(), lambda text: _step(out, text))
    elapsed = time.monotonic() - started
    out.print(table_of([_pod_row(pod) for pod in lab.pods]))
    milliseconds = sorted(1000 * seconds for seconds in done.pods.add_seconds)
    found.note(f"{len(milliseconds)} pods applied", f"{elapsed:.2f} s")
    if milliseconds:
        found.note(
            f"CNI ADD, {AT_ONCE} at a time, start to answer",
            f"p50 {statistics.median(milliseconds):.1f} ms,"
            f" p99 {percentile(milliseconds, 99):.1f} ms",
        )
    _expect_addresses(lab, found)


def _expect_addresses(lab: Lab, found: Findings) -> None:
    addresses = [address for pod in lab.pods for address in pod.addresses]
    found.expect(held=len(addresses) == len(set(addresses)), problem="an address is used twice")
    found.expect(
        held=all(len(pod.addresses) == 2 for pod in lab.pods),
        problem="a pod lacks an address of one family",
    )


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


def _probe(lab: Lab, out: Console, found: Findings, what: str) -> ProbeResult:
    result = lab.probe()
    out.print(matrix.table(result.rows, lab.pods, what))
    found.note(
        what,
        f"{len(result.rows)}, {result.allowed} allowed; "
        f"{result.rounds} rounds in {result.seconds:.1f} s",
    )
    found.expect(held=result.stable, problem=f"{what}: never two equal rounds")
    found.problems.extend(f"{what}: {line}" for line in result.wrong)
    found.problems.extend(f"{what}: {line}" for line in lab.contradictions(result))
    return result


def _policies(lab: Lab, shop: manifests.Manifests, out: Console, found: Findings) -> None:
    _heading(out, f"Applying {len(shop.all_policies)} policies")
    _enforce(lab, shop.only_policies(), out, found, "policies enforced on all nodes")


def _enforce(
    lab: Lab, policies: manifests.Manifests, out: Console, found: Findings, what: str
) -> None:
    applied = lab.apply(policies)
    receipt = show_enforcement(
        lab.client,
        Subject(revision=applied.revision),
        started=applied.started,
        seconds=ENFORCE_SECONDS,
        console=out,
    )
    out.print(f"[green]{receipt}[/]", highlight=False)
    found.note(what, f"{receipt.milliseconds:.0f} ms, {receipt.enforced}/{receipt.total} nodes")
    found.expect(
        held=receipt.total == len(lab.topology.nodes),
        problem=f"{what}: {receipt.total} nodes count, but the lab has {len(lab.topology.nodes)}",
    )


def _denials(lab: Lab, out: Console, found: Findings) -> None:
    denied = denials.grouped(denials.collect(lab))
    found.expect(held=bool(denied), problem="the policies denied packets but no agent counted one")
    shown = denied[:DENIALS_SHOWN]
    if shown:
        out.print(f"Who denied what ({len(shown)} of {len(denied)} pairs):")
        out.print(
            table_of(
                [
                    {
                        "from": item.source,
                        "to": item.destination,
                        "packets": item.packets,
                        "traffic": item.traffic,
                        "denied by": f"{item.direction}: {', '.join(item.policies)}",
                    }
                    for item in shown
                ]
            )
        )


def _kills(lab: Lab, out: Console, found: Findings) -> None:
    source, destinations = killing.choose_pair(lab.pods, FLOOD_SOURCE)
    _heading(out, "Killing every process under pings at 1 kHz")
    out.print(
        f"{source.reference} on {source.node} pings "
        + ", ".join(f"{pod.reference} on {pod.node}" for pod in destinations)
        + ", IPv4 and IPv6"
    )
    kills = killing.kill_all(lab, source, destinations)
    out.print(table_of([_kill_row(kill) for kill in kills]))
    sent, lost = sum(kill.sent for kill in kills), sum(kill.lost for kill in kills)
    found.note(f"packets lost through {len(kills) - 1} kills", f"{lost} of {sent}")
    found.expect(held=lost == 0, problem=f"{lost} of {sent} packets lost during the kills")


def _kill_row(kill: Kill) -> dict[str, str | int | float]:
    return {
        "kill -9": kill.process,
        "packets": kill.sent,
        "lost": kill.lost,
        "serves again after": f"{kill.away_seconds:.2f} s" if kill.away_seconds else "",
        "worst round trip": f"{kill.worst_ms:.1f} ms",
    }


def _afterwards(lab: Lab, out: Console, found: Findings) -> None:
    extra = manifests.sort(manifest.parse(AFTERWARDS, source="after the kills"))
    _enforce(lab, extra, out, found, "one more pod and policy")
    _expect_addresses(lab, found)
    result = lab.probe()
    found.expect(held=result.stable, problem="one more pod and policy: never two equal rounds")
    found.problems.extend(f"one more pod and policy: {line}" for line in lab.contradictions(result))
    out.print(
        f"with one more pod and policy, {result.allowed} of {len(result.rows)} probes are allowed"
    )


def _conclude(found: Findings, out: Console) -> None:
    _heading(out, "Measured")
    out.print(table_of([{"what": what, "value": value} for what, value in found.measured]))
    for problem in found.problems:
        out.print(f"[red]did not hold:[/] {problem}", highlight=False)
    out.print("[bold red]FAILED[/]" if found.problems else "[bold green]everything held[/]")

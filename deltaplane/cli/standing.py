"""`deltaplane policy status`: on how many nodes is a policy in force, and since when?"""

import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from deltaplane.cli.getting import connected
from deltaplane.cli.options import Output

if TYPE_CHECKING:
    from deltaplane.cli.client import Client
    from deltaplane.cli.enforcement import Receipt
    from deltaplane.cli.output import Record, Value
    from deltaplane.v1 import receipts_pb2


def status(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="NAME, NAMESPACE/NAME or KIND:[NAMESPACE/]NAME.")
    ],
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Of a NAME alone.", metavar="NAME")
    ] = "default",
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Until every node enforces it.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=0.1)] = 30.0,
    output: Output = "table",
) -> None:
    """Say on how many nodes a policy is in force, how long they took, and who is missing.

    Counted are the nodes with pods that the policy selects. A policy under audit (annotation
    deltaplane.dev/audit: "true") is in force as such: it drops nothing. KIND is a kind written out,
    or np, cnp, ccnp, cnp-cluster (ClusterNetworkPolicy), anp, banp. The times run from the commit,
    as the slicer saw it, to the node's acknowledgement; a slicer that has started since knows none.

    With --wait a line for each change goes to standard error, and with -o json every receipt to
    standard output. Exit code 3 when it is not in force everywhere in time.

    Examples: deltaplane policy status default-deny -n shop

    deltaplane policy status ccnp:no-metadata --wait --timeout 10
    """
    from deltaplane.cli import enforcement
    from deltaplane.cli import output as out
    from deltaplane.cli.references import policy_reference
    from deltaplane.errors import Invalid, Unavailable

    form = out.choose(output)
    if wait and form is out.Format.YAML:
        raise Invalid("-o", "what comes bit by bit is a table or json")
    reference = policy_reference(name, namespace)
    subject = enforcement.Subject(policy=reference)
    last: Receipt | None = None
    with connected(context) as client:
        standing = _standing(client, reference)
        for last in enforcement.follow(
            client, subject, started=time.monotonic(), wait=wait, seconds=timeout
        ):
            if wait and form is out.Format.JSON:
                _write(sys.stdout, json.dumps(record(standing, last)))
            elif wait and not last.complete:
                _write(sys.stderr, sentence(standing, last))
    if last is None or (wait and not last.complete):
        raise Unavailable(f"the slicer ended without a complete receipt: {last}")
    if form is out.Format.TABLE:
        typer.echo(sentence(standing, last))
    elif not wait:
        out.show_one(record(standing, last), form)


@dataclass(frozen=True, slots=True)
class Standing:
    """A policy, and whether it is under audit; None: the registry does not say."""

    reference: str
    audit: bool | None = False

    def __str__(self) -> str:
        if self.audit is None:
            return f"{self.reference} (perhaps under audit: the registry does not answer)"
        return f"{self.reference} (under audit, drops nothing)" if self.audit else self.reference


def _standing(client: "Client", reference: str) -> Standing:
    from deltaplane.cli import policies
    from deltaplane.errors import Unavailable

    try:
        return Standing(reference, policies.is_under_audit(client, reference))
    except Unavailable:
        # The slicer can still say on how many nodes it is in force.
        return Standing(reference, None)


def _write(stream: TextIO, line: str) -> None:
    stream.write(line + "\n")
    stream.flush()  # whoever reads a stream wants it now


def sentence(standing: Standing, receipt: "Receipt") -> str:
    """A receipt in one line."""
    text = f"{standing}: enforced {receipt.enforced}/{receipt.total} since revision"
    text += f" {receipt.revision}"
    if not receipt.total:
        return f"{text}: no node has a pod that it selects"
    text += f" ({_times(receipt)})"
    if not receipt.missing:
        return text
    text += f"; missing: {', '.join(receipt.missing)}"
    more = receipt.total - receipt.enforced - len(receipt.missing)
    return f"{text} and {more} more" if more else text


def _times(receipt: "Receipt") -> str:
    times = receipt.times
    if times is None:
        return "times not measured"
    text = f"p99 {times.p99_ms:.0f} ms"
    return text if times.nodes >= receipt.enforced else f"{text} of {times.nodes} nodes"


def record(standing: Standing, receipt: "Receipt") -> "Record":
    """A receipt for programs. times is empty where nothing was measured.

    audit is absent where the registry does not answer.
    """
    times: dict[str, Value] = {}
    if receipt.times is not None:
        times = {
            "nodes": receipt.times.nodes,
            "p50_ms": round(receipt.times.p50_ms, 1),
            "p99_ms": round(receipt.times.p99_ms, 1),
            "max_ms": round(receipt.times.max_ms, 1),
        }
    return {
        "policy": standing.reference,
        **({} if standing.audit is None else {"audit": standing.audit}),
        "revision": receipt.revision,
        "enforced": receipt.enforced,
        "nodes": receipt.total,
        "complete": receipt.complete,
        "times": times,
        "missing": [_missing(node) for node in receipt.absent],
        "missing_total": receipt.total - receipt.enforced,
    }


def _missing(node: "receipts_pb2.MissingNode") -> "Record":
    return {
        "node": node.node,
        "reason": node.reason,
        "effective_revision": node.effective_revision,
        "lagging_seconds": round(node.lagging_seconds, 3),
        "refused": [{"object": item.object, "reason": item.reason} for item in node.refused],
    }

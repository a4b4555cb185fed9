"""`deltaplane ipam check`: whether etcd, journals and kernels agree about addresses."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.options import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deltaplane.check.findings import Finding
    from deltaplane.cli.client import Client
    from deltaplane.cli.looking import Look, Looker
    from deltaplane.cli.output import Record

app = typer.Typer(help="Check addresses and repair what is wrong with them.", no_args_is_help=True)

EXIT_DISAGREES = 1

BY_HAND = "by hand"


@app.callback()
def group() -> None:
    """Keeps `check` a subcommand while it is the only one."""


@app.command()
def check(
    context: typer.Context,
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair what can be repaired safely.")
    ] = False,
    agent: Annotated[
        list[str] | None,
        typer.Option(
            help="Target of a node's agent; repeatable. In a lab all of them are known.",
            metavar="TARGET",
        ),
    ] = None,
    output: Output = "table",
) -> None:
    """Compare etcd, every journal and every kernel; print each disagreement and its repair.

    Ends with 1 if there is any, or with --repair, if any is left.
    """
    from deltaplane.cli import output as out
    from deltaplane.cli.client import Client
    from deltaplane.cli.context import agents, targets
    from deltaplane.cli.looking import Looker

    form = out.choose(output)
    with Client(targets(context.obj)) as client:
        known = [("", target) for target in agent] if agent else [*agents(context.obj).items()]
        looker = Looker(client, known)
        look = looker.settled()
        outcomes: dict[Finding, str] = {}
        left = look
        if repair and look.findings:
            outcomes, left = _repair(client, looker, look)
    _show([_record(finding, outcomes.get(finding, "")) for finding in look.findings], form)
    sys.stderr.write(_summary(look, left, repair=repair) + "\n")
    if left.findings:
        raise typer.Exit(EXIT_DISAGREES)


def _repair(client: "Client", looker: "Looker", look: "Look") -> "tuple[dict[Finding, str], Look]":
    """What became of each repair, and what is wrong afterwards."""
    from deltaplane.cli.repairing import repair

    outcomes = dict(repair(client, look))
    return outcomes, looker.settled()


def _record(finding: "Finding", outcome: str) -> "Record":
    record: dict[str, str | bool] = {
        "kind": str(finding.kind),
        "node": finding.node,
        "subject": finding.subject,
        "seen": finding.seen,
        "meaning": finding.meaning,
        "repair": finding.advice,
        "automatic": finding.repair is not None,
    }
    if outcome:
        record["outcome"] = outcome
    return record


def _show(records: "Sequence[Record]", form: object) -> None:
    from deltaplane.cli import output as out

    if form is not out.Format.TABLE:
        out.show(records, out.Format(str(form)))
        return
    for record in records:
        node = f" on {record['node']}" if record["node"] else ""
        how = "--repair does it" if record["automatic"] else BY_HAND
        sys.stdout.write(f"{record['kind']}{node}\n")
        sys.stdout.write(f"  {record['subject']}: {record['seen']}\n")
        sys.stdout.write(f"  {record['meaning']}\n")
        sys.stdout.write(f"  repair: {record['repair']} ({record.get('outcome', how)})\n")


def _summary(look: "Look", left: "Look", *, repair: bool) -> str:
    stored = look.stored
    seen = (
        f"{len(look.views)} of {len(stored.nodes)} nodes, {len(stored.endpoints)} endpoints and "
        f"{len(stored.blocks)} blocks at revision {stored.revision}"
    )
    count = len(look.findings)
    if not count:
        return f"nothing disagrees: {seen}"
    if repair:
        return f"{count} disagreements, {len(left.findings)} left: {seen}"
    automatic = sum(finding.repair is not None for finding in look.findings)
    return f"{count} disagreements, --repair can end {automatic}: {seen}"

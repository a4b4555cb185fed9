"""`deltaplane policy simulate`: what would change between the pods that are there now?"""

from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.getting import connected
from deltaplane.cli.options import Files, Output

if TYPE_CHECKING:
    from deltaplane.cli.differences import Difference, End
    from deltaplane.cli.output import Record


def simulate(
    context: typer.Context,
    files: Files,
    *,
    delete: Annotated[
        bool, typer.Option("--delete", help="As if the policies of the files were deleted.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Pairs to list.", min=1, max=1000)] = 50,
    output: Output = "table",
) -> None:
    """List which connections between present pods would begin or cease to be allowed.

    Nothing is written. Pods of one identity are one line, with an example; addresses outside the
    cluster stand for the prefixes of the files' policies, and for all others. Policies under audit
    change nothing.

    Example: deltaplane policy simulate -f new.yaml
    """
    from deltaplane.cli import differences, world
    from deltaplane.cli import output as out
    from deltaplane.cli.policing import read
    from deltaplane.policy.simulate import simulate as compare

    form = out.choose(output)
    given = read(files)
    with connected(context) as client:
        known = world.load(client)
    after = world.changed(known, given, delete=delete)
    parties = differences.parties(known, after)
    simulation = compare(known.policies, after, parties)
    found = differences.grouped(known, simulation.changes)
    if form is not out.Format.TABLE:
        out.show_one(
            {
                "complete": simulation.complete,
                "pairs": len(found),
                "changes": [record(item) for item in found[:limit]],
            },
            form,
        )
        return
    out.show([row(item) for item in found[:limit]], form, empty="nothing would change")
    if len(found) > limit:
        typer.echo(f"and {len(found) - limit} more pairs; --limit shows more")
    if not simulation.complete:
        typer.echo("there may be more: the search ended at its limit")


def row(item: "Difference") -> "Record":
    """One line of the table."""
    return {
        "then": "allowed" if item.allowed else "denied",
        "from": _shown(item.source),
        "to": _shown(item.destination),
        "what": item.traffic,
    }


def _shown(end: "End") -> str:
    if not end.pods:
        return f"{end.labels} ({', '.join(end.examples)})"
    plural = "pod" if end.pods == 1 else "pods"
    return f"{end.labels} ({end.pods} {plural}: {', '.join(end.examples)})"


def record(item: "Difference") -> "Record":
    """One pair for programs."""
    return {
        "allowed": item.allowed,
        "from": _end(item.source),
        "to": _end(item.destination),
        "traffic": [
            {"protocol": ports.protocol.name, "first": ports.first, "last": ports.last}
            for ports in item.ports
        ],
    }


def _end(end: "End") -> "Record":
    return {
        "identity": end.identity,
        "labels": end.labels,
        "pods": end.pods,
        "examples": list(end.examples),
    }

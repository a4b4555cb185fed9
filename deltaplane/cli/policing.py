"""`deltaplane policy`: write policies and see when they are in force."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.getting import connected
from deltaplane.cli.options import Files

if TYPE_CHECKING:
    from deltaplane.cli.client import Client
    from deltaplane.cli.enforcement import AnyPolicy
    from deltaplane.cli.output import Format

app = typer.Typer(
    help="Apply or delete policies and wait until they are enforced.", no_args_is_help=True
)

Wait = Annotated[bool, typer.Option("--wait", help="Until every node enforces it.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait.", min=0.1)]
Lines = Annotated[
    str, typer.Option("--output", "-o", help="table, or json: lines of it.", metavar="FORMAT")
]


@app.command("apply")
def apply_(
    context: typer.Context,
    files: Files,
    wait: Wait = False,
    timeout: Timeout = 30.0,
    output: Lines = "table",
) -> None:
    """Create or replace policies.

    Waiting shows progress: a bar on a terminal, a line for each receipt elsewhere, with -o json a
    line of JSON for each.

    Example: deltaplane policy apply -f policy.yaml --wait
    """
    from deltaplane.cli import enforcement

    form = _lines(output)
    policies = read(files)
    with connected(context) as client:
        started = time.monotonic()
        revision = enforcement.apply_policies(client, policies)
        _tell(policies, "applied", revision, form)
        _finish(client, revision, started, form, wait=wait, timeout=timeout)


@app.command()
def delete(
    context: typer.Context,
    files: Files,
    wait: Wait = False,
    timeout: Timeout = 30.0,
    output: Lines = "table",
) -> None:
    """Delete the policies that files name; absent ones are fine.

    Example: deltaplane policy delete -f policy.yaml --wait
    """
    from deltaplane.cli import enforcement

    form = _lines(output)
    policies = read(files)
    with connected(context) as client:
        started = time.monotonic()
        revision = enforcement.delete_policies(client, policies)
        _tell(policies, "deleted", revision, form)
        _finish(client, revision, started, form, wait=wait, timeout=timeout)


def read(files: list[str]) -> "tuple[AnyPolicy, ...]":
    """The policies of files.

    Raises:
        Invalid: they hold something else, or nothing.
    """
    from deltaplane.errors import Invalid
    from lab import manifests

    known = manifests.read(Path(file) for file in files)
    if known.namespaces or known.workloads or known.services or known.slices:
        raise Invalid("", "only policies; `deltaplane lab apply` takes all kinds")
    if not known.all_policies:
        raise Invalid("", f"no policy in {', '.join(files)}")
    return known.all_policies


def _lines(output: str) -> "Format":
    """The form of what is told line by line.

    Raises:
        Invalid: it cannot be told so.
    """
    from deltaplane.cli import output as out
    from deltaplane.errors import Invalid

    form = out.choose(output)
    if form is out.Format.YAML:
        raise Invalid("-o", "what comes bit by bit is a table or json")
    return form


def _tell(policies: "tuple[AnyPolicy, ...]", verb: str, revision: int, form: "Format") -> None:
    from deltaplane.cli import output as out
    from deltaplane.cli.enforcement import reference
    from deltaplane.cli.policies import title

    if form is out.Format.JSON:
        names = [reference(policy) for policy in policies]
        typer.echo(json.dumps({verb: names, "revision": revision}))
        return
    for policy in policies:
        typer.echo(f"{title(reference(policy))} {verb}")


def _finish(
    client: "Client",
    revision: int,
    started: float,
    form: "Format",
    *,
    wait: bool,
    timeout: float,
) -> None:
    from deltaplane.cli import output as out
    from deltaplane.cli.enforcement import Subject
    from deltaplane.cli.progress import show_enforcement, stream_enforcement

    subject = Subject(revision=revision)
    if form is out.Format.JSON:
        if wait:
            stream_enforcement(client, subject, started=started, seconds=timeout)
    elif wait:
        typer.echo(str(show_enforcement(client, subject, started=started, seconds=timeout)))
    else:
        typer.echo(f"stored at revision {revision}; --wait tells when it is enforced")

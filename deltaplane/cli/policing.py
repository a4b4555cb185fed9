"""`deltaplane policy`: write policies and see when they are in force."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.getting import connected
from deltaplane.cli.options import Files

if TYPE_CHECKING:
    from deltaplane.cli.client import Client
    from deltaplane.model.policy import NetworkPolicy

app = typer.Typer(
    help="Apply or delete NetworkPolicies and wait until they are enforced.", no_args_is_help=True
)

Wait = Annotated[bool, typer.Option("--wait", help="Until every node enforces it.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait.", min=0.1)]


@app.command("apply")
def apply_(
    context: typer.Context, files: Files, wait: Wait = False, timeout: Timeout = 30.0
) -> None:
    """Create or replace policies.

    Example: deltaplane policy apply -f policy.yaml --wait
    """
    from deltaplane.cli import enforcement

    policies = _read(files)
    with connected(context) as client:
        started = time.monotonic()
        revision = enforcement.apply_policies(client, policies)
        for policy in policies:
            typer.echo(f"networkpolicy {policy.reference} applied")
        _finish(client, revision, started, wait=wait, timeout=timeout)


@app.command()
def delete(
    context: typer.Context, files: Files, wait: Wait = False, timeout: Timeout = 30.0
) -> None:
    """Delete the policies that files name; absent ones are fine.

    Example: deltaplane policy delete -f policy.yaml --wait
    """
    from deltaplane.cli import enforcement

    policies = _read(files)
    with connected(context) as client:
        started = time.monotonic()
        revision = enforcement.delete_policies(client, policies)
        for policy in policies:
            typer.echo(f"networkpolicy {policy.reference} deleted")
        _finish(client, revision, started, wait=wait, timeout=timeout)


def _read(files: list[str]) -> "tuple[NetworkPolicy, ...]":
    from deltaplane.errors import Invalid
    from lab import manifests

    known = manifests.read(Path(file) for file in files)
    if known.namespaces or known.workloads:
        raise Invalid(
            "", "only NetworkPolicy objects; `deltaplane lab apply` takes the other kinds"
        )
    if not known.policies:
        raise Invalid("", f"no NetworkPolicy in {', '.join(files)}")
    return known.policies


def _finish(client: "Client", revision: int, started: float, *, wait: bool, timeout: float) -> None:
    from deltaplane.cli.progress import show_enforcement

    if wait:
        typer.echo(str(show_enforcement(client, revision, started=started, seconds=timeout)))
    else:
        typer.echo(f"stored at revision {revision}; --wait tells when it is enforced")

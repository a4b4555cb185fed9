"""`deltaplane restore`: what a restored backup of etcd needs before the services start."""

from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.options import Options, Output

if TYPE_CHECKING:
    from deltaplane.store.restoring import Finished

app = typer.Typer(
    help="Finish the restore of a backup of etcd, before services start.", no_args_is_help=True
)


@app.callback()
def group() -> None:
    """Makes `restore` a group with one command."""


@app.command()
def finish(
    context: typer.Context,
    etcd: Annotated[
        list[str],
        typer.Option("--etcd", help="The restored etcd; repeatable.", metavar="HOST:PORT"),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look, and write nothing.")] = False,
    steps: Annotated[
        int,
        typer.Option(
            help="Raise the counters by so many times 2^20: one more for each time that nodes have "
            "worked with an earlier restore of this very backup.",
            min=1,
            max=1000,
        ),
    ] = 1,
    output: Output = "table",
) -> None:
    """Write a new lineage into a restored etcd; raise the counters of identities, nodes, services.

    All services must be stopped. Fine to repeat: it does nothing while nothing has been written
    since.

    Example: deltaplane restore finish --etcd 127.0.0.1:2379
    """
    import asyncio

    from deltaplane.cli import output as out

    form = out.choose(output)
    found = asyncio.run(_finish(context.find_root().obj, etcd, steps=steps, dry_run=dry_run))
    record: out.Record = {
        "lineage_before": found.before,
        "lineage": found.lineage or "(none: dry run)",
        "identities_given": list(found.identities),
        "nodes_given": list(found.nodes),
        "services_given": list(found.services),
        "revision": found.revision,
        "repeated": found.repeated,
    }
    out.show_one(record, form)
    if found.repeated:
        typer.echo("finished already; nothing has been written since", err=True)
    elif not dry_run:
        typer.echo("finished; start the services, then restart every agent", err=True)


async def _finish(options: Options, etcd: list[str], *, steps: int, dry_run: bool) -> "Finished":
    import os

    from deltaplane.cli.context import certificate
    from deltaplane.runtime import address
    from deltaplane.runtime.roles import Role
    from deltaplane.runtime.tls import Tls
    from deltaplane.store import restoring
    from deltaplane.store.etcd import EtcdStore

    endpoints = [str(address.parse(part)) for text in etcd for part in text.split(",")]
    folder = certificate(options, os.environ)
    store = EtcdStore(endpoints, tls=Tls(folder, Role.ETCD) if folder else None)
    try:
        return await restoring.finish(store, steps=steps, dry_run=dry_run)
    finally:
        await store.close()

"""`deltaplane service`: who answers at an address, and deleting services."""

from typing import Annotated

import typer

from deltaplane.cli.getting import connected

app = typer.Typer(
    help="Trace and delete services; `deltaplane get services` lists them.", no_args_is_help=True
)


@app.command()
def delete(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAMESPACE/NAME...")],
) -> None:
    """Delete services; absent ones are fine.

    Slices that the lab has made go with them, those that somebody else has made stay.

    Example: deltaplane service delete shop/frontend
    """
    from deltaplane.cli import services
    from deltaplane.cli.context import lab_of
    from deltaplane.v1 import registry_pb2

    references = [services.split(name) for name in names]
    with connected(context) as client:
        client.registry.DeleteServices(
            registry_pb2.DeleteServicesRequest(
                services=[
                    registry_pb2.ServiceRef(namespace=ns, name=name) for ns, name in references
                ]
            )
        )
    if lab := lab_of(context.obj):
        from lab.cluster import Lab

        Lab.attach(lab).agree()
    for name in names:
        typer.echo(f"service {name} deleted")

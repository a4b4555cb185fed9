"""`deltaplane pool`: create, change and delete address pools."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.getting import connected
from deltaplane.cli.options import Output

if TYPE_CHECKING:
    from deltaplane.cli.client import Client
    from deltaplane.cli.output import Format
    from deltaplane.v1 import common_pb2, ipam_pb2

app = typer.Typer(
    help="Create, grow, drain and delete address pools; `deltaplane get pools` lists them.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the pool.")]
Ranges = Annotated[
    list[str], typer.Argument(metavar="PREFIX...", help="Ranges inside the pool, a.b.c.d/n.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Until every node does as it says.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait.", min=0.1)]


@app.command()
def create(
    context: typer.Context,
    name: Name,
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="The whole range.")],
    *,
    block_length: Annotated[
        int,
        typer.Option(
            help="Prefix length of a block: 20..30, or 112..126 for IPv6; 0: 26 or 122.",
            metavar="BITS",
        ),
    ] = 0,
    static: Annotated[
        bool, typer.Option("--static", help="One block for each node, kept while it exists.")
    ] = False,
    on_request: Annotated[
        bool, typer.Option("--on-request", help="Only for pods and nodes that name the pool.")
    ] = False,
    min_free_percent: Annotated[
        int, typer.Option(help="Share of free addresses on a node; 0: 50.", metavar="PERCENT")
    ] = 0,
    reserve: Annotated[
        list[str] | None, typer.Option(help="Range to reserve; repeatable.", metavar="PREFIX")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = 30.0,
    output: Output = "table",
) -> None:
    """Create a pool, or find the one that is there.

    Example: deltaplane pool create edge 10.250.0.0/20 --block-length 28 --reserve 10.250.0.0/28
    """
    from deltaplane.cli import output as out
    from deltaplane.v1 import ipam_pb2

    form = out.choose(output)
    request = ipam_pb2.CreatePoolRequest(
        pool=ipam_pb2.Pool(
            name=name,
            prefix=_prefix(prefix, "PREFIX"),
            block_length=block_length,
            reserved=_prefixes(reserve or (), "--reserve"),
            mode=ipam_pb2.Pool.MODE_STATIC if static else ipam_pb2.Pool.MODE_DEMAND,
            min_free_percent=min_free_percent,
            on_request=on_request,
        )
    )
    with connected(context) as client:
        started = time.monotonic()
        pool = client.ipam.CreatePool(request).pool
        _show(pool, form)
        if wait:
            _await(client, pool.meta.mod_revision, started, timeout)


@app.command()
def grow(
    context: typer.Context,
    name: Name,
    prefix: Annotated[
        str, typer.Argument(metavar="PREFIX", help="New range; contains the present one.")
    ],
    *,
    wait: Wait = False,
    timeout: Timeout = 30.0,
    output: Output = "table",
) -> None:
    """Give a pool a larger range. Blocks stay where they are; a pool never shrinks.

    Example: deltaplane pool grow ipv4 10.244.0.0/15 --wait
    """
    from deltaplane.v1 import ipam_pb2

    request = ipam_pb2.UpdatePoolRequest(name=name, grow_to=_prefix(prefix, "PREFIX"))
    _update(context, request, output, wait=wait, timeout=timeout)


@app.command()
def reserve(
    context: typer.Context,
    name: Name,
    ranges: Ranges,
    *,
    wait: Wait = False,
    timeout: Timeout = 30.0,
    output: Output = "table",
) -> None:
    """Hold ranges back: only pods that ask for an address of them by number get it.

    Addresses in use stay with their pods until those are gone.

    Example: deltaplane pool reserve ipv4 10.244.0.0/28 10.244.7.0/24 --wait
    """
    from deltaplane.v1 import ipam_pb2

    request = ipam_pb2.UpdatePoolRequest(name=name, reserve=_prefixes(ranges, "PREFIX"))
    _update(context, request, output, wait=wait, timeout=timeout)


@app.command()
def unreserve(
    context: typer.Context,
    name: Name,
    ranges: Ranges,
    *,
    wait: Wait = False,
    timeout: Timeout = 30.0,
    output: Output = "table",
) -> None:
    """Give reserved ranges back, as they were reserved.

    Example: deltaplane pool unreserve ipv4 10.244.7.0/24
    """
    from deltaplane.v1 import ipam_pb2

    request = ipam_pb2.UpdatePoolRequest(name=name, unreserve=_prefixes(ranges, "PREFIX"))
    _update(context, request, output, wait=wait, timeout=timeout)


@app.command()
def drain(
    context: typer.Context,
    name: Name,
    wait: Wait = False,
    timeout: Timeout = 30.0,
    output: Output = "table",
) -> None:
    """Give out nothing of a pool any more; what is in use stays.

    With --wait it ends when every node has said that it hands out nothing of the pool.

    Example: deltaplane pool drain ipv4 --wait
    """
    from deltaplane.v1 import ipam_pb2

    request = ipam_pb2.UpdatePoolRequest(name=name, draining=True)
    _update(context, request, output, wait=wait, timeout=timeout)


@app.command()
def undrain(
    context: typer.Context,
    name: Name,
    wait: Wait = False,
    timeout: Timeout = 30.0,
    output: Output = "table",
) -> None:
    """Give out addresses of a pool again.

    Example: deltaplane pool undrain ipv4
    """
    from deltaplane.v1 import ipam_pb2

    request = ipam_pb2.UpdatePoolRequest(name=name, draining=False)
    _update(context, request, output, wait=wait, timeout=timeout)


@app.command("set")
def set_(
    context: typer.Context,
    name: Name,
    *,
    min_free_percent: Annotated[
        int | None,
        typer.Option(help="Share of free addresses on a node, 1..100.", metavar="PERCENT"),
    ] = None,
    on_request: Annotated[
        bool | None,
        typer.Option("--on-request/--for-all", help="Who gets addresses without naming it."),
    ] = None,
    wait: Wait = False,
    timeout: Timeout = 30.0,
    output: Output = "table",
) -> None:
    """Change how nodes use a pool.

    Example: deltaplane pool set ipv4 --min-free-percent 25 --for-all
    """
    from deltaplane.errors import Invalid
    from deltaplane.v1 import ipam_pb2

    if min_free_percent is None and on_request is None:
        raise Invalid("", "give --min-free-percent, --on-request or --for-all")
    request = ipam_pb2.UpdatePoolRequest(
        name=name, min_free_percent=min_free_percent, on_request=on_request
    )
    _update(context, request, output, wait=wait, timeout=timeout)


@app.command()
def delete(context: typer.Context, name: Name, wait: Wait = False, timeout: Timeout = 30.0) -> None:
    """Delete a pool of which no node owns a block; an absent one is fine.

    Example: deltaplane pool drain old --wait; deltaplane pool delete old
    """
    from deltaplane.v1 import ipam_pb2

    with connected(context) as client:
        started = time.monotonic()
        revision = client.ipam.DeletePool(ipam_pb2.DeletePoolRequest(name=name)).revision
        typer.echo(f"pool {name} deleted")
        if wait:
            _await(client, revision, started, timeout)


def _update(
    context: typer.Context,
    request: "ipam_pb2.UpdatePoolRequest",
    output: str,
    *,
    wait: bool,
    timeout: float,
) -> None:
    from deltaplane.cli import output as out

    form = out.choose(output)
    with connected(context) as client:
        started = time.monotonic()
        pool = client.ipam.UpdatePool(request).pool
        _show(pool, form)
        if wait:
            _await(client, pool.meta.mod_revision, started, timeout)


def _show(pool: "ipam_pb2.Pool", form: "Format") -> None:
    from deltaplane.cli import output as out
    from deltaplane.cli import rows

    out.show([rows.pool_settings(pool)], form)


def _await(client: "Client", revision: int, started: float, seconds: float) -> None:
    from deltaplane.cli.enforcement import Subject
    from deltaplane.cli.progress import show_enforcement

    receipt = show_enforcement(client, Subject(revision=revision), started=started, seconds=seconds)
    # Not standard output, which may have JSON.
    typer.echo(str(receipt), err=True)


def _prefixes(texts: Iterable[str], field: str) -> "list[common_pb2.Prefix]":
    return [_prefix(text, field) for text in texts]


def _prefix(text: str, field: str) -> "common_pb2.Prefix":
    from deltaplane import wire
    from deltaplane.errors import Invalid
    from deltaplane.model.addresses import Prefix

    try:
        return wire.prefix_to_proto(Prefix.parse(text))
    except ValueError as error:
        raise Invalid(field, str(error)) from error

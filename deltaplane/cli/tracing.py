"""`deltaplane trace`: where the time between an ADD and the other nodes' kernels went."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.getting import connected, list_endpoints
from deltaplane.cli.options import Output

if TYPE_CHECKING:
    from deltaplane.cli.client import Client
    from deltaplane.cli.output import Record
    from deltaplane.cli.traces import Arrival, Span

app = typer.Typer(help="Follow a sampled request through all processes.", no_args_is_help=True)

Admins = Annotated[
    list[str],
    typer.Option(
        "--admin",
        help="Admin address of a service or agent to ask, http://host:port or unix:/path; "
        "repeatable. Default: all processes of the lab.",
        metavar="URL",
    ),
]


@app.callback()
def group() -> None:
    """Makes `trace` a group with one command."""


@app.command()
def pod(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAMESPACE/NAME")],
    admin: Admins = [],  # noqa: B006 - typer copies it
    output: Output = "table",
) -> None:
    """Show the stages of a pod's ADD, and when other nodes' kernels had its addresses.

    The ADD must have been sampled (--trace-ratio of the agents; a lab traces every one), and not
    so long ago that the processes have forgotten it.

    Example: deltaplane trace pod shop/cart-1
    """
    from deltaplane.cli import output as out
    from deltaplane.cli import traces
    from deltaplane.cli.context import admins
    from deltaplane.errors import NotFound, Refused

    form = out.choose(output)
    with connected(context) as client:
        trace_id = _trace_of(client, name)
    known = {url: url for url in admin} or admins(context.obj)
    if not known:
        raise Refused("name the admin addresses of services and agents: --admin URL, repeated")
    spans, silent = _collect(known, trace_id)
    for process, reason in silent.items():
        typer.echo(f"{process} is not asked: {reason}", err=True)
    start = traces.beginning(spans)
    if start is None:
        raise NotFound(
            f"no process that was asked has the ADD of {name} (trace {trace_id}) any more: it has "
            "restarted, or has traced much else since"
        )
    _show(name, trace_id, spans, start, form)


def _trace_of(client: "Client", name: str) -> str:
    """The trace that registered a pod.

    Raises:
        Invalid: it is no name of a pod.
        NotFound: it has no endpoint, or the ADD was not traced.
    """
    from deltaplane.errors import Invalid, NotFound
    from deltaplane.runtime import trace

    namespace, slash, pod_name = name.partition("/")
    if not slash:
        raise Invalid("", f"{name!r}: write it as NAMESPACE/NAME")
    found = list_endpoints(client, namespace=namespace, pod=pod_name)
    if not found:
        raise NotFound(f"there is no endpoint of a pod {name}; see `deltaplane get endpoints`")
    newest = max(found, key=lambda item: item.meta.mod_revision)
    parsed = trace.parse(newest.traceparent)
    if parsed is None or not parsed.sampled:
        raise NotFound(
            f"the ADD of {name} was not traced; --trace-ratio of the agents says how many are, and "
            "`always` traces the next ones"
        )
    return parsed.trace_id


def _collect(known: Mapping[str, str], trace_id: str) -> "tuple[list[Span], dict[str, str]]":
    """Spans of a trace, and why some processes tell none.

    Raises:
        Invalid: an address is none.
        Unavailable: nobody answers.
    """
    from concurrent.futures import ThreadPoolExecutor

    from deltaplane.cli import admin, traces
    from deltaplane.errors import Internal, NotFound, Unavailable

    def ask(where: str) -> "list[Span] | str":
        try:
            answer = admin.get(where, f"/traces?trace={trace_id}")
        except (Internal, NotFound, Unavailable) as error:
            return str(error)
        return traces.read(answer, trace_id) if answer["ratio"] else "it traces nothing"

    spans: list[Span] = []
    silent: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=16) as threads:
        for process, answer in zip(known, threads.map(ask, known.values()), strict=True):
            if isinstance(answer, str):
                silent[process] = answer
            else:
                spans += answer
    if len(silent) == len(known):
        raise Unavailable("; ".join(f"{process}: {reason}" for process, reason in silent.items()))
    return spans, silent


def _show(name: str, trace_id: str, spans: "list[Span]", start: "Span", form: str) -> None:
    from dataclasses import asdict

    from deltaplane.cli import output as out
    from deltaplane.cli import traces

    stages = traces.rows(spans, start)
    arrival = traces.arrival(spans, start)
    if form is not out.Format.TABLE:
        record: Record = {
            "pod": name,
            "trace": trace_id,
            "node": start.instance,
            "start_unix_ns": start.start_ns,
            "stages": [asdict(row) for row in stages],
            "other_nodes_ms": dict(arrival.at_ms) if arrival else {},
            **({} if arrival is None else _summary(arrival)),
        }
        out.show_one(record, out.Format(form))
        return
    typer.echo(f"trace {trace_id}: ADD of {name} on {start.instance}")
    out.show(
        [
            {
                "stage": "  " * row.depth + row.stage,
                "where": row.where,
                "at_ms": row.at_ms,
                "took_ms": row.took_ms,
                "notes": row.note,
            }
            for row in stages
        ],
        out.Format.TABLE,
    )
    if arrival is None:
        typer.echo("in no other node's kernel so far, as far as was asked")
    else:
        typer.echo(
            f"in the kernels of {len(arrival.at_ms)} other nodes: first {arrival.first:.1f} ms, "
            f"p50 {arrival.p50:.1f} ms, last {arrival.last:.1f} ms after ADD began"
        )


def _summary(arrival: "Arrival") -> "Record":
    return {"first_ms": arrival.first, "p50_ms": arrival.p50, "last_ms": arrival.last}

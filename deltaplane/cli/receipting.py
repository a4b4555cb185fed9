"""`deltaplane get receipts` of one policy, endpoint or revision."""

import time

import typer

from deltaplane.cli import enforcement, progress
from deltaplane.cli import output as out
from deltaplane.cli.enforcement import Subject
from deltaplane.cli.getting import connected
from deltaplane.errors import Invalid, Unavailable


def one(
    context: typer.Context, kind: str, name: str, output: str, *, wait: bool, timeout: float
) -> None:
    """Shows the receipt of one thing; wait: receipts until it is in force everywhere.

    Raises:
        Invalid: nothing is named that has receipts.
        NotFound: there is no such policy or endpoint.
        Unavailable: not in time.
    """
    form = out.choose(output)
    if not kind:
        raise Invalid("--wait", "name what to wait for: policy, endpoint or revision")
    subject = Subject.read(kind, name)
    if wait and form is out.Format.YAML:
        raise Invalid("-o", "what comes bit by bit is a table or json")
    started = time.monotonic()
    with connected(context) as client:
        if not wait:
            found = list(
                enforcement.follow(client, subject, started=started, wait=False, seconds=timeout)
            )
            if not found:
                raise Unavailable("the slicer ended without a receipt")
            out.show_one(progress.as_record(subject, found[-1]), form)
        elif form is out.Format.JSON:
            progress.stream_enforcement(client, subject, started=started, seconds=timeout)
        else:
            last = progress.show_enforcement(client, subject, started=started, seconds=timeout)
            typer.echo(f"{subject}: {last}")

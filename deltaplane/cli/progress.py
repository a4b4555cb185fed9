"""Progress of an enforcement: a bar on a terminal, a line for each receipt elsewhere."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from deltaplane.cli.client import Client
from deltaplane.cli.enforcement import Receipt, Subject, await_enforced
from deltaplane.cli.output import Record

Tell = Callable[[Receipt], None]


def show_enforcement(
    client: Client,
    subject: Subject,
    *,
    started: float,
    seconds: float,
    console: Console | None = None,
) -> Receipt:
    """Waits until something is in force everywhere; the last receipt is the caller's to show.

    Raises:
        NotFound: there is no such policy or endpoint.
        Unavailable: not in time.
    """
    with _watching(console or Console(stderr=True)) as tell:
        return await_enforced(client, subject, started=started, tell=tell, seconds=seconds)


def stream_enforcement(
    client: Client, subject: Subject, *, started: float, seconds: float
) -> Receipt:
    """Waits, and writes every receipt as a line of JSON to standard output, the last one included.

    Raises:
        NotFound: there is no such policy or endpoint.
        Unavailable: not in time.
    """

    def tell(receipt: Receipt) -> None:
        sys.stdout.write(json.dumps(as_record(subject, receipt)) + "\n")
        # Whoever reads a stream wants it now.
        sys.stdout.flush()

    return await_enforced(client, subject, started=started, tell=tell, seconds=seconds)


def as_record(subject: Subject, receipt: Receipt) -> Record:
    """A receipt for programs."""
    return {
        "subject": str(subject),
        "revision": receipt.revision,
        "enforced": receipt.enforced,
        "nodes": receipt.total,
        "complete": receipt.complete,
        "missing": list(receipt.missing),
        "milliseconds": round(receipt.milliseconds, 1),
    }


@contextlib.contextmanager
def _watching(console: Console) -> Iterator[Tell]:
    if not console.is_terminal:

        def line(receipt: Receipt) -> None:
            if not receipt.complete:
                console.print(str(receipt), highlight=False, markup=False, soft_wrap=True)

        yield line
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} nodes"),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("enforcing", total=1)
        yield lambda receipt: bar.update(
            task, completed=receipt.enforced, total=max(1, receipt.total)
        )

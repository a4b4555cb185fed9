"""Progress on the terminal."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from deltaplane.cli.client import Client
from deltaplane.cli.enforcement import Receipt, await_enforced


def show_enforcement(
    client: Client, revision: int, *, started: float, seconds: float, console: Console | None = None
) -> Receipt:
    """Waits until a revision is in force everywhere, with a bar of nodes; returns the last receipt.

    Raises:
        Unavailable: not in time.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} nodes"),
        console=console or Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("enforcing", total=1)

        def tell(receipt: Receipt) -> None:
            bar.update(task, completed=receipt.enforced, total=max(1, receipt.total))

        return await_enforced(client, revision, started=started, tell=tell, seconds=seconds)

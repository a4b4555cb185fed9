"""A probe as a table: who reaches whom. Pure but for rich's types."""

from collections import Counter
from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table

from lab.pods import Pod
from lab.probing import Row

ALL = "[green]●[/]"
SOME = "[yellow]◐[/]"
NONE = "[red]·[/]"
SELF = "[dim]-[/]"


def cell(allowed: int, asked: int) -> str:
    """One pair: everything, nothing, or some of its probes are allowed."""
    if asked == 0:
        return " "
    if allowed == asked:
        return ALL
    return NONE if allowed == 0 else SOME


def table(rows: Iterable[Row], pods: Sequence[Pod], title: str) -> Table:
    """One line per source, one column per destination, in the order of the pods."""
    asked: Counter[tuple[str, str]] = Counter()
    allowed: Counter[tuple[str, str]] = Counter()
    for row in rows:
        asked[row.source, row.destination] += 1
        allowed[row.source, row.destination] += row.allowed
    names = [pod.reference for pod in pods]
    result = Table(
        title=title,
        caption=f"{ALL} all ports, both families   {SOME} some   {NONE} none",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        padding=(0, 0, 0, 1),
    )
    result.add_column("FROM \\ TO", no_wrap=True)
    for number, _ in enumerate(names, start=1):
        result.add_column(str(number), justify="center", no_wrap=True)
    for number, source in enumerate(names, start=1):
        cells = [
            SELF if source == destination else cell(allowed[pair], asked[pair])
            for destination in names
            for pair in [(source, destination)]
        ]
        result.add_row(f"{number:2} {source}", *cells)
    return result

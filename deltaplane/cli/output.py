"""How answers are printed: tables for people, JSON and YAML for programs."""

import enum
import json
import sys
from collections.abc import Mapping, Sequence

import yaml
from rich import box
from rich.console import Console
from rich.table import Table

from deltaplane.errors import Invalid

Value = str | int | float | bool | Sequence["Value"] | Mapping[str, "Value"]
Record = Mapping[str, Value]


class Format(enum.StrEnum):
    """Output formats."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def choose(text: str) -> Format:
    """The format of an -o option.

    Raises:
        Invalid: there is no such format.
    """
    try:
        return Format(text)
    except ValueError:
        raise Invalid("-o", f"{text!r} is none of {', '.join(Format)}") from None


def show(records: Sequence[Record], form: Format, *, empty: str = "nothing found") -> None:
    """Prints records; a table has one column for each key of the first record."""
    match form:
        case Format.JSON:
            sys.stdout.write(json.dumps(list(records), indent=2) + "\n")
        case Format.YAML:
            sys.stdout.write(yaml.safe_dump(list(records), sort_keys=False))
        case Format.TABLE:
            show_table(records, empty)


def show_one(record: Record, form: Format) -> None:
    """Prints one record as JSON or YAML; as a table, one line per field."""
    match form:
        case Format.JSON:
            sys.stdout.write(json.dumps(record, indent=2) + "\n")
        case Format.YAML:
            sys.stdout.write(yaml.safe_dump(record, sort_keys=False))
        case Format.TABLE:
            table = Table(box=None, show_header=False, pad_edge=False)
            for key, value in record.items():
                table.add_row(f"[bold]{key}[/]", cell(value, separator="\n"))
            console().print(table)


def show_table(records: Sequence[Record], empty: str) -> None:
    """Prints a table, or a sentence when there is nothing to put in."""
    if not records:
        sys.stderr.write(f"{empty}\n")
        return
    console().print(table_of(records))


def table_of(records: Sequence[Record]) -> Table:
    """One line per record, one column per key of the first; numbers to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for key, value in records[0].items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        table.add_column(key.replace("_", " ").upper(), justify="right" if is_number else "left")
    for record in records:
        table.add_row(*(cell(value) for value in record.values()))
    return table


def cell(value: Value, *, separator: str = ", ") -> str:
    """A value as text; lists and mappings on one line, rich's markup escaped."""
    match value:
        case bool():
            text = "yes" if value else "no"
        case float():
            text = f"{value:.1f}"
        case str() | int():
            text = str(value)
        case Mapping():
            text = separator.join(f"{key}={cell(item)}" for key, item in value.items())
        case _:
            text = separator.join(cell(item) for item in value)
    return text.replace("[", "\\[") if isinstance(value, str) else text


def console(width: int = 250) -> Console:
    """Standard output; what is no terminal gets lines of that width instead of wrapped ones."""
    return Console() if sys.stdout.isatty() else Console(width=width)

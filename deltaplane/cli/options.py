"""Options that commands share."""

from typing import Annotated

import typer

Output = Annotated[
    str, typer.Option("--output", "-o", help="table, json or yaml.", metavar="FORMAT")
]
Files = Annotated[
    list[str],
    typer.Option("--filename", "-f", help="Kubernetes YAML; repeatable; - is standard input."),
]
LabName = Annotated[
    str,
    typer.Option(
        "--name",
        help="The lab; default: $DELTAPLANE_LAB, or the only one.",
        metavar="LAB",
        show_default=False,
    ),
]

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
Routing = Annotated[
    str,
    typer.Option(
        help="How pods of different nodes meet: native (routed on the uplinks' network) or vxlan.",
        metavar="native|vxlan",
    ),
]
Mtu = Annotated[int, typer.Option(help="Bytes of a packet on the uplinks.", metavar="BYTES")]
LabName = Annotated[
    str,
    typer.Option(
        "--name",
        help="The lab; default: $DELTAPLANE_LAB, or the only one.",
        metavar="LAB",
        show_default=False,
    ),
]

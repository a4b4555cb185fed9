"""Options that commands share."""

from collections.abc import Mapping
from dataclasses import dataclass
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
ExternalMode = Annotated[
    str,
    typer.Option(
        help="Who answers clients outside for a backend on another node: the one that they have "
        "asked (snat), or that other one (dsr).",
        metavar="snat|dsr",
    ),
]
Mtu = Annotated[int, typer.Option(help="Bytes of a packet on the uplinks.", metavar="BYTES")]
Tls = Annotated[
    bool,
    typer.Option(
        "--tls/--no-tls",
        envvar="DELTAPLANE_TLS",
        help="Mutual TLS between all processes, with certificates of a CA of the lab's own.",
    ),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options that every command has.

    Attributes:
        lab: lab whose services to use; empty: the environment's, or the only one that runs.
        targets: service → gRPC target, only those that were given.
        tls_dir: folder with our certificate; empty: the environment's, or the lab's own.
        insecure: in plain text, where services are named.
    """

    lab: str = ""
    targets: Mapping[str, str]
    tls_dir: str = ""
    insecure: bool = False

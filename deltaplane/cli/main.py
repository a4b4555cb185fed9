"""Entry point of the `deltaplane` command."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from deltaplane.cli import (
    auditing,
    bridging,
    bundling,
    certificates,
    checking,
    describing,
    doctoring,
    explaining,
    getting,
    labbing,
    noding,
    policing,
    pooling,
    reporting,
    restoring,
    servicing,
    simulating,
    standing,
    tracing,
)
from deltaplane.cli.options import Options
from deltaplane.errors import DeltaplaneError, Unavailable

EXIT_FAILED = 1
EXIT_UNREACHABLE = 3

HELP = """The pod network: who is there, who may talk, and on which nodes that is enforced.

Commands ask the services of a lab on this machine, or those named by --registry, --ipam and
--slicer, with the certificate in --tls-dir.
"""

EPILOG = """
Examples:

  deltaplane lab up --nodes 3

  deltaplane lab apply -f examples/shop.yaml

  deltaplane get endpoints -o json

  deltaplane policy apply -f policy.yaml --wait

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a service is not reachable.
"""

GLOBAL_OPTIONS = ("--lab", "--registry", "--ipam", "--slicer", "--tls-dir")
GLOBAL_SWITCHES = ("--insecure",)

app = typer.Typer(
    name="deltaplane",
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Boxes and colours in help texts would double the time of `--help`, and of each completion.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
app.add_typer(labbing.app, name="lab")
app.add_typer(getting.app, name="get")
app.add_typer(describing.app, name="describe")
app.add_typer(certificates.app, name="certs")
app.add_typer(noding.app, name="node")
app.add_typer(policing.app, name="policy")
app.add_typer(bridging.app, name="bridge")
app.add_typer(checking.app, name="ipam")
app.add_typer(pooling.app, name="pool")
app.add_typer(restoring.app, name="restore")
app.add_typer(servicing.app, name="service")
app.add_typer(tracing.app, name="trace")
policing.app.command("status")(standing.status)
policing.app.command("audit")(auditing.audit)
policing.app.command("explain")(explaining.explain)
policing.app.command("simulate")(simulating.simulate)
app.command("status")(reporting.status)
app.command("doctor")(doctoring.doctor)
app.command("bundle")(bundling.bundle)
app.command("demo")(labbing.demo)


@app.callback()
def root(
    context: typer.Context,
    lab: Annotated[str, typer.Option(help="Use the services of this lab.", metavar="LAB")] = "",
    registry: Annotated[
        str, typer.Option(help="Target of services/endpoints.", metavar="TARGET")
    ] = "",
    ipam: Annotated[str, typer.Option(help="Target of services/ipam.", metavar="TARGET")] = "",
    slicer: Annotated[str, typer.Option(help="Target of services/slicer.", metavar="TARGET")] = "",
    *,
    tls_dir: Annotated[
        str,
        typer.Option(
            "--tls-dir",
            help="Folder with ca.crt, tls.crt and tls.key of the role admin.",
            metavar="DIR",
        ),
    ] = "",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Talk to the named services in plain text.")
    ] = False,
) -> None:
    """Keeps the options that every command has."""
    given = {"registry": registry, "ipam": ipam, "slicer": slicer}
    context.obj = Options(lab=lab, targets=given, tls_dir=tls_dir, insecure=insecure)


def hoist(arguments: Sequence[str]) -> list[str]:
    """Moves the options of every command to the front, where the parser wants them.

    `deltaplane get nodes --lab mine` is what people type. What follows "--" is somebody else's.
    """
    front: list[str] = []
    rest: list[str] = []
    items = iter(arguments)
    for item in items:
        name, equals, _ = item.partition("=")
        if item == "--":
            rest += [item, *items]
        elif item in GLOBAL_SWITCHES:
            front.append(item)
        elif name in GLOBAL_OPTIONS:
            front += (
                [item] if equals else [item, *(value for _, value in zip("1", items, strict=False))]
            )
        else:
            rest.append(item)
    return front + rest


def main() -> None:
    """Runs the command line; errors of our tree become one message and an exit code."""
    sys.argv[1:] = hoist(sys.argv[1:])
    try:
        app()
    except DeltaplaneError as error:
        sys.stderr.write(f"deltaplane: {error}\n")
        sys.exit(EXIT_UNREACHABLE if isinstance(error, Unavailable) else EXIT_FAILED)
    except BrokenPipeError:
        # The reader of our output has seen enough.
        sys.stderr.close()
        sys.exit(EXIT_FAILED)
    except OSError as error:
        sys.stderr.write(f"deltaplane: {error}\n")
        sys.exit(EXIT_FAILED)

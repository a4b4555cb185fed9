"""`deltaplane certs`: a CA, and a certificate for each process."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.options import Output

if TYPE_CHECKING:
    from deltaplane.certs.issuing import Description
    from deltaplane.cli.output import Record

app = typer.Typer(help="Make certificates: a CA, and one for each process.", no_args_is_help=True)

Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the CA is kept.")],
    days: Annotated[int, typer.Option(help="For how many days.")] = 3650,
    force: Force = False,
    output: Output = "table",
) -> None:
    """Make a CA: DIR/ca.crt, and DIR/ca.key, which belongs on no node.

    Example: deltaplane certs init ca
    """
    from deltaplane.certs import files, issuing
    from deltaplane.cli import output as out
    from deltaplane.runtime.tls import CA

    form = out.choose(output)
    made = files.make_authority(folder, days=days, force=force)
    out.show_one(_record(folder / CA, issuing.describe(made.certificate)), form)


@app.command()
def issue(
    ca: Annotated[Path, typer.Argument(metavar="DIR", help="Where the CA is kept.")],
    role: Annotated[
        str, typer.Argument(help="ipam, endpoints, slicer, bridge, etcd, admin or node.")
    ],
    into: Annotated[
        Path, typer.Option("--out", help="Folder for ca.crt, tls.crt and tls.key.", metavar="DIR")
    ],
    *,
    node: Annotated[str, typer.Option(help="Name of the node; with role node.")] = "",
    dns: Annotated[
        list[str] | None, typer.Option("--dns", help="A further DNS name; repeatable.")
    ] = None,
    ip: Annotated[
        list[str] | None, typer.Option("--ip", help="An address of the server; repeatable.")
    ] = None,
    days: Annotated[int, typer.Option(help="For how many days.")] = 365,
    force: Force = False,
    output: Output = "table",
) -> None:
    """Make a certificate for a process, or for you: role admin.

    Example: deltaplane certs issue ca node --node worker-7 --out worker-7
    """
    from deltaplane.certs import files, issuing
    from deltaplane.cli import output as out
    from deltaplane.errors import Invalid
    from deltaplane.runtime.roles import Peer, Role
    from deltaplane.runtime.tls import CERTIFICATE

    form = out.choose(output)
    if role not in list(Role):
        raise Invalid("ROLE", f"{role!r} is none of {', '.join(Role)}")
    wanted = issuing.Wanted(
        peer=Peer(Role(role), node), dns=tuple(dns or ()), ips=tuple(ip or ()), days=days
    )
    made = files.make(files.read_authority(ca), wanted, into, force=force)
    out.show_one(_record(into / CERTIFICATE, issuing.describe(made.certificate)), form)


@app.command("node-ca")
def node_ca(
    ca: Annotated[Path, typer.Argument(metavar="DIR", help="Where the CA is kept.")],
    into: Annotated[
        Path, typer.Option("--out", help="Folder for ca.crt, tls.crt and tls.key.", metavar="DIR")
    ],
    *,
    days: Annotated[int, typer.Option(help="For how many days.")] = 1825,
    force: Force = False,
    output: Output = "table",
) -> None:
    """Make a CA for the bridge, which makes nodes' certificates with it and none of anybody else.

    Example: deltaplane certs node-ca ca --out node-ca
    """
    from deltaplane.certs import files, issuing
    from deltaplane.cli import output as out
    from deltaplane.runtime.tls import CERTIFICATE

    form = out.choose(output)
    made = files.make_node_authority(files.read_authority(ca), into, days=days, force=force)
    out.show_one(_record(into / CERTIFICATE, issuing.describe(made.certificate)), form)


@app.command()
def request(
    node: Annotated[
        str, typer.Option(envvar="DELTAPLANE_NODE_NAME", help="Name of the node we run on.")
    ],
    into: Annotated[
        Path, typer.Option("--out", help="Folder for ca.crt, tls.crt and tls.key.", metavar="DIR")
    ],
    ca: Annotated[Path, typer.Option(help="Who is believed in, PEM.", metavar="FILE")],
    *,
    servers: Annotated[
        str,
        typer.Option(
            "--api-server",
            envvar="DELTAPLANE_API_SERVER",
            help="API servers, host:port, with commas; none: as the pod is told.",
            metavar="TARGETS",
        ),
    ] = "",
    account: Annotated[
        Path, typer.Option(help="Folder with ca.crt and token of a pod.", metavar="DIR")
    ] = Path("/var/run/secrets/kubernetes.io/serviceaccount"),
    timeout: Annotated[float, typer.Option(help="Seconds to wait for it.")] = 300.0,
    output: Output = "table",
) -> None:
    """Get this node's certificate from the bridge, in a pod of the agent. The key stays here.

    Where there is one with more than a third of its time left, nothing happens.

    Example: deltaplane certs request --node worker-7 --ca /ca/ca.crt --out /etc/deltaplane/tls
    """
    import asyncio

    from deltaplane.certs import issuing
    from deltaplane.certs.renewal import Renewal
    from deltaplane.cli import output as out
    from deltaplane.cli import requesting
    from deltaplane.runtime.roles import Peer, Role
    from deltaplane.runtime.tls import CERTIFICATE
    from services.kubernetes.api import kubeconfig

    form = out.choose(output)
    into.mkdir(parents=True, exist_ok=True)
    renewal = Renewal(into, Peer(Role.NODE, node), ca.read_bytes())
    if reason := renewal.reason(issuing.now()):
        if servers:
            connections = [kubeconfig.with_account(it, account) for it in servers.split(",")]
        else:
            connections = [kubeconfig.find(os.environ, account=account)]
        _say(f"asking for a certificate: {reason}")
        asyncio.run(requesting.obtain(renewal, connections, seconds=timeout, say=_say))
    file = into / CERTIFICATE
    out.show_one(_record(file, issuing.describe(file.read_bytes())), form)


@app.command()
def show(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders to look at.")],
    output: Output = "table",
) -> None:
    """Show the certificates in folders, and how long they last. Exit code 1: one has run out.

    Example: deltaplane certs show ca slicer worker-7 -o json
    """
    from deltaplane.certs import issuing
    from deltaplane.cli import output as out
    from deltaplane.errors import NotFound
    from deltaplane.runtime.tls import CA, CERTIFICATE

    form = out.choose(output)
    records: list[Record] = []
    has_run_out = False
    for folder in folders:
        there = [path for name in (CA, CERTIFICATE) if (path := folder / name).exists()]
        if not there:
            raise NotFound(f"{folder}: there is neither {CA} nor {CERTIFICATE}")
        for path in there:
            found = issuing.describe(path.read_bytes())
            has_run_out = has_run_out or found.ends <= issuing.now()
            records.append(_record(path, found))
    out.show(records, form)
    if has_run_out:
        raise typer.Exit(1)


def _say(text: str) -> None:
    sys.stderr.write(f"deltaplane: {text}\n")
    # Whoever reads the log of a container wants it now.
    sys.stderr.flush()


def _record(path: Path, found: "Description") -> "Record":
    from deltaplane.certs import issuing

    left = (found.ends - issuing.now()).total_seconds() / 86400
    what = "ca" if found.is_authority else "(no role)"
    return {
        "file": str(path),
        "role": str(found.peer) if found.peer else what,
        "names": list(found.names),
        "expires": f"{found.ends:%Y-%m-%dT%H:%M:%SZ}",
        "days_left": max(0, int(left)),
        "issuer": found.issuer,
    }

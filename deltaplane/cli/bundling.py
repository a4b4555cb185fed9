"""`deltaplane bundle`: all that somebody else needs to look into a problem, without secrets."""

import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.doctoring import Agents, Pins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from google.protobuf.message import Message

    from deltaplane.cli.client import Client

LOG_BYTES = 1 << 20
"""Of each log, its end."""

PRIVATE_SUFFIXES = (".key", ".pem", ".p12", ".pfx", ".crt")
"""Files that are not taken, even when somebody names them."""

Source = tuple[str, "Callable[[], str]"]


def bundle(
    context: typer.Context,
    out: Annotated[
        Path, typer.Option("--out", help="The archive to write.", metavar="FILE")
    ] = Path("deltaplane-bundle.tar.gz"),
    agent: Agents = None,
    pin_dir: Pins = None,
    *,
    log: Annotated[
        list[Path] | None,
        typer.Option(help="A log or a configuration to add; repeatable.", metavar="FILE"),
    ] = None,
    admin: Annotated[
        list[str] | None,
        typer.Option(help="Admin HTTP of a process; repeatable.", metavar="ADDRESS"),
    ] = None,
) -> None:
    """Write a support bundle: versions, verdicts, what there is, metrics, ends of logs.

    Text in it is searched for keys, tokens and passwords, which are removed; still, look at it
    before you send it. In a lab, logs and admin addresses of all processes are known. What
    could not be had is named in errors.txt.

    Examples:
      deltaplane bundle

      deltaplane bundle --out case-17.tar.gz --log agent.log --admin unix:/run/deltaplane/admin.sock
    """
    from deltaplane.cli.context import admins
    from deltaplane.cli.getting import connected

    named = {where: where for where in admin or ()} or admins(context.obj)
    logs = list(log or ()) + _lab_files(context)
    with connected(context) as client:
        sources = [
            ("versions.json", _versions),
            ("doctor.json", lambda: _doctor(context, agent or [], pin_dir)),
            *_lists(client),
            *((f"metrics/{name}.txt", _metrics(where)) for name, where in named.items()),
            *((f"logs/{path.name}", _tail(path)) for path in logs),
        ]
        files = collected(sources)
    out.write_bytes(archive(files))
    out.chmod(0o600)
    typer.echo(f"{out}: {len(files)} files; look at them before you send it")


def collected(sources: "list[Source]") -> "dict[str, str]":
    """The files by name, without secrets; what failed is in errors.txt."""
    from deltaplane.cli.redaction import redacted
    from deltaplane.errors import DeltaplaneError

    files: dict[str, str] = {}
    errors: list[str] = []
    for name, read in sources:
        try:
            files[name] = redacted(read())
        except (DeltaplaneError, OSError) as error:
            errors.append(f"{name}: {redacted(str(error))}")
    if errors:
        files["errors.txt"] = "\n".join(errors) + "\n"
    return files


def archive(files: "Mapping[str, str]") -> bytes:
    """A compressed tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(f"deltaplane-bundle/{name}")
            entry.size, entry.mode = len(data), 0o600
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _versions() -> str:
    import platform
    from importlib.metadata import version

    import deltaplane

    packages = ("grpcio", "protobuf", "pydantic", "pyroute2", "cryptography")
    found = {
        "deltaplane": deltaplane.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        **{name: version(name) for name in packages},
    }
    return json.dumps(found, indent=1)


def _doctor(context: typer.Context, agents: list[str], pin_dir: Path | None) -> str:
    from deltaplane.cli import doctoring

    verdicts = [
        *doctoring.of_machine(context.obj.tls_dir, pin_dir),
        *doctoring.of_cluster(context, agents),
    ]
    return json.dumps([item.as_record() for item in verdicts], indent=1)


def _lists(client: "Client") -> "Iterator[Source]":
    """What services have, as JSON. Pods and endpoints have names and labels: they are needed."""
    from deltaplane.v1 import ipam_pb2, registry_pb2, slicer_pb2

    registry, ipam, slicer = client.registry, client.ipam, client.slicer
    yield "nodes.json", _json(lambda: registry.ListNodes(registry_pb2.ListNodesRequest()))
    yield (
        "namespaces.json",
        _json(lambda: registry.ListNamespaces(registry_pb2.ListNamespacesRequest())),
    )
    yield "policies.json", _json(lambda: registry.ListPolicies(registry_pb2.ListPoliciesRequest()))
    yield (
        "endpoints.json",
        _json(lambda: registry.ListEndpoints(registry_pb2.ListEndpointsRequest())),
    )
    yield "services.json", _json(lambda: registry.ListServices(registry_pb2.ListServicesRequest()))
    yield "pools.json", _json(lambda: ipam.ListPools(ipam_pb2.ListPoolsRequest()))
    yield "blocks.json", _json(lambda: ipam.ListBlocks(ipam_pb2.ListBlocksRequest()))
    yield "agents.json", _json(lambda: slicer.ListAgents(slicer_pb2.ListAgentsRequest()))
    yield "quarantine.json", _json(lambda: slicer.GetQuarantine(slicer_pb2.GetQuarantineRequest()))


def _json(ask: "Callable[[], Message]") -> "Callable[[], str]":
    def read() -> str:
        from google.protobuf.json_format import MessageToJson

        return MessageToJson(ask(), preserving_proto_field_name=True)

    return read


def _metrics(where: str) -> "Callable[[], str]":
    def read() -> str:
        from deltaplane.cli import admin

        return admin.get_text(where, "/metrics")

    return read


def _tail(path: Path) -> "Callable[[], str]":
    def read() -> str:
        from deltaplane.errors import Refused

        if path.suffix in PRIVATE_SUFFIXES:
            raise Refused(f"{path} may be a key or a certificate: not taken")
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LOG_BYTES))
            return file.read().decode(errors="replace")

    return read


def _lab_files(context: typer.Context) -> list[Path]:
    from deltaplane.cli.context import lab_of
    from lab.layout import Layout

    if not (lab := lab_of(context.obj)):
        return []
    layout = Layout(lab=lab)
    return [layout.record, layout.supervisor, *sorted(layout.logs.glob("*.log"))]

"""`deltaplane doctor`: is this node, and is this cluster, as it should be?"""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deltaplane.cli.options import Output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from deltaplane.cli.client import Client
    from deltaplane.cli.diagnosis import Verdict
    from deltaplane.v1 import slicer_pb2

MOMENT_SECONDS = 1.0
"""An agent that is well acknowledges within it."""

Agents = Annotated[
    list[str] | None,
    typer.Option(
        "--agent",
        help="Target of a node's agent; repeatable. In a lab all of them are known.",
        metavar="TARGET",
    ),
]
Pins = Annotated[
    Path | None, typer.Option("--pin-dir", help="Where the agent of this node pins its maps.")
]


def doctor(
    context: typer.Context,
    agent: Agents = None,
    pin_dir: Pins = None,
    *,
    node: Annotated[
        bool, typer.Option("--node", help="This machine alone: no service is asked.")
    ] = False,
    output: Output = "table",
) -> None:
    """Check a node (kernel, pins, certificates, time) and the cluster (services, nodes, addresses).

    Changes nothing. Exit code 1 if something is ill.

    Examples:
      deltaplane doctor

      deltaplane doctor --agent unix:/run/deltaplane/agent-grpc.sock -o json

      deltaplane doctor --node --pin-dir /sys/fs/bpf/deltaplane
    """
    from deltaplane.cli import diagnosis
    from deltaplane.cli import output as out

    form = out.choose(output)
    found = list(of_machine(context.obj.tls_dir, pin_dir))
    if not node:
        found += of_cluster(context, agent or [])
    out.show([item.as_record() for item in found], form)
    ill = sum(item.health is diagnosis.Health.ILL for item in found)
    sys.stderr.write(f"{len(found)} checks, {ill} ill\n")
    if ill:
        raise typer.Exit(1)


def of_machine(tls_dir: str, pin_dir: Path | None) -> "Iterator[Verdict]":
    """What this machine itself shows."""
    import os
    import platform

    from deltaplane.cli import clocks, diagnosis
    from nodeagent.dataplane import preflight

    about = platform.node()
    yield from diagnosis.missing(
        about, [(item.what, item.how_to_get) for item in preflight.check()]
    )
    synchronised, error_seconds = clocks.synchronisation()
    yield diagnosis.clock(about, synchronised=synchronised, error_seconds=error_seconds)
    if pin_dir is not None:
        yield _pins(about, pin_dir)
    folder = tls_dir or os.environ.get("DELTAPLANE_TLS_DIR", "")
    if folder:
        yield from _certificates(about, Path(folder))


def _pins(about: str, pin_dir: Path) -> "Verdict":
    from deltaplane.cli import diagnosis
    from nodeagent.dataplane import loader

    folders = pin_dir.iterdir() if pin_dir.is_dir() else ()
    schemas = {
        folder.name: sum(1 for _ in folder.iterdir())
        for folder in folders
        if loader.is_schema_folder(folder)
    }
    return diagnosis.pins(about, schemas, loader.schema_folder(pin_dir).name)


def _certificates(about: str, folder: Path) -> "Iterator[Verdict]":
    from deltaplane.certs import issuing
    from deltaplane.cli import diagnosis
    from deltaplane.runtime.tls import CA, CERTIFICATE

    for name in (CA, CERTIFICATE):
        file = folder / name
        if file.exists():
            found = issuing.describe(file.read_bytes())
            lasts = (found.starts, found.ends)
            yield diagnosis.certificate(about, str(file), lasts, issuing.now())
        else:
            yield diagnosis.Verdict(
                about=about,
                check="certificate",
                health=diagnosis.Health.ILL,
                seen=f"there is no {file}",
                advice="deltaplane certs issue --help",
            )


def of_cluster(context: typer.Context, given: "Iterable[str]") -> "list[Verdict]":
    """What services and agents say."""
    from deltaplane.cli.context import agents
    from deltaplane.cli.getting import connected

    targets = [("", target) for target in given] or [*agents(context.obj).items()]
    found: list[Verdict] = []
    with connected(context) as client:
        for check in (_registry, _ipam, _slicer):
            found += _asked(check.__name__.strip("_"), partial(check, client))
        for name, target in targets:
            found += _asked(f"agent {name or target}", partial(_agent, client, target))
        if targets:
            found += _asked("addresses", lambda: _addresses(client, targets))
    return found


def _asked(what: str, ask: "Callable[[], Iterable[Verdict]]") -> "list[Verdict]":
    """What an answer shows, or that there was none."""
    from deltaplane.cli import diagnosis
    from deltaplane.errors import DeltaplaneError

    try:
        return list(ask())
    except DeltaplaneError as error:
        return [
            diagnosis.Verdict(
                about=diagnosis.CLUSTER,
                check=what,
                health=diagnosis.Health.ILL,
                seen=str(error),
                advice="see whether it runs, and whether it reaches etcd",
            )
        ]


def _registry(client: "Client") -> "Iterator[Verdict]":
    from deltaplane.cli import diagnosis
    from deltaplane.v1 import registry_pb2

    known = client.registry.ListNodes(registry_pb2.ListNodesRequest())
    yield diagnosis.Verdict(
        about=diagnosis.CLUSTER,
        check="registry",
        health=diagnosis.Health.WELL,
        seen=f"{len(known.nodes)} nodes at revision {known.revision}",
    )
    yield from diagnosis.nodes(known, _streams(client))


def _streams(client: "Client") -> "slicer_pb2.ListAgentsResponse":
    """Agents' streams; who seems late is given a moment."""
    import time

    from deltaplane.cli import diagnosis
    from deltaplane.v1 import slicer_pb2

    streams = client.slicer.ListAgents(slicer_pb2.ListAgentsRequest())
    if any(diagnosis.is_late(agent, streams.head_revision) for agent in streams.agents):
        time.sleep(MOMENT_SECONDS)
        streams = client.slicer.ListAgents(slicer_pb2.ListAgentsRequest())
    return streams


def _ipam(client: "Client") -> "Iterator[Verdict]":
    from deltaplane.cli import diagnosis
    from deltaplane.v1 import ipam_pb2

    yield from diagnosis.pools(client.ipam.ListPools(ipam_pb2.ListPoolsRequest()).pools)


def _slicer(client: "Client") -> "Iterator[Verdict]":
    from deltaplane.cli import diagnosis
    from deltaplane.v1 import slicer_pb2

    answer = client.slicer.ListAgents(slicer_pb2.ListAgentsRequest())
    yield diagnosis.Verdict(
        about=diagnosis.CLUSTER,
        check="slicer",
        health=diagnosis.Health.WELL,
        seen=f"{answer.server_id} at revision {answer.head_revision}, {len(answer.agents)} agents",
    )


def _agent(client: "Client", target: str) -> "Iterator[Verdict]":
    import time

    import deltaplane
    from deltaplane.cli import diagnosis
    from deltaplane.v1 import agent_pb2

    stub = client.agent(target)
    # Once before: connecting takes longer than to ask.
    stub.GetStatus(agent_pb2.GetStatusRequest())
    asked = time.time_ns()
    status = stub.GetStatus(agent_pb2.GetStatusRequest())
    answered = time.time_ns()
    yield from diagnosis.agent(status, deltaplane.__version__)
    verdict = diagnosis.skew(
        status.node,
        asked_ms=asked // 1_000_000,
        told_ms=status.wall_ms,
        answered_ms=answered // 1_000_000,
    )
    if verdict is not None:
        yield verdict


def _addresses(client: "Client", targets: "list[tuple[str, str]]") -> "Iterator[Verdict]":
    """Drift: etcd, journals and kernels, compared as `deltaplane ipam check` does."""
    from deltaplane.cli import diagnosis
    from deltaplane.cli.looking import Looker

    look = Looker(client, targets).settled()
    for finding in look.findings:
        yield diagnosis.Verdict(
            about=finding.node or diagnosis.CLUSTER,
            check=str(finding.kind),
            health=diagnosis.Health.ILL,
            seen=f"{finding.subject}: {finding.seen}",
            advice="deltaplane ipam check",
        )
    if not look.findings:
        yield diagnosis.Verdict(
            about=diagnosis.CLUSTER,
            check="addresses",
            health=diagnosis.Health.WELL,
            seen=f"etcd, journals and kernels of {len(look.views)} nodes agree",
        )

"""The bridge process: wiring only."""

from deltaplane.runtime import interpreter

if __name__ == "__main__":
    interpreter.loading()

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc.aio

from deltaplane.runtime import config, log, rpc, service
from deltaplane.runtime.clock import SystemClock
from deltaplane.runtime.roles import Role
from deltaplane.v1 import bridge_pb2, bridge_pb2_grpc
from services.kubernetes.api import kubeconfig
from services.kubernetes.api.client import Client
from services.kubernetes.api.kubeconfig import Connection
from services.kubernetes.api.leading import LeaseTimes
from services.kubernetes.api.lease import Leader
from services.kubernetes.bridge import Bridge, Options
from services.kubernetes.certifying import Authority
from services.kubernetes.config import Config
from services.kubernetes.servicer import BridgeServicer

NAME = "bridge"
PAUSE_SECONDS = 0.2
BRIDGE = bridge_pb2.DESCRIPTOR.services_by_name["Bridge"].full_name


async def serve(
    settings: Config, connection: Connection, *, stop: asyncio.Event | None = None
) -> None:
    """Follows and, while it holds the Lease, writes, until told to stop.

    Args:
        settings: the options.
        connection: to the API server.
        stop: set to stop; None: signals do.
    """
    clock = SystemClock()
    identity = settings.identity or f"{socket.gethostname()}-{secrets.token_hex(4)}"
    namespace = settings.lease_namespace or connection.namespace
    registry = rpc.channel(",".join(settings.registry), settings.tls_to(Role.ENDPOINTS))
    slicer = None
    if settings.slicer:
        slicer = rpc.channel(",".join(settings.slicer), settings.tls_to(Role.SLICER))
    async with Client(connection) as client:
        options = Options(
            kinds=settings.kinds,
            instance=identity,
            audit_seconds=settings.audit_seconds,
            clears_nodes=settings.clear_node_condition,
            tells=settings.events,
            authority=_authority(settings, namespace),
        )
        bridge = Bridge(client, registry, clock, slicer=slicer, options=options)
        leader = Leader(
            client,
            namespace=namespace,
            name=settings.lease_name,
            identity=identity,
            times=LeaseTimes(
                lease=settings.lease_seconds,
                renew=settings.lease_seconds * 0.7,
                retry=settings.lease_seconds * 0.2,
            ),
            clock=clock,
        )

        async def lead(_term: int) -> None:
            while True:
                await bridge.lead(leader.holds)
                # We were asleep, and perhaps nobody has taken the Lease meanwhile. If somebody has,
                # this is cancelled.
                await asyncio.sleep(PAUSE_SECONDS)

        def register(server: grpc.aio.Server) -> Sequence[str]:
            servicer = BridgeServicer(
                bridge.books,
                bridge.problems,
                is_active=lambda: bridge.is_active,
                leader=lambda: leader.holder,
                wake=bridge.wake,
            )
            bridge_pb2_grpc.add_BridgeServicer_to_server(servicer, server)
            return (BRIDGE,)

        async def ready() -> bool:
            return bridge.is_ready

        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(bridge.follow()),
                tasks.create_task(leader.run(lead)),
            ]
            await service.serve(settings, name=NAME, register=register, ready=ready, stop=stop)
            for task in background:
                task.cancel()
    for channel in (registry, slicer):
        if channel is not None:
            await channel.close()


async def main(settings: Config) -> None:
    """The whole process."""
    log.configure(settings.log_format, settings.log_level, NAME)
    await serve(settings, _connection(settings))


def _authority(settings: Config, namespace: str) -> Authority | None:
    if settings.node_ca is None:
        return None
    return Authority(
        folder=settings.node_ca,
        account=f"system:serviceaccount:{namespace}:{settings.agent_account}",
        days=settings.node_certificate_days,
    )


def _connection(settings: Config) -> Connection:
    if settings.kubeconfig:
        return kubeconfig.from_file(Path(settings.kubeconfig))
    return kubeconfig.find(os.environ)


if __name__ == "__main__":
    sys.exit(service.run(main(config.load(Config, sys.argv[1:]))))

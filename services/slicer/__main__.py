"""The slicer process: wiring only."""

from deltaplane.runtime import interpreter

if __name__ == "__main__":
    interpreter.loading()

import asyncio
import secrets
import socket
import sys
from collections.abc import Sequence
from functools import partial

import grpc.aio

from deltaplane.errors import Invalid
from deltaplane.runtime import config, log, service
from deltaplane.runtime.clock import SystemClock
from deltaplane.runtime.roles import Role
from deltaplane.store.etcd import EtcdStore
from deltaplane.store.port import Store
from deltaplane.v1 import receipts_pb2_grpc
from services.slicer import listings, workers
from services.slicer.admission import CHUNKS_PER_MIB, Admission
from services.slicer.config import Config
from services.slicer.feed import Feed
from services.slicer.peers import Peers
from services.slicer.progress import Progress
from services.slicer.repository import Replica, Repository
from services.slicer.servicer import RECEIPTS, SLICER, ReceiptsServicer, SlicerServicer
from services.slicer.tracing import Stages

NAME = "slicer"


async def serve(
    settings: Config,
    store: Store,
    *,
    stop: asyncio.Event | None = None,
) -> None:
    """Serves until told to stop. It listens only once its view is loaded.

    Args:
        settings: the options.
        store: etcd.
        stop: set to stop; None: signals do.
    """
    clock = SystemClock()
    repository = Repository(store, settings.expected_lineage)
    replica = Replica(f"{socket.gethostname()}-{secrets.token_hex(4)}", settings.advertised)
    peers = Peers(repository, replica.server_id, clock, settings.tls_to(Role.SLICER))
    stages = Stages()
    feed = Feed(repository, replica, clock, stages, is_scoped=settings.span == "scoped")
    fanout = await feed.start()
    fanout.admission = Admission(settings.snapshot_memory * CHUNKS_PER_MIB)
    progress = Progress(
        repository,
        fanout,
        replica.server_id,
        clock,
        lease=lambda: feed.lease,
        stale_after=settings.stale_after,
    )
    slicer = SlicerServicer(fanout, repository, peers, clock, replica.server_id, stages=stages)
    receipts = ReceiptsServicer(fanout, repository, peers, clock)

    def register(server: grpc.aio.Server) -> Sequence[str]:
        slicer.add_to(server)
        receipts_pb2_grpc.add_ReceiptsServicer_to_server(receipts, server)
        return SLICER, RECEIPTS

    try:
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(feed.run(fanout)),
                tasks.create_task(progress.run()),
                tasks.create_task(listings.warm(fanout.sender.pieces, clock)),
            ]
            await service.serve(
                settings, name=NAME, register=register, on_drain=slicer.drain, stop=stop
            )
            for task in background:
                task.cancel()
    finally:
        await peers.close()


async def main(settings: Config) -> None:
    """The whole process."""
    log.configure(settings.log_format, settings.log_level, NAME)
    store = EtcdStore(settings.etcd, tls=settings.tls_to(Role.ETCD))
    try:
        await serve(settings, store)
    finally:
        await store.close()


def start(settings: Config) -> int:
    """Runs the workers that are wanted; the exit code."""
    if settings.workers == 1:
        return _run(settings)
    try:
        each = workers.of(settings)
    except Invalid as error:
        print(f"config: {error}", file=sys.stderr)  # noqa: T201 - the log is not set up yet
        return config.EXIT_CODE
    return workers.supervise([partial(_run, one) for one in each])


def _run(settings: Config) -> int:
    return service.run(main(settings))


if __name__ == "__main__":
    sys.exit(start(config.load(Config, sys.argv[1:])))

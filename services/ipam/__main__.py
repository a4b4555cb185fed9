"""The ipam process: wiring only."""

from deltaplane.runtime import interpreter

if __name__ == "__main__":
    interpreter.loading()

import asyncio
import sys
from collections.abc import Sequence

import grpc.aio

from deltaplane.errors import DeltaplaneError, Unavailable
from deltaplane.runtime import config, log, service
from deltaplane.runtime.roles import Role
from deltaplane.store import lineage
from deltaplane.store.etcd import EtcdStore
from deltaplane.store.port import Store
from deltaplane.v1 import ipam_pb2, ipam_pb2_grpc
from services.ipam.config import Config
from services.ipam.repository import Repository
from services.ipam.repository.coalescing import Coalescer
from services.ipam.servicer import IpamServicer

NAME = "ipam"
SERVICE = ipam_pb2.DESCRIPTOR.services_by_name["Ipam"].full_name


async def prepare(settings: Config, store: Store, repository: Repository) -> None:
    """Makes sure that the store is one of ours and that the configured pools exist."""
    found = await lineage.ensure(store, settings.expected_lineage)
    log.get().info("store_found", lineage=found.hex())
    for pool in settings.pools:
        await repository.create_pool(pool)
        log.get().info("pool_ready", pool=pool.name, prefix=str(pool.prefix))


async def keep_preparing(settings: Config, store: Store, repository: Repository) -> None:
    """Prepares as soon as etcd is there; each try takes a few seconds by itself."""
    while True:
        try:
            return await prepare(settings, store, repository)
        except Unavailable as error:
            log.get().warning("etcd_away", reason=str(error))


async def main(settings: Config) -> None:
    """Serves until it is told to stop."""
    log.configure(settings.log_format, settings.log_level, NAME)
    store = EtcdStore(settings.etcd, tls=settings.tls_to(Role.ETCD))
    repository = Repository(store)
    coalescer = Coalescer(repository.claimer)

    def register(server: grpc.aio.Server) -> Sequence[str]:
        ipam_pb2_grpc.add_IpamServicer_to_server(IpamServicer(repository, coalescer), server)
        return (SERVICE,)

    async def ready() -> bool:
        try:
            await store.head()
        except DeltaplaneError:
            return False
        return preparing.done()

    try:
        async with asyncio.TaskGroup() as tasks:
            queue = tasks.create_task(coalescer.run())
            preparing = tasks.create_task(keep_preparing(settings, store, repository))
            # Whoever sees the ready line finds the pools, unless etcd is away for longer than this.
            # With a lineage to check nothing is written before that.
            await asyncio.wait([preparing], timeout=None if settings.lineage else 5)
            await service.serve(settings, name=NAME, register=register, ready=ready)
            preparing.cancel()
            queue.cancel()
    finally:
        await store.close()


if __name__ == "__main__":
    sys.exit(service.run(main(config.load(Config, sys.argv[1:]))))

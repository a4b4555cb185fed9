"""The process of the endpoint registry: wiring only."""

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
from deltaplane.v1 import audit_pb2, audit_pb2_grpc, registry_pb2, registry_pb2_grpc
from services.endpoints.auditing import AuditServicer
from services.endpoints.config import Config
from services.endpoints.repository import Repositories
from services.endpoints.servicer import RegistryServicer

NAME = "endpoints"
SERVICES = (
    registry_pb2.DESCRIPTOR.services_by_name["Registry"].full_name,
    audit_pb2.DESCRIPTOR.services_by_name["AddressRecords"].full_name,
)


async def ensure_lineage(store: Store, expected: bytes) -> None:
    """Makes sure that the store is one of ours, as soon as etcd is there."""
    while True:
        try:
            found = await lineage.ensure(store, expected)
        except Unavailable as error:
            log.get().warning("etcd_away", reason=str(error))
        else:
            log.get().info("store_found", lineage=found.hex())
            return


async def main(settings: Config) -> None:
    """Serves until it is told to stop."""
    log.configure(settings.log_format, settings.log_level, NAME)
    store = EtcdStore(settings.etcd, tls=settings.tls_to(Role.ETCD))
    repositories = Repositories.over(store, settings.label_filter, settings.ranges)

    def register(server: grpc.aio.Server) -> Sequence[str]:
        servicer = RegistryServicer(repositories)
        registry_pb2_grpc.add_RegistryServicer_to_server(servicer, server)
        audit_pb2_grpc.add_AddressRecordsServicer_to_server(
            AuditServicer(repositories.auditor), server
        )
        return SERVICES

    async def ready() -> bool:
        try:
            await store.head()
        except DeltaplaneError:
            return False
        return True

    try:
        async with asyncio.TaskGroup() as tasks:
            ensuring = tasks.create_task(ensure_lineage(store, settings.expected_lineage))
            if settings.lineage:
                await ensuring  # nothing is written to the wrong store
            background = [
                ensuring,
                tasks.create_task(repositories.coalescer.run()),
                tasks.create_task(repositories.repairer.run()),
            ]
            await service.serve(settings, name=NAME, register=register, ready=ready)
            for task in background:
                task.cancel()
    finally:
        await store.close()


if __name__ == "__main__":
    sys.exit(service.run(main(config.load(Config, sys.argv[1:]))))

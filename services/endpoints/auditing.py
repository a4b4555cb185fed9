"""deltaplane.v1.AddressRecords: checks requests, asks the auditor, answers."""

from typing import Any

import grpc.aio

from deltaplane.errors import Invalid
from deltaplane.model import names
from deltaplane.v1 import audit_pb2 as pb
from deltaplane.v1 import audit_pb2_grpc, common_pb2
from services.endpoints.repository.auditing import Auditor, PointerRepair
from services.endpoints.servicer import bounded
from services.endpoints.wire import requests as read

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_PAGE = 2000


class AuditServicer(audit_pb2_grpc.AddressRecordsServicer):
    """The calls are described in audit.proto; errors are those of `deltaplane.errors`."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor

    async def ListRecords(
        self, request: pb.ListRecordsRequest, context: Context
    ) -> pb.ListRecordsResponse:
        """Everything about addresses, one page."""
        if request.page_size > read.MAX_PAGE:
            raise Invalid(
                "page_size",
                f"is {request.page_size}; at most {read.MAX_PAGE}, 0 for the default",
            )
        revision, start_key = (
            read.read_page_token(request.page_token) if request.page_token else (0, "")
        )
        found, token, revision = await self._auditor.page(
            request.page_size or DEFAULT_PAGE, start_key, revision
        )
        records = [
            pb.StoredRecord(
                key=item.key,
                value=item.value,
                meta=common_pb2.ObjectMeta(
                    create_revision=item.create_revision, mod_revision=item.mod_revision
                ),
            )
            for item in found
        ]
        return pb.ListRecordsResponse(records=records, next_page_token=token, revision=revision)

    async def RepairPointers(
        self, request: pb.RepairPointersRequest, context: Context
    ) -> pb.RepairPointersResponse:
        """Puts pointers right."""
        read.check_count(request.repairs, "repairs", read.MAX_BATCH)
        repairs = [
            PointerRepair(key=item.key, mod_revision=item.mod_revision, target=item.target)
            for item in request.repairs
        ]
        return pb.RepairPointersResponse(repaired=await bounded(self._auditor.repair(repairs)))

    async def RemoveLeftovers(
        self, request: pb.RemoveLeftoversRequest, context: Context
    ) -> pb.RemoveLeftoversResponse:
        """Removes what former registrations of a node have left behind."""
        name = read.check_name(request.node, "node", names.dns_subdomain_mistake)
        removed = await bounded(self._auditor.remove_leftovers(name))
        return pb.RemoveLeftoversResponse(endpoints_removed=removed)

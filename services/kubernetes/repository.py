"""The registry, as the bridge uses it: whole listings, and batches of changes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from typing import TypeVar

import grpc.aio

from deltaplane.runtime import rpc
from deltaplane.v1 import policy_pb2, registry_pb2_grpc, service_pb2
from deltaplane.v1 import registry_pb2 as pb
from services.kubernetes import wire
from services.kubernetes.kinds import POLICIES, Kind
from services.kubernetes.ledger import Batch, Key

T = TypeVar("T")

LISTING_SECONDS = 30.0
"""Deadline of a listing; that of a write is the registry's own bound, and half a second."""
PAGE = 1000
CHUNK = 1000
"""Records read before others get a turn."""

_BY_WORD = {kind.word: kind for kind in POLICIES}


class Repository:
    """Calls the registry; what fails is one of `deltaplane.errors`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: registry_pb2_grpc.RegistryAsyncStub = registry_pb2_grpc.RegistryStub(channel)

    # --- listings --------------------------------------------------------------------------------

    async def nodes(self) -> pb.ListNodesResponse:
        """All registered nodes, and the fences."""
        return await _answer(self._stub.ListNodes(pb.ListNodesRequest(), timeout=LISTING_SECONDS))

    async def records(self, kind: Kind) -> dict[Key, bytes]:
        """All that the registry holds of a kind that is no policy and no node."""
        match kind:
            case Kind.NAMESPACE:
                namespaces = self._stub.ListNamespaces(
                    pb.ListNamespacesRequest(), timeout=LISTING_SECONDS
                )
                return await _read((await _answer(namespaces)).namespaces)
            case Kind.POD:
                pods = self._stub.ListPods(pb.ListPodsRequest(), timeout=LISTING_SECONDS)
                return await _read((await _answer(pods)).pods)
            case Kind.SERVICE:
                return await _read([item async for item in self._services()])
            case Kind.ENDPOINT_SLICE:
                return await _read([item async for item in self._slices()])
            case _:
                return (await self.policies())[kind]

    async def policies(self) -> dict[Kind, dict[Key, bytes]]:
        """All policies, by their kinds: the registry reads all of them for any."""
        answer = await _answer(
            self._stub.ListPolicies(pb.ListPoliciesRequest(), timeout=LISTING_SECONDS)
        )
        found: dict[Kind, list[policy_pb2.Policy]] = {kind: [] for kind in POLICIES}
        for item in answer.others:
            if (kind := _BY_WORD.get(item.kind)) is not None:
                found[kind].append(item)
        records = {kind: await _read(items) for kind, items in found.items()}
        records[Kind.NETWORK_POLICY] = await _read(answer.policies)
        return records

    async def _services(self) -> AsyncIterator[service_pb2.Service]:
        token = ""
        while True:
            request = pb.ListServicesRequest(page_size=PAGE, page_token=token)
            answer = await _answer(self._stub.ListServices(request, timeout=LISTING_SECONDS))
            for item in answer.services:
                yield item
            if not (token := answer.next_page_token):
                return

    async def _slices(self) -> AsyncIterator[service_pb2.EndpointSlice]:
        token = ""
        while True:
            request = pb.ListEndpointSlicesRequest(page_size=PAGE, page_token=token)
            answer = await _answer(self._stub.ListEndpointSlices(request, timeout=LISTING_SECONDS))
            for item in answer.slices:
                yield item
            if not (token := answer.next_page_token):
                return

    async def pod_uids(self, key: Key) -> set[str]:
        """UIDs of the pods of a name that have endpoints."""
        namespace, _, name = key.partition("/")
        request = pb.ListEndpointsRequest(namespace=namespace, pod=name)
        answer = await _answer(self._stub.ListEndpoints(request, timeout=rpc.DEADLINE_SECONDS))
        return {item.pod_uid for item in answer.endpoints}

    # --- changes ---------------------------------------------------------------------------------

    async def write(self, kind: Kind, batch: Batch) -> None:
        """Writes a batch; it may be repeated.

        Raises:
            Invalid, Refused, Exhausted, Conflict: the registry does not take it.
            Unavailable: nobody knows what became of it.
        """
        call = self._delete(kind, batch.deletes) if batch.deletes else self._apply(kind, batch)
        await _answer(call)

    def _apply(self, kind: Kind, batch: Batch) -> Awaitable[object]:
        stub, values, timeout = self._stub, batch.applies, rpc.DEADLINE_SECONDS
        match kind:
            case Kind.NAMESPACE:
                namespaces = wire.decode(pb.Namespace, values)
                return stub.ApplyNamespaces(
                    pb.ApplyNamespacesRequest(namespaces=namespaces), timeout=timeout
                )
            case Kind.POD:
                pods = wire.decode(pb.Pod, values)
                return stub.ApplyPods(pb.ApplyPodsRequest(pods=pods), timeout=timeout)
            case Kind.SERVICE:
                services = wire.decode(service_pb2.Service, values)
                return stub.ApplyServices(
                    pb.ApplyServicesRequest(services=services), timeout=timeout
                )
            case Kind.ENDPOINT_SLICE:
                slices = wire.decode(service_pb2.EndpointSlice, values)
                return stub.ApplyEndpointSlices(
                    pb.ApplyEndpointSlicesRequest(slices=slices), timeout=timeout
                )
            case Kind.NETWORK_POLICY:
                policies = wire.decode(policy_pb2.NetworkPolicy, values)
                return stub.ApplyPolicies(
                    pb.ApplyPoliciesRequest(policies=policies), timeout=timeout
                )
            case _:
                others = wire.decode(policy_pb2.Policy, values)
                return stub.ApplyPolicies(pb.ApplyPoliciesRequest(others=others), timeout=timeout)

    def _delete(self, kind: Kind, keys: Sequence[Key]) -> Awaitable[object]:
        stub, timeout = self._stub, rpc.DEADLINE_SECONDS
        match kind:
            case Kind.NODE:
                calls = (
                    _answer(stub.DeleteNode(pb.DeleteNodeRequest(name=name), timeout=timeout))
                    for name in keys
                )
                return asyncio.gather(*calls)
            case Kind.NAMESPACE:
                return stub.DeleteNamespaces(
                    pb.DeleteNamespacesRequest(names=keys), timeout=timeout
                )
            case Kind.POD:
                pods = [pb.PodRef(namespace=it[0], name=it[1]) for it in wire.references(keys)]
                return stub.DeletePods(pb.DeletePodsRequest(pods=pods), timeout=timeout)
            case Kind.SERVICE:
                services = [
                    pb.ServiceRef(namespace=it[0], name=it[1]) for it in wire.references(keys)
                ]
                return stub.DeleteServices(
                    pb.DeleteServicesRequest(services=services), timeout=timeout
                )
            case Kind.ENDPOINT_SLICE:
                slices = [
                    pb.EndpointSliceRef(namespace=it[0], name=it[1]) for it in wire.references(keys)
                ]
                return stub.DeleteEndpointSlices(
                    pb.DeleteEndpointSlicesRequest(slices=slices), timeout=timeout
                )
            case _:
                policies = wire.policy_references(kind, keys)
                return stub.DeletePolicies(
                    pb.DeletePoliciesRequest(policies=policies), timeout=timeout
                )


async def _read(messages: Iterable[wire.Message]) -> dict[Key, bytes]:
    found: dict[Key, bytes] = {}
    for index, message in enumerate(messages):
        key, value = wire.stored(message)
        found[key] = value
        if index % CHUNK == CHUNK - 1:
            await asyncio.sleep(0)
    return found


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise rpc.translate(error) from error

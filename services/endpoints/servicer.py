"""deltaplane.v1.Registry: checks requests, asks the repositories, answers."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

import grpc.aio

from deltaplane.errors import DeltaplaneError, Invalid, Unavailable
from deltaplane.model import names
from deltaplane.runtime import trace, tracing
from deltaplane.v1 import policy_pb2, registry_pb2_grpc
from deltaplane.v1 import registry_pb2 as pb
from services.endpoints.repository import Repositories
from services.endpoints.wire import policies, services
from services.endpoints.wire import requests as read
from services.endpoints.wire.records import with_meta
from services.endpoints.wishing import Wish

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")

BOUND_SECONDS = 4.5
"""Of a call that makes several transactions: the client, which waits 5 s, hears why it failed."""


class RegistryServicer(registry_pb2_grpc.RegistryServicer):
    """The calls are described in registry.proto; errors are those of `deltaplane.errors`."""

    def __init__(self, repositories: Repositories) -> None:
        self._nodes = repositories.nodes
        self._objects = repositories.objects
        self._coalescer = repositories.coalescer
        self._endpoints = repositories.endpoints
        self._identities = repositories.identities
        self._policies = repositories.policies
        self._services = repositories.services
        self._slices = repositories.slices

    # --- nodes -----------------------------------------------------------------------------------

    async def RegisterNode(
        self, request: pb.RegisterNodeRequest, context: Context
    ) -> pb.RegisterNodeResponse:
        """Registers a node or refreshes its registration."""
        node, revision = await self._nodes.register(read.node_from_proto(request.node))
        return pb.RegisterNodeResponse(node=node, revision=revision)

    async def ListNodes(
        self, request: pb.ListNodesRequest, context: Context
    ) -> pb.ListNodesResponse:
        """Lists nodes and fences by name."""
        nodes, fences, revision = await self._nodes.list_nodes()
        return pb.ListNodesResponse(nodes=nodes, fences=fences, revision=revision)

    async def DeleteNode(
        self, request: pb.DeleteNodeRequest, context: Context
    ) -> pb.DeleteNodeResponse:
        """Removes a node with its endpoints and blocks."""
        name = read.check_name(request.name, "name", names.dns_subdomain_mistake)
        removed = await bounded(self._nodes.delete(name))
        return pb.DeleteNodeResponse(endpoints_removed=removed)

    # --- namespaces ------------------------------------------------------------------------------

    async def ApplyNamespaces(
        self, request: pb.ApplyNamespacesRequest, context: Context
    ) -> pb.ApplyNamespacesResponse:
        """Creates or replaces namespaces."""
        read.check_count(request.namespaces, "namespaces", read.MAX_OBJECTS)
        records = [
            read.namespace_to_record(message, f"namespaces[{index}]")
            for index, message in enumerate(request.namespaces)
        ]
        read.check_distinct([record.name for record in records], "namespaces")
        revision = await bounded(self._objects.apply_namespaces(records, _traceparent(context)))
        return pb.ApplyNamespacesResponse(revision=revision)

    async def ListNamespaces(
        self, request: pb.ListNamespacesRequest, context: Context
    ) -> pb.ListNamespacesResponse:
        """Lists namespaces by name."""
        namespaces, revision = await self._objects.list_namespaces()
        return pb.ListNamespacesResponse(namespaces=namespaces, revision=revision)

    async def DeleteNamespaces(
        self, request: pb.DeleteNamespacesRequest, context: Context
    ) -> pb.DeleteNamespacesResponse:
        """Removes namespaces with all that lives in them."""
        read.check_count(request.names, "names", read.MAX_OBJECTS)
        for index, name in enumerate(request.names):
            read.check_name(name, f"names[{index}]", names.dns_label_mistake)
        revision = await bounded(self._objects.delete_namespaces(request.names))
        return pb.DeleteNamespacesResponse(revision=revision)

    # --- pods ------------------------------------------------------------------------------------

    async def ApplyPods(
        self, request: pb.ApplyPodsRequest, context: Context
    ) -> pb.ApplyPodsResponse:
        """Creates or replaces pod records."""
        read.check_count(request.pods, "pods", read.MAX_OBJECTS)
        records = [
            read.pod_to_record(message, f"pods[{index}]")
            for index, message in enumerate(request.pods)
        ]
        read.check_distinct([(record.namespace, record.name) for record in records], "pods")
        revision = await bounded(self._objects.apply_pods(records, _traceparent(context)))
        return pb.ApplyPodsResponse(revision=revision)

    async def ListPods(self, request: pb.ListPodsRequest, context: Context) -> pb.ListPodsResponse:
        """Lists pods by namespace and name."""
        read.check_scope(request.namespace, "", "", names.dns_subdomain_mistake)
        pods, revision = await self._objects.list_pods(request.namespace)
        return pb.ListPodsResponse(pods=pods, revision=revision)

    async def DeletePods(
        self, request: pb.DeletePodsRequest, context: Context
    ) -> pb.DeletePodsResponse:
        """Removes pod records."""
        read.check_count(request.pods, "pods", read.MAX_OBJECTS)
        pods = [read.reference(item, f"pods[{index}]") for index, item in enumerate(request.pods)]
        revision = await bounded(self._objects.delete_pods(pods))
        return pb.DeletePodsResponse(revision=revision)

    # --- endpoints -------------------------------------------------------------------------------

    async def RegisterEndpoint(
        self, request: pb.RegisterEndpointRequest, context: Context
    ) -> pb.RegisterEndpointResponse:
        """Registers one endpoint."""
        node_uid = read.check_token(request.node_uid, "node_uid")
        sent = _traceparent(context)
        with tracing.continued("RegisterEndpoint", sent) as span:
            traceparent = span.traceparent or sent
            wanted = read.request_from_proto(request.endpoint, node_uid, "endpoint", traceparent)
            outcome = await bounded(self._coalescer.register(wanted))
        if isinstance(outcome, Wish):
            return pb.RegisterEndpointResponse(wanted=read.wish_to_proto(outcome))
        return pb.RegisterEndpointResponse(endpoint=with_meta(pb.Endpoint, outcome))

    async def RegisterEndpoints(
        self, request: pb.RegisterEndpointsRequest, context: Context
    ) -> pb.RegisterEndpointsResponse:
        """Registers many endpoints of one node."""
        read.check_count(request.endpoints, "endpoints", read.MAX_BATCH)
        read.check_one_node([endpoint.node for endpoint in request.endpoints], "endpoints")
        node_uid = read.check_token(request.node_uid, "node_uid")
        traceparent = _traceparent(context)
        outcomes = await bounded(
            asyncio.gather(
                *(
                    self._register_one(endpoint, node_uid, f"endpoints[{index}]", traceparent)
                    for index, endpoint in enumerate(request.endpoints)
                )
            )
        )
        return pb.RegisterEndpointsResponse(results=outcomes)

    async def ReleaseEndpoints(
        self, request: pb.ReleaseEndpointsRequest, context: Context
    ) -> pb.ReleaseEndpointsResponse:
        """Releases endpoints of one node."""
        read.check_count(request.releases, "releases", read.MAX_BATCH)
        node_uid = read.check_token(request.node_uid, "node_uid")
        releases = [
            read.release_from_proto(item, f"releases[{index}]")
            for index, item in enumerate(request.releases)
        ]
        if not releases:
            raise Invalid("releases", "is empty")
        read.check_one_node([release.node for release in releases], "releases")
        revision, removed = await bounded(
            self._endpoints.release(releases[0].node, node_uid, releases)
        )
        return pb.ReleaseEndpointsResponse(revision=revision, removed=removed)

    async def ListEndpoints(
        self, request: pb.ListEndpointsRequest, context: Context
    ) -> pb.ListEndpointsResponse:
        """Lists endpoints by key, one page."""
        endpoints, token, revision = await self._endpoints.page(read.page_from_proto(request))
        return pb.ListEndpointsResponse(
            endpoints=endpoints, next_page_token=token, revision=revision
        )

    # --- identities and policies -----------------------------------------------------------------

    async def ListIdentities(
        self, request: pb.ListIdentitiesRequest, context: Context
    ) -> pb.ListIdentitiesResponse:
        """Lists identities by number."""
        identities, revision = await self._identities.list_identities()
        return pb.ListIdentitiesResponse(identities=identities, revision=revision)

    async def ApplyPolicies(
        self, request: pb.ApplyPoliciesRequest, context: Context
    ) -> pb.ApplyPoliciesResponse:
        """Creates or replaces policies: all, or none when one is invalid."""
        records = policies.records_from_proto(request)
        stored, revision = await bounded(self._policies.apply(records, _traceparent(context)))
        return pb.ApplyPoliciesResponse(
            revision=revision, policies=_networkpolicies(stored), others=_others(stored)
        )

    async def ListPolicies(
        self, request: pb.ListPoliciesRequest, context: Context
    ) -> pb.ListPoliciesResponse:
        """Lists policies by kind, namespace and name."""
        wanted = policies.filter_from_proto(request)
        found, revision = await self._policies.list_policies(wanted)
        return pb.ListPoliciesResponse(
            policies=_networkpolicies(found), others=_others(found), revision=revision
        )

    async def DeletePolicies(
        self, request: pb.DeletePoliciesRequest, context: Context
    ) -> pb.DeletePoliciesResponse:
        """Removes policies."""
        references = policies.references_from_proto(request.policies)
        revision = await bounded(self._policies.delete(references))
        return pb.DeletePoliciesResponse(revision=revision)

    # --- services --------------------------------------------------------------------------------

    async def ApplyServices(
        self, request: pb.ApplyServicesRequest, context: Context
    ) -> pb.ApplyServicesResponse:
        """Creates or replaces services: all, or none when one cannot be had."""
        demands = services.demands_from_proto(request)
        stored, revision = await bounded(self._services.apply(demands, _traceparent(context)))
        return pb.ApplyServicesResponse(services=stored, revision=revision)

    async def ListServices(
        self, request: pb.ListServicesRequest, context: Context
    ) -> pb.ListServicesResponse:
        """Lists services by key, one page."""
        found, token, revision = await self._services.page(
            services.service_page_from_proto(request)
        )
        return pb.ListServicesResponse(services=found, next_page_token=token, revision=revision)

    async def DeleteServices(
        self, request: pb.DeleteServicesRequest, context: Context
    ) -> pb.DeleteServicesResponse:
        """Removes services with their addresses and node ports."""
        revision = await bounded(self._services.delete(services.services_to_delete(request)))
        return pb.DeleteServicesResponse(revision=revision)

    async def ApplyEndpointSlices(
        self, request: pb.ApplyEndpointSlicesRequest, context: Context
    ) -> pb.ApplyEndpointSlicesResponse:
        """Creates or replaces endpoint slices: all, or none when one is invalid."""
        slices = services.slices_from_proto(request)
        stored, revision = await bounded(self._slices.apply(slices, _traceparent(context)))
        return pb.ApplyEndpointSlicesResponse(slices=stored, revision=revision)

    async def ListEndpointSlices(
        self, request: pb.ListEndpointSlicesRequest, context: Context
    ) -> pb.ListEndpointSlicesResponse:
        """Lists endpoint slices by key, one page."""
        found, token, revision = await self._slices.page(services.slice_page_from_proto(request))
        return pb.ListEndpointSlicesResponse(slices=found, next_page_token=token, revision=revision)

    async def DeleteEndpointSlices(
        self, request: pb.DeleteEndpointSlicesRequest, context: Context
    ) -> pb.DeleteEndpointSlicesResponse:
        """Removes endpoint slices."""
        revision = await bounded(self._slices.delete(services.slices_to_delete(request)))
        return pb.DeleteEndpointSlicesResponse(revision=revision)

    async def _register_one(
        self, message: pb.Endpoint, node_uid: str, path: str, traceparent: str
    ) -> pb.RegisterEndpointResult:
        """The outcome for one endpoint. Unavailable is none: the whole call is to be repeated."""
        try:
            request = read.request_from_proto(message, node_uid, path, traceparent)
            outcome = await self._coalescer.register(request)
        except Unavailable:
            raise
        except DeltaplaneError as error:
            return pb.RegisterEndpointResult(error=str(error))
        if isinstance(outcome, Wish):
            return pb.RegisterEndpointResult(wanted=read.wish_to_proto(outcome))
        return pb.RegisterEndpointResult(endpoint=with_meta(pb.Endpoint, outcome))


async def bounded(work: Awaitable[T]) -> T:
    """The result of a call, within BOUND_SECONDS. Raises Unavailable when it takes longer."""
    try:
        async with asyncio.timeout(BOUND_SECONDS):
            return await work
    except TimeoutError as error:
        raise Unavailable(
            f"not finished within {BOUND_SECONDS:g} s; what is done stays done, try again"
        ) from error


def _networkpolicies(records: Iterable[policies.Record]) -> list[policy_pb2.NetworkPolicy]:
    return [item for item in records if isinstance(item, policy_pb2.NetworkPolicy)]


def _others(records: Iterable[policies.Record]) -> list[policy_pb2.Policy]:
    return [item for item in records if isinstance(item, policy_pb2.Policy)]


def _traceparent(context: Context) -> str:
    """The caller's traceparent; empty when there is none or it is malformed."""
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent":
            text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
            parsed = trace.parse(text)
            return str(parsed) if parsed else ""
    return ""

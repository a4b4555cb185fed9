"""The services of the published shape in a lab: what the registry holds, and changes of it.

Their slices are written by hand, 100 endpoints each, as Kubernetes' controller writes them.
Backends are addresses outside of every pool unless somebody puts others in their places.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.services.shape import PORT, TARGET_PORT, services
from deltaplane import servicewire
from deltaplane.cli.services import list_services
from deltaplane.model.service import EndpointSlice, Service, ServicePort, SliceEndpoint, SlicePort
from deltaplane.v1 import registry_pb2, service_pb2
from lab import Lab
from lab.slicing import MAX_ENDPOINTS

NAMESPACE = "bench"
FAMILIES = (4, 6)
SERVICES_PER_CALL = 500
SLICES_PER_CALL = 100

Name = tuple[int, int, int]
"""A slice: number of its service, family, which of the service's slices."""


class Standing:
    """The services, by number from 1 on; the last one is large.

    Attributes:
        numbers: of all services.
        addresses: cluster address by (number, family); empty before `fill`.
    """

    def __init__(self, lab: Lab) -> None:
        """Nothing is written yet."""
        self._lab = lab
        self._endpoints: dict[tuple[int, int], list[SliceEndpoint]] = {}
        self._dirty: dict[Name, None] = {}
        self.addresses: dict[tuple[int, int], bytes] = {}
        nodes = [node.name for node in lab.topology.nodes]
        for family in FAMILIES:
            for service in services(family):
                self._endpoints[service.number, family] = [
                    SliceEndpoint(address=address, node=nodes[place % len(nodes)])
                    for place, address in enumerate(service.backends)
                ]
        self.numbers = sorted({number for number, _ in self._endpoints})

    def backends(self, number: int, family: int) -> Sequence[SliceEndpoint]:
        """Of a service, also those that are not ready, by place."""
        return self._endpoints[number, family]

    def fill(self) -> int:
        """Writes everything; returns the store revision."""
        registry = self._lab.client.registry
        revision = registry.ApplyNamespaces(
            registry_pb2.ApplyNamespacesRequest(namespaces=[registry_pb2.Namespace(name=NAMESPACE)])
        ).revision
        for start in range(0, len(self.numbers), SERVICES_PER_CALL):
            part = self.numbers[start : start + SERVICES_PER_CALL]
            request = registry_pb2.ApplyServicesRequest(services=map(_record, part))
            revision = max(revision, registry.ApplyServices(request, timeout=60).revision)
        for stored in list_services(self._lab.client, namespace=NAMESPACE):
            number = int(stored.name.rpartition("-")[2])
            for address in stored.cluster_ips:
                self.addresses[number, 4 if len(address) == 4 else 6] = address
        for (number, family), endpoints in self._endpoints.items():
            for part_number in range(-(-len(endpoints) // MAX_ENDPOINTS)):
                self._dirty[number, family, part_number] = None
        return max(revision, self.flush())

    def put(self, number: int, place: int, endpoints: Mapping[int, SliceEndpoint]) -> None:
        """Puts a backend into a place of a service, of each family; `flush` writes it."""
        for family, endpoint in endpoints.items():
            self._endpoints[number, family][place] = endpoint
            self._dirty[number, family, place // MAX_ENDPOINTS] = None

    def make_ready(self, number: int, place: int, *, ready: bool) -> None:
        """Lets a backend be ready or not, in both families; `flush` writes it."""
        there = {family: self._endpoints[number, family][place] for family in FAMILIES}
        self.put(
            number,
            place,
            {family: replace(old, ready=ready, serving=ready) for family, old in there.items()},
        )

    def flush(self) -> int:
        """Writes the slices that have changed; the store revision, 0 if none has."""
        revision = 0
        names, self._dirty = list(self._dirty), {}
        for start in range(0, len(names), SLICES_PER_CALL):
            messages = map(self._message, names[start : start + SLICES_PER_CALL])
            request = registry_pb2.ApplyEndpointSlicesRequest(slices=messages)
            answer = self._lab.client.registry.ApplyEndpointSlices(request, timeout=60)
            revision = max(revision, answer.revision)
        return revision

    def _message(self, name: Name) -> service_pb2.EndpointSlice:
        number, family, part = name
        endpoints = self._endpoints[number, family][part * MAX_ENDPOINTS :][:MAX_ENDPOINTS]
        return servicewire.slice_to_proto(
            EndpointSlice(
                namespace=NAMESPACE,
                # Not a name that the lab's own slices have: it removes those without a selector.
                name=f"{_name(number)}-{part}-by-hand-{family}",
                service=_name(number),
                ports=(SlicePort(number=TARGET_PORT),),
                endpoints=tuple(endpoints),
            )
        )


def _name(number: int) -> str:
    return f"service-{number}"


def _record(number: int) -> service_pb2.Service:
    service = Service(namespace=NAMESPACE, name=_name(number), ports=(ServicePort(port=PORT),))
    message = servicewire.service_to_proto(service)
    message.headless = False  # without an address yet, it seems to be
    message.families.extend(FAMILIES)
    message.family_policy = service_pb2.FAMILY_POLICY_REQUIRE_DUAL_STACK
    return message

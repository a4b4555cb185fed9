"""Services of a lab: their records, their endpoint slices, and what the name server answers."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from deltaplane import recordwire, servicewire
from deltaplane.cli import enforcement
from deltaplane.cli.client import Client
from deltaplane.cli.services import list_services, list_slices
from deltaplane.errors import Invalid, Unavailable
from deltaplane.manifest import ServiceManifest
from deltaplane.model.service import EndpointSlice, Service
from deltaplane.v1 import registry_pb2, service_pb2
from lab import refusals, slicing
from lab.dns import records
from lab.layout import Layout
from lab.pods import Pod, replace_file
from lab.topology import Topology

T = TypeVar("T")

SERVICES_PER_CALL = 500
SLICES_PER_CALL = 100
REFERENCES_PER_CALL = 1000

DRAIN_SECONDS = 5.0
"""How long pods that go wait for nodes to stop sending to them; a node may be away for good."""

Reference = tuple[str, str]
"""Namespace and name."""


class Services:
    """Makes services, slices and names agree with manifests and pods. Hold `apply.locked`."""

    def __init__(self, layout: Layout, network: Topology, client: Client) -> None:
        self._layout = layout
        self._client = client
        self._zones = {node.name: network.zone(node) for node in network.nodes}

    def apply(self, services: Sequence[ServiceManifest], slices: Sequence[EndpointSlice]) -> int:
        """Writes them; returns the store revision, 0 when there is nothing to write.

        Raises:
            Invalid: the registry refuses one; of its part of the list none is written.
        """
        revision = 0
        for part in _parts(services, SERVICES_PER_CALL):
            request = registry_pb2.ApplyServicesRequest(
                services=map(recordwire.service_to_proto, part)
            )
            try:
                revision = max(revision, self._client.registry.ApplyServices(request).revision)
            except Invalid as error:
                raise refusals.of_service(error, part) from error
        return max(revision, self._write_slices(slices))

    def delete(
        self,
        services: Iterable[Reference],
        slices: Iterable[Reference],
        namespaces: Iterable[str],
    ) -> int:
        """Removes these and all of some namespaces; absent ones are fine. Revision as `apply`."""
        gone, gone_slices = set(services), set(slices)
        for namespace in namespaces:
            known = list_services(self._client, namespace=namespace)
            gone |= {(item.namespace, item.name) for item in known}
            there = list_slices(self._client, namespace=namespace)
            gone_slices |= {(item.namespace, item.name) for item in there}
        revision = 0
        for part in _parts(sorted(gone), REFERENCES_PER_CALL):
            references = [registry_pb2.ServiceRef(namespace=ns, name=name) for ns, name in part]
            request = registry_pb2.DeleteServicesRequest(services=references)
            revision = max(revision, self._client.registry.DeleteServices(request).revision)
        return max(revision, self._remove_slices(sorted(gone_slices)))

    def agree(self, pods: Sequence[Pod]) -> int:
        """Writes the slices and names that follow from services and pods; revision as `apply`.

        Slices that the lab has made go with their service.
        """
        messages = list_services(self._client)
        if not messages and not self._layout.names.exists():
            return 0
        services = [(servicewire.service_from_proto(item), item) for item in messages]
        there = self._slices()
        write: list[EndpointSlice] = []
        remove: list[EndpointSlice] = []
        for service, message in services:
            own = there.pop((service.namespace, service.name), [])
            change = slicing.plan(service, families(message), pods, self._zones, own)
            write += change.write
            remove += change.remove
        orphans = (item for left in there.values() for item in left)
        remove += [item for item in orphans if slicing.is_own(item.service, item)]
        revision = self._write_slices(write)
        revision = max(revision, self._remove_slices([(it.namespace, it.name) for it in remove]))
        self._write_names([service for service, _ in services])
        return revision

    def drain(self, pods: Sequence[Pod]) -> None:
        """Like `agree`, and waits until nodes send nobody new to pods that go."""
        started = time.monotonic()
        revision = self.agree(pods)
        if revision:
            with contextlib.suppress(Unavailable):
                enforcement.await_enforced(
                    self._client,
                    enforcement.Subject(revision=revision),
                    started=started,
                    seconds=DRAIN_SECONDS,
                )

    def _slices(self) -> dict[Reference, list[EndpointSlice]]:
        """All slices by service."""
        found: dict[Reference, list[EndpointSlice]] = defaultdict(list)
        for message in list_slices(self._client):
            item = servicewire.slice_from_proto(message)
            found[item.namespace, item.service].append(item)
        return found

    def _write_slices(self, slices: Sequence[EndpointSlice]) -> int:
        revision = 0
        for part in _parts(slices, SLICES_PER_CALL):
            messages = map(servicewire.slice_to_proto, part)
            request = registry_pb2.ApplyEndpointSlicesRequest(slices=messages)
            revision = max(revision, self._client.registry.ApplyEndpointSlices(request).revision)
        return revision

    def _remove_slices(self, slices: Sequence[Reference]) -> int:
        revision = 0
        for part in _parts(slices, REFERENCES_PER_CALL):
            references = [
                registry_pb2.EndpointSliceRef(namespace=ns, name=name) for ns, name in part
            ]
            request = registry_pb2.DeleteEndpointSlicesRequest(slices=references)
            revision = max(revision, self._client.registry.DeleteEndpointSlices(request).revision)
        return revision

    def _write_names(self, services: Iterable[Service]) -> None:
        slices = (item for items in self._slices().values() for item in items)
        content = msgspec.json.encode(records.records(services, slices))
        names = self._layout.names
        if not names.exists() or names.read_bytes() != content:
            replace_file(names, content)


def families(message: service_pb2.Service) -> tuple[int, ...]:
    """Families of a stored service's slices."""
    if message.families:
        return tuple(message.families)
    return tuple(4 if len(address) == 4 else 6 for address in message.cluster_ips)


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

"""Namespaces and pod records, and the endpoints that follow them."""

from collections.abc import Sequence

from deltaplane.store import keys
from deltaplane.store.port import Delete, DeletePrefix, Put, Store
from deltaplane.v1 import registry_pb2
from services.endpoints.repository.following import Follower
from services.endpoints.repository.services import Services
from services.endpoints.repository.writing import delete, write
from services.endpoints.wire.records import encode, with_meta


class Objects:
    """Namespaces and pods.

    Applying writes the records first and the endpoints afterwards. When it fails in between,
    repeating the call or the repair of any replica does the rest.
    """

    def __init__(self, store: Store, follower: Follower, services: Services) -> None:
        self._store = store
        self._follower = follower
        self._services = services

    async def apply_namespaces(
        self, records: Sequence[registry_pb2.Namespace], traceparent: str
    ) -> int:
        """Writes namespaces; returns a revision at which they and the identities are in effect."""
        _, revision = await write(
            self._store, [Put(keys.namespace(record.name), encode(record)) for record in records]
        )
        prefixes = [keys.endpoints_of(record.name) for record in records]
        return max(revision, await self._follower.follow_prefixes(prefixes, traceparent))

    async def apply_pods(self, records: Sequence[registry_pb2.Pod], traceparent: str) -> int:
        """Writes pod records; returns a revision at which they and the identities are in effect."""
        _, revision = await write(
            self._store,
            [Put(keys.pod(record.namespace, record.name), encode(record)) for record in records],
        )
        prefixes = [keys.endpoints_of(record.namespace, record.name) for record in records]
        return max(revision, await self._follower.follow_prefixes(prefixes, traceparent))

    async def delete_namespaces(self, names: Sequence[str]) -> int:
        """Removes namespaces with all that lives in them; returns a revision without them."""
        for name in dict.fromkeys(names):
            await self._services.delete_all_of(name)
        return await delete(
            self._store,
            [
                operation
                for name in dict.fromkeys(names)
                for operation in (
                    Delete(keys.namespace(name)),
                    DeletePrefix(keys.pods_of(name)),
                    DeletePrefix(keys.policies_of(name)),
                    DeletePrefix(keys.endpoint_slices_of(name)),
                )
            ],
        )

    async def delete_pods(self, pods: Sequence[tuple[str, str]]) -> int:
        """Removes pod records by (namespace, name); returns a revision without them."""
        return await delete(self._store, [Delete(keys.pod(*pod)) for pod in dict.fromkeys(pods)])

    async def list_namespaces(self) -> tuple[Sequence[registry_pb2.Namespace], int]:
        """All namespaces by name, and the revision that this shows."""
        listing = await self._store.list(keys.NAMESPACES)
        return [with_meta(registry_pb2.Namespace, item) for item in listing.items], listing.revision

    async def list_pods(self, namespace: str) -> tuple[Sequence[registry_pb2.Pod], int]:
        """Pods of a namespace (empty: of all), and the revision that this shows."""
        listing = await self._store.list(keys.pods_of(namespace) if namespace else keys.PODS)
        pods = [with_meta(registry_pb2.Pod, item) for item in listing.items]
        # Keys order "a-b/x" before "a/x"; people expect namespace, then name.
        pods.sort(key=lambda pod: (pod.namespace, pod.name))
        return pods, listing.revision

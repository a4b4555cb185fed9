"""The registry in etcd. Every write is one transaction whose compares make it safe to repeat.

nodes          registration by compare-and-swap, removal
cleaning       what a removed node leaves behind
objects        namespaces and pods; `following` rewrites the endpoints whose identity follows
identities     numbers for label sets
registering    endpoints in, read by read; first `newcomers`, up to 64 in one transaction
coalescing     the queue in front of it; `remembering` is what newcomers need not read
endpoints      endpoints out, and listings
policies       network policies
services       services with their addresses and node ports; endpointslices: what is behind them
repairing      finds and finishes what a killed replica began
auditing       everything about addresses at one revision, and pointers put right
"""

from dataclasses import dataclass

from deltaplane.store.port import Store
from services.endpoints.identity import LabelFilter
from services.endpoints.ranges import DEFAULT_RANGES, Ranges
from services.endpoints.repository.auditing import Auditor
from services.endpoints.repository.cleaning import Cleaner
from services.endpoints.repository.coalescing import Coalescer
from services.endpoints.repository.endpoints import Endpoints
from services.endpoints.repository.endpointslices import EndpointSlices
from services.endpoints.repository.following import Follower
from services.endpoints.repository.identities import Identities
from services.endpoints.repository.nodes import Nodes
from services.endpoints.repository.objects import Objects
from services.endpoints.repository.policies import Policies
from services.endpoints.repository.registering import Registrar
from services.endpoints.repository.repairing import Repairer
from services.endpoints.repository.services import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class Repositories:
    """All of them, over one store. `coalescer.run` and `repairer.run` are to be kept running."""

    nodes: Nodes
    objects: Objects
    coalescer: Coalescer
    endpoints: Endpoints
    identities: Identities
    policies: Policies
    services: Services
    slices: EndpointSlices
    repairer: Repairer
    auditor: Auditor

    @classmethod
    def over(
        cls, store: Store, labels: LabelFilter, ranges: Ranges = DEFAULT_RANGES
    ) -> "Repositories":
        """Builds them.

        Args:
            store: where everything is.
            labels: which pod labels make no identity.
            ranges: of services.
        """
        services = Services(store, ranges)
        identities = Identities(store)
        cleaner = Cleaner(store)
        follower = Follower(store, identities, labels)
        return cls(
            nodes=Nodes(store, cleaner),
            objects=Objects(store, follower, services),
            coalescer=Coalescer(Registrar(store, identities, follower, labels)),
            endpoints=Endpoints(store),
            identities=identities,
            policies=Policies(store),
            services=services,
            slices=EndpointSlices(store),
            repairer=Repairer(store, follower, cleaner),
            auditor=Auditor(store, cleaner),
        )

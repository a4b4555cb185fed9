"""The cluster as policies see it: who has which address, and all policies, from the services."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deltaplane import policywire, wire
from deltaplane.cli.client import Client
from deltaplane.cli.getting import list_endpoints
from deltaplane.errors import Invalid, NotFound
from deltaplane.manifest.objects import GeneralPolicyManifest
from deltaplane.model.addresses import Prefix, format_address, parse_address
from deltaplane.model.identity import LabelSet, Reserved
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.tiers import Policy
from deltaplane.policy.explain import Party
from deltaplane.policy.translate import of_network_policy
from deltaplane.v1 import ipam_pb2, registry_pb2

IPV4_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who has an address.

    Attributes:
        name: "namespace/pod", the name of a node, or empty: nobody that is known.
        node: name of the node it is on; empty: none of ours.
        identity: its number; of what is no pod a reserved one, as seen from another node.
        label_set: what the identity of a pod stands for; None: it is no pod.
    """

    name: str = ""
    node: str = ""
    identity: int = Reserved.WORLD
    label_set: LabelSet | None = None

    @property
    def is_pod(self) -> bool:
        """Whether policies can select it."""
        return self.label_set is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What there is.

    Attributes:
        owners: by address, 4 or 16 bytes.
        pods: addresses by "namespace/pod", IPv4 first.
        waiting: "namespace/pod" of records whose CNI has not run, or of endpoints without a record.
        pools: ranges in which an address without an owner may be a pod's that goes or comes.
        policies: of all kinds.
    """

    owners: Mapping[bytes, Owner]
    pods: Mapping[str, tuple[bytes, ...]]
    waiting: frozenset[str] = frozenset()
    pools: tuple[Prefix, ...] = ()
    policies: tuple[Policy, ...] = ()

    def owner(self, address: bytes) -> Owner:
        """Who has it."""
        if (known := self.owners.get(address)) is not None:
            return known
        in_pool = any(pool.contains(address) for pool in self.pools)
        return Owner(identity=Reserved.OTHER_POD if in_pool else Reserved.WORLD)

    def party(self, address: bytes, *, seen_from: str) -> Party:
        """The address as an end of a connection whose other end is on a node; "": on none."""
        owner = self.owner(address)
        identity = owner.identity
        if identity == Reserved.REMOTE_NODE and owner.node == seen_from:
            identity = Reserved.HOST
        return Party(address=address, identity=identity, label_set=owner.label_set)

    def addresses(self, pod: str) -> tuple[bytes, ...]:
        """Addresses of "namespace/pod", IPv4 first.

        Raises:
            NotFound: it has none; the message says why.
        """
        if found := self.pods.get(pod):
            return found
        if pod in self.waiting:
            raise NotFound(f"pod {pod} has no endpoint with labels yet: it is closed")
        raise NotFound(f"there is no pod {pod}; see `deltaplane get endpoints`")


@dataclass(slots=True)
class _Census:
    owners: dict[bytes, Owner] = field(default_factory=dict)
    pods: dict[str, list[bytes]] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)


def load(client: Client) -> World:
    """Asks the services.

    Raises:
        DeltaplaneError: one does not answer, or what it says cannot be read.
    """
    registry = client.registry
    identities = {
        item.id: wire.label_set_from_proto(item)
        for item in registry.ListIdentities(registry_pb2.ListIdentitiesRequest()).identities
    }
    census = _Census()
    for pod in registry.ListPods(registry_pb2.ListPodsRequest()).pods:
        census.waiting.add(f"{pod.namespace}/{pod.name}")
    for node in registry.ListNodes(registry_pb2.ListNodesRequest()).nodes:
        for address in filter(None, (node.addresses.ipv4, node.addresses.ipv6)):
            census.owners[address] = Owner(
                name=node.name, node=node.name, identity=Reserved.REMOTE_NODE
            )
    for endpoint in list_endpoints(client):
        _count(census, endpoint, identities)
    pools = client.ipam.ListPools(ipam_pb2.ListPoolsRequest()).pools
    stored = registry.ListPolicies(registry_pb2.ListPoliciesRequest())
    return World(
        owners=census.owners,
        pods={name: tuple(sorted(found, key=len)) for name, found in census.pods.items()},
        waiting=frozenset(census.waiting - census.pods.keys()),
        pools=tuple(wire.prefix_from_proto(item.pool.prefix) for item in pools),
        policies=(
            *(of_network_policy(wire.network_policy_from_proto(it)) for it in stored.policies),
            *(policywire.policy_from_proto(item) for item in stored.others),
        ),
    )


def _count(
    census: _Census, endpoint: registry_pb2.Endpoint, identities: Mapping[int, LabelSet]
) -> None:
    name = f"{endpoint.namespace}/{endpoint.pod}"
    label_set = identities.get(endpoint.identity)
    if label_set is None:
        census.waiting.add(name)
    for address in filter(None, (endpoint.addresses.ipv4, endpoint.addresses.ipv6)):
        census.owners[address] = Owner(
            name=name,
            node=endpoint.node,
            identity=endpoint.identity or Reserved.INIT,
            label_set=label_set,
        )
        if label_set is not None:
            census.pods.setdefault(name, []).append(address)


def changed(
    world: World, policies: Iterable[NetworkPolicy | GeneralPolicyManifest], *, delete: bool
) -> tuple[Policy, ...]:
    """All policies as they would be once these were written, or deleted."""
    given = {
        policy.reference: policy
        for policy in (
            of_network_policy(item) if isinstance(item, NetworkPolicy) else item.policy
            for item in policies
        )
    }
    kept = tuple(policy for policy in world.policies if policy.reference not in given)
    return kept if delete else (*kept, *given.values())


def parse_prefix(text: str) -> Prefix | None:
    """A CIDR or an address; None: it is neither, but perhaps a pod.

    Raises:
        Invalid: it means to be a CIDR and is none.
    """
    address, slash, _ = text.partition("/")
    try:
        found = parse_address(address)
    except ValueError:
        if ":" in address or address.replace(".", "").isdecimal():
            raise Invalid("", f"{text!r} is no address and no CIDR") from None
        return None
    if not slash:
        return Prefix(found, 8 * len(found))
    try:
        return Prefix.parse(text)
    except ValueError as error:
        raise Invalid("", str(error)) from None


def family(address: bytes) -> str:
    """The name of its family, as people write it."""
    return "IPv4" if len(address) == IPV4_BYTES else "IPv6"


def labels(label_set: LabelSet) -> str:
    """Namespace and labels in a few words."""
    return " ".join((label_set.namespace, *(f"{key}={value}" for key, value in label_set.labels)))


def reserved(identity: int) -> str:
    """A reserved identity as Cilium's entities are written: world, remote-node."""
    return Reserved(identity).name.lower().replace("_", "-")


def text_of(owner: Owner, address: bytes) -> str:
    """An end of a connection for people."""
    shown = format_address(address)
    if owner.is_pod:
        return f"{owner.name} ({shown}, identity {owner.identity}, node {owner.node})"
    if owner.node:
        return f"{owner.name} ({shown}, a node)"
    return f"{shown} ({reserved(owner.identity)})"

"""What we may ask of the API server: the lists that the client obeys and RBAC grants.

The client refuses a request that is not in here, and a test compares the manifests of `deploy/`
with it: a verb that is missing there, or granted without a use here, fails.
"""

from dataclasses import dataclass
from enum import Enum

from deltaplane.errors import Internal
from services.kubernetes.api import resource as resources
from services.kubernetes.api.certificates import SIGNER
from services.kubernetes.api.resource import Resource


class Verb(Enum):
    """A verb of RBAC; the ones that we use."""

    GET = "get"
    LIST = "list"
    WATCH = "watch"
    CREATE = "create"
    UPDATE = "update"
    PATCH = "patch"
    APPROVE = "approve"
    SIGN = "sign"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """One rule of a role.

    Attributes:
        resource: what it is about.
        subresource: for example "status"; empty for the object itself.
        verbs: what is done with it.
        own_namespace: only in the namespace that the bridge runs in: a Role, no ClusterRole.
        names: only objects of these names; empty: all.
    """

    resource: Resource
    subresource: str = ""
    verbs: frozenset[Verb]
    own_namespace: bool = False
    names: tuple[str, ...] = ()

    @property
    def rbac_resource(self) -> str:
        """As a rule of RBAC names it: "pods" or "pods/status"."""
        return f"{self.resource.plural}/{self.subresource}".rstrip("/")


def _may(
    resource: Resource, *verbs: Verb, subresource: str = "", own_namespace: bool = False
) -> Permission:
    return Permission(
        resource=resource,
        subresource=subresource,
        verbs=frozenset(verbs),
        own_namespace=own_namespace,
    )


PERMISSIONS: tuple[Permission, ...] = (
    *(_may(resource, Verb.LIST, Verb.WATCH) for resource in resources.WATCHED),
    # The readiness gate, and the condition NetworkUnavailable.
    _may(resources.PODS, Verb.PATCH, subresource="status"),
    _may(resources.NODES, Verb.PATCH, subresource="status"),
    # In the namespace of the object that an event is about.
    _may(resources.EVENTS, Verb.CREATE),
    # RBAC cannot restrict `create` to a name: the object does not exist yet.
    _may(resources.LEASES, Verb.GET, Verb.CREATE, Verb.UPDATE, own_namespace=True),
    # Nodes' certificates: nobody else's requests can be approved or signed.
    _may(resources.CERTIFICATE_REQUESTS, Verb.LIST, Verb.WATCH),
    _may(resources.CERTIFICATE_REQUESTS, Verb.PATCH, subresource="approval"),
    _may(resources.CERTIFICATE_REQUESTS, Verb.PATCH, subresource="status"),
    Permission(
        resource=resources.SIGNERS, verbs=frozenset({Verb.APPROVE, Verb.SIGN}), names=(SIGNER,)
    ),
)

NODE_PERMISSIONS: tuple[Permission, ...] = (
    # RBAC cannot say "its own": whoever may get one needs its name, which follows from its key.
    _may(resources.CERTIFICATE_REQUESTS, Verb.CREATE, Verb.GET),
)
"""Of the part of an agent's pod that asks for the node's certificate. The agent may nothing."""


def require(
    resource: Resource,
    verb: Verb,
    *,
    subresource: str = "",
    permissions: tuple[Permission, ...] = PERMISSIONS,
) -> None:
    """Refuses a request that no role grants, before a server does.

    Raises:
        Internal: the list above lacks it.
    """
    for permission in permissions:
        if permission.resource == resource and permission.subresource == subresource:
            if verb in permission.verbs:
                return
            break
    what = f"{resource}/{subresource}".rstrip("/")
    raise Internal(f"there is no permission to {verb.value} {what}: add it to permissions.py")

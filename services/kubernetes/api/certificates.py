"""Requests for certificates: certificates.k8s.io/v1, as both of their ends have them."""

import msgspec

from deltaplane.errors import Invalid
from services.kubernetes.api.resource import CERTIFICATE_REQUESTS
from services.kubernetes.api.types import ApiStruct, Body, ObjectMeta

SIGNER = "deltaplane.dev/node"
"""Whose certificates: of agents, made by a CA for nodes."""

USAGES = ("digital signature", "server auth", "client auth")
"""An agent serves, and is a client."""

APPROVED, DENIED, FAILED = "Approved", "Denied", "Failed"


class RequestCondition(ApiStruct, frozen=True, kw_only=True, gc=False):
    """What became of a request.

    Attributes:
        type: APPROVED, DENIED or FAILED; status is always "True" then.
    """

    type: str
    status: str = ""
    reason: str = ""
    message: str = ""
    last_update_time: str | None = None
    last_transition_time: str | None = None


class RequestSpec(ApiStruct, frozen=True, kw_only=True, gc=False):
    """What is asked for, and who asks: the server itself writes `username` and `extra`.

    Attributes:
        request: PKCS #10, PEM.
        expiration_seconds: for how long; None: as long as the signer likes.
        extra: more about who asks.
    """

    request: bytes
    signer_name: str
    usages: list[str] | None = None
    expiration_seconds: int | None = None
    username: str = ""
    extra: dict[str, list[str]] | None = None


class RequestStatus(ApiStruct, frozen=True, kw_only=True, gc=False):
    """What became of it.

    Attributes:
        certificate: PEM, and what lies between it and the CA; empty: not yet.
    """

    conditions: list[RequestCondition] | None = None
    certificate: bytes = b""


class CertificateRequest(ApiStruct, frozen=True, kw_only=True, gc=False):
    """A CertificateSigningRequest."""

    metadata: ObjectMeta
    spec: RequestSpec
    status: RequestStatus = msgspec.field(default_factory=RequestStatus)

    def condition(self, kind: str) -> RequestCondition | None:
        """The condition of that type, if the request is in it."""
        found = (item for item in self.status.conditions or () if item.type == kind)
        return next(found, None)


def body(name: str, request: bytes) -> Body:
    """A new request. request: PKCS #10, PEM.

    Raises:
        Invalid: no name.
    """
    if not name:
        raise Invalid("name", "must not be empty")
    return {
        "apiVersion": CERTIFICATE_REQUESTS.api_version,
        "kind": CERTIFICATE_REQUESTS.kind,
        "metadata": {"name": name},
        "spec": {"request": request, "signerName": SIGNER, "usages": list(USAGES)},
    }


def concluded(item: CertificateRequest, kind: str, message: str) -> Body:
    """A patch that approves or denies a request, or says that it has failed.

    Args:
        item: the request; the server refuses the patch for a later version of it.
        kind: APPROVED, DENIED or FAILED.
        message: for people.
    """
    condition = RequestCondition(type=kind, status="True", reason="DeltaplaneNode", message=message)
    # A patch has the whole list, and those that are there stay to the letter.
    conditions = msgspec.to_builtins([*(item.status.conditions or ()), condition])
    version = item.metadata.resource_version
    return {"metadata": {"resourceVersion": version}, "status": {"conditions": conditions}}


def signed(uid: str, certificate: bytes) -> Body:
    """A patch that answers a request. uid: of the request; it is refused for another."""
    return {"metadata": {"uid": uid}, "status": {"certificate": certificate}}

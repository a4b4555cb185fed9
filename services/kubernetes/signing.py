"""Whether a request for a node's certificate is granted. Pure.

A request is believed because of who has made it: the API server writes down the user, and of a
token that is bound to a pod also the node that the pod runs on (Kubernetes 1.30 and later). It gets
what every agent gets, for that node, and nothing of what it says besides.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from services.kubernetes.api.certificates import (
    APPROVED,
    DENIED,
    FAILED,
    SIGNER,
    USAGES,
    CertificateRequest,
)

NODE_NAME = "authentication.kubernetes.io/node-name"
NODE_UID = "authentication.kubernetes.io/node-uid"

SHORTEST_SECONDS = 3600
"""Who asks for less gets this: agents look once an hour whether it is time."""

_CURVES = (ec.SECP256R1, ec.SECP384R1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a request is held against.

    Attributes:
        account: user name of agents.
        uri: how a node's URI begins; its name follows.
        names: the DNS names of every agent.
        longest_seconds: for how long a certificate is made at most, and unless less is asked for.
    """

    account: str
    uri: str
    names: tuple[str, ...]
    longest_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A certificate is to be made.

    Attributes:
        node: of this node.
        key: with this key.
        seconds: for so long.
        is_approved: that has been written already.
    """

    node: str
    key: ec.EllipticCurvePublicKey
    seconds: int
    is_approved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """None is made.

    Attributes:
        reason: for people.
        is_approved: somebody has approved the request: it can only fail.
    """

    reason: str
    is_approved: bool


class _Objection(Exception):
    """Why a request is not granted."""


def decide(
    item: CertificateRequest, rules: Rules, nodes: Mapping[str, str]
) -> Granted | Refused | None:
    """What is to become of a request; None: nothing, it is not for us or has its answer.

    Args:
        item: the request.
        rules: what it is held against.
        nodes: UID of each node that there is, by name.
    """
    if item.spec.signer_name != SIGNER or item.status.certificate:
        return None
    if item.condition(DENIED) or item.condition(FAILED):
        return None
    is_approved = item.condition(APPROVED) is not None
    try:
        node = _node_of(item, rules, nodes)
        key = _key_of(item, f"{rules.uri}{node}", rules.names)
    except _Objection as error:
        return Refused(reason=str(error), is_approved=is_approved)
    wanted = item.spec.expiration_seconds or rules.longest_seconds
    seconds = min(max(wanted, SHORTEST_SECONDS), rules.longest_seconds)
    return Granted(node=node, key=key, seconds=seconds, is_approved=is_approved)


def _node_of(item: CertificateRequest, rules: Rules, nodes: Mapping[str, str]) -> str:
    """The node that whoever asks runs on."""
    spec = item.spec
    if spec.username != rules.account:
        raise _Objection(f"{spec.username or 'nobody'} asks, and only {rules.account} may")
    extra = spec.extra or {}
    if len(named := extra.get(NODE_NAME, [])) != 1:
        raise _Objection(
            f"the token says {len(named)} nodes in {NODE_NAME}, and one is needed: a token of a "
            "pod, by Kubernetes 1.30 or later"
        )
    [node] = named
    if (uid := nodes.get(node)) is None:
        raise _Objection(f"there is no node {node}")
    if extra.get(NODE_UID, [uid]) != [uid]:
        raise _Objection(f"the token is of an earlier node {node}")
    if set(spec.usages or ()) != set(USAGES):
        raise _Objection(f"usages: exactly {', '.join(USAGES)} are needed")
    return node


def _key_of(
    item: CertificateRequest, uri: str, names: tuple[str, ...]
) -> ec.EllipticCurvePublicKey:
    """The key that is asked for, if nothing is asked for but what this node gets."""
    try:
        asked = x509.load_pem_x509_csr(item.spec.request)
        key = asked.public_key()
        is_genuine = asked.is_signature_valid
        extensions = list(asked.extensions)
    except Exception as error:  # a stranger has written it, and must not cost others theirs
        raise _Objection(f"the request cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise _Objection("the key is none of ECDSA P-256 or P-384")
    if not is_genuine:
        raise _Objection("the request is not signed by its key")
    wanted = {x509.UniformResourceIdentifier(uri), *map(x509.DNSName, names)}
    found: list[x509.GeneralName] = []
    for extension in extensions:
        if not isinstance(extension.value, x509.SubjectAlternativeName):
            raise _Objection(f"it asks for the extension {extension.oid.dotted_string}")
        found = list(extension.value)
    if len(found) != len(wanted) or set(found) != wanted:
        said = ", ".join(sorted(str(name.value) for name in found)) or "none"
        needed = ", ".join(sorted(str(name.value) for name in wanted))
        raise _Objection(f"names: exactly {needed} are needed, not {said}")
    return key

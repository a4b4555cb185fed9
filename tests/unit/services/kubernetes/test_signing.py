"""Which requests are granted: one that is, and each way in which others are not."""

import functools
import ipaddress
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from deltaplane.certs import requesting
from deltaplane.runtime.roles import Peer, Role
from services.kubernetes.api.certificates import (
    SIGNER,
    USAGES,
    CertificateRequest,
    RequestCondition,
    RequestSpec,
    RequestStatus,
)
from services.kubernetes.api.types import ObjectMeta
from services.kubernetes.signing import NODE_NAME, NODE_UID, Granted, Refused, Rules, decide

ACCOUNT = "system:serviceaccount:deltaplane-system:deltaplane-agent"
RULES = Rules(
    account=ACCOUNT,
    uri="spiffe://deltaplane/node/",
    names=("node.deltaplane",),
    longest_seconds=7 * 86400,
)
NODES = {"worker-7": "uid-7", "worker-8": "uid-8"}
URI = "spiffe://deltaplane/node/worker-7"
PEER = Peer(Role.NODE, "worker-7")


@functools.cache
def key(kind: str) -> Any:
    return {
        "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "P-192": lambda: ec.generate_private_key(ec.SECP192R1()),
        "RSA": lambda: rsa.generate_private_key(65537, 2048),
        "Ed25519": ed25519.Ed25519PrivateKey.generate,
    }[kind]()


def pkcs10(
    *names: x509.GeneralName, kind: str = "P-256", more: x509.ExtensionType | None = None
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if more is not None:
        builder = builder.add_extension(more, critical=True)
    algorithm = None if kind == "Ed25519" else hashes.SHA256()
    return builder.sign(key(kind), algorithm).public_bytes(serialization.Encoding.PEM)


def named(*uris: str, dns: tuple[str, ...] = ("node.deltaplane",)) -> tuple[x509.GeneralName, ...]:
    return (*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns))


def asked(**changes: Any) -> CertificateRequest:
    """A request that is granted, but for these fields of its spec."""
    fields: dict[str, Any] = {
        "request": pkcs10(*named(URI)),
        "signer_name": SIGNER,
        "usages": list(USAGES),
        "username": ACCOUNT,
        "extra": {NODE_NAME: ["worker-7"], NODE_UID: ["uid-7"]},
    }
    conditions = changes.pop("conditions", [])
    certificate = changes.pop("certificate", b"")
    return CertificateRequest(
        metadata=ObjectMeta(name="r", uid="u", resource_version="1"),
        spec=RequestSpec(**(fields | changes)),
        status=RequestStatus(
            conditions=[RequestCondition(type=it, status="True") for it in conditions],
            certificate=certificate,
        ),
    )


def tampered() -> bytes:
    """Another key than the one that has signed it."""
    made = x509.load_pem_x509_csr(pkcs10(*named(URI))).public_bytes(serialization.Encoding.DER)
    point, other = (
        it.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        for it in (key("P-256"), ec.generate_private_key(ec.SECP256R1()))
    )
    assert point in made
    forged = x509.load_der_x509_csr(made.replace(point, other))
    return forged.public_bytes(serialization.Encoding.PEM)


def test_a_node_gets_its_own() -> None:
    for kind in ("P-256", "P-384"):
        granted = decide(asked(request=pkcs10(*named(URI), kind=kind)), RULES, NODES)
        assert isinstance(granted, Granted)
        assert (granted.node, granted.seconds) == ("worker-7", 7 * 86400)
        assert not granted.is_approved
        assert granted.key == key(kind).public_key()


def test_what_an_agent_asks_for_is_granted() -> None:
    request = requesting.request(PEER, requesting.new_key())
    for extra in ({NODE_NAME: ["worker-7"]}, {NODE_NAME: ["worker-7"], "other": ["x"]}):
        assert isinstance(decide(asked(request=request, extra=extra), RULES, NODES), Granted)


@pytest.mark.parametrize(
    ("wanted", "given"), [(None, 604800), (600, 3600), (86400, 86400), (10**9, 604800), (0, 604800)]
)
def test_for_how_long(wanted: int | None, given: int) -> None:
    granted = decide(asked(expiration_seconds=wanted), RULES, NODES)
    assert isinstance(granted, Granted)
    assert granted.seconds == given


REFUSED: dict[str, tuple[Callable[[], CertificateRequest], str]] = {
    "another account": (
        lambda: asked(username="system:serviceaccount:deltaplane-system:deltaplane-bridge"),
        "only system:serviceaccount:deltaplane-system:deltaplane-agent may",
    ),
    "of another namespace": (
        lambda: asked(username="system:serviceaccount:default:deltaplane-agent"),
        "only system:serviceaccount",
    ),
    "nobody": (lambda: asked(username=""), "nobody asks"),
    "a token of no pod": (lambda: asked(extra=None), "says 0 nodes"),
    "a token of two nodes": (
        lambda: asked(extra={NODE_NAME: ["worker-7", "worker-8"]}),
        "says 2 nodes",
    ),
    "another node": (
        lambda: asked(extra={NODE_NAME: ["worker-8"]}),
        "exactly node.deltaplane, spiffe://deltaplane/node/worker-8 are needed, not node.delta",
    ),
    "a node that is not there": (
        lambda: asked(extra={NODE_NAME: ["worker-9"]}),
        "there is no node worker-9",
    ),
    "a node of that name that was": (
        lambda: asked(extra={NODE_NAME: ["worker-7"], NODE_UID: ["uid-6"]}),
        "of an earlier node worker-7",
    ),
    "a usage less": (lambda: asked(usages=["digital signature", "client auth"]), "usages"),
    "a usage more": (lambda: asked(usages=[*USAGES, "cert sign"]), "usages"),
    "no usages": (lambda: asked(usages=None), "usages"),
    "a role": (
        lambda: asked(request=pkcs10(*named("spiffe://deltaplane/admin"))),
        "not node.deltaplane, spiffe://deltaplane/admin",
    ),
    "two nodes": (
        lambda: asked(request=pkcs10(*named(URI, "spiffe://deltaplane/node/worker-8"))),
        "names: exactly",
    ),
    "the same twice": (lambda: asked(request=pkcs10(*named(URI, URI))), "names: exactly"),
    "no names": (lambda: asked(request=pkcs10()), "not none"),
    "no DNS name": (lambda: asked(request=pkcs10(*named(URI, dns=()))), "names: exactly"),
    "a service's DNS name": (
        lambda: asked(
            request=pkcs10(*named(URI, dns=("node.deltaplane", "ipam.deltaplane"))),
        ),
        "not ipam.deltaplane, node.deltaplane",
    ),
    "an address": (
        lambda: asked(
            request=pkcs10(*named(URI), x509.IPAddress(ipaddress.ip_address("192.0.2.1")))
        ),
        "192.0.2.1",
    ),
    "to be a CA": (
        lambda: asked(
            request=pkcs10(*named(URI), more=x509.BasicConstraints(ca=True, path_length=0))
        ),
        "the extension 2.5.29.19",
    ),
    "an RSA key": (lambda: asked(request=pkcs10(*named(URI), kind="RSA")), "the key is none of"),
    "an Ed25519 key": (
        lambda: asked(request=pkcs10(*named(URI), kind="Ed25519")),
        "the key is none of",
    ),
    "a weak key": (lambda: asked(request=pkcs10(*named(URI), kind="P-192")), "the key is none of"),
    "a key that we do not know": (
        lambda: asked(request=pkcs10(*named(URI), kind="P-521")),
        "the key is none of",
    ),
    "somebody else's key": (lambda: asked(request=tampered()), "not signed by its key"),
    "no request": (lambda: asked(request=b"x"), "cannot be read"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    make, reason = REFUSED[what]
    refused = decide(make(), RULES, NODES)
    assert isinstance(refused, Refused), refused
    assert reason in refused.reason
    assert not refused.is_approved


@pytest.mark.parametrize(
    "changes",
    [
        {"signer_name": "kubernetes.io/kubelet-serving"},
        {"certificate": b"x", "conditions": ["Approved"]},
        {"conditions": ["Denied"]},
        {"conditions": ["Approved", "Failed"]},
    ],
    ids=["not for us", "answered", "denied", "failed"],
)
def test_left_alone(changes: dict[str, Any]) -> None:
    assert decide(asked(**changes), RULES, NODES) is None


def test_what_somebody_else_has_approved_is_looked_at_all_the_same() -> None:
    granted = decide(asked(conditions=["Approved"]), RULES, NODES)
    assert isinstance(granted, Granted)
    assert granted.is_approved
    refused = decide(asked(conditions=["Approved"], username="admin"), RULES, NODES)
    assert isinstance(refused, Refused)
    assert refused.is_approved

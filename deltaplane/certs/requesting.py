"""What a node asks for a certificate with, and when it is time. Values, no files."""

import hashlib
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deltaplane.certs import issuing
from deltaplane.runtime.roles import Peer

KEPT_PART = 1 / 3
"""A certificate is replaced when no more of its time is left: what is the time to try again in."""

_LONGEST_NODE = 200
"""Characters of a node's name that a request's has: it may have 253 together."""


def new_key() -> bytes:
    """A key, PEM."""
    return issuing.encode_key(ec.generate_private_key(ec.SECP256R1()))


def request(peer: Peer, key: bytes) -> bytes:
    """A request for a certificate, PKCS #10, PEM.

    Raises:
        Invalid: the key is none.
    """
    wanted = issuing.Wanted(peer=peer)
    names = [
        x509.UniformResourceIdentifier(peer.uri),
        *(x509.DNSName(name) for name in wanted.names),
    ]
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(issuing.subject(peer))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    made = builder.sign(issuing.decode_key(key, "tls.key"), hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def name(peer: Peer, key: bytes) -> str:
    """Of a request. It follows from the key: who comes again finds it, and nobody is there before.

    Raises:
        Invalid: the key is none.
    """
    public = issuing.decode_key(key, "tls.key").public_key()
    encoded = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    start = f"deltaplane-{peer.node[:_LONGEST_NODE]}".rstrip(".-")
    return f"{start}-{hashlib.sha256(encoded).hexdigest()[:20]}"


def is_due(certificate: bytes, now: datetime) -> bool:
    """Whether it is time for another one.

    Raises:
        Invalid: it is no certificate.
    """
    found = issuing.describe(certificate)
    return found.ends - now <= (found.ends - found.starts) * KEPT_PART

"""Certificates as values: made from who, for how long and now. No files."""

import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deltaplane.errors import Invalid
from deltaplane.runtime import roles
from deltaplane.runtime.roles import DOMAIN, NODE_AUTHORITY, STORE_CLIENT, Peer, Role

CA_DAYS = 3650
NODE_CA_DAYS = 1825
LEAF_DAYS = 365
DAYS = (1, 36500)
"""The least and the most."""

_SKEW = timedelta(minutes=5)
"""How far a clock may be behind ours and still believe in what is new."""

_NO_ADDRESS = tuple(
    x509.IPAddress(ipaddress.ip_network(prefix)) for prefix in ("0.0.0.0/0", "::/0")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a certificate is to say.

    Attributes:
        peer: whose it is.
        dns: further DNS names; none of our own domain.
        ips: addresses.
        days: for how long, in DAYS; it ends with the CA at the latest.
    """

    peer: Peer
    dns: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    days: int = LEAF_DAYS

    def __post_init__(self) -> None:
        """Raises Invalid: a name, an address or a time that cannot be."""
        check_days(self.days)
        for name in self.dns:
            if name == DOMAIN or name.endswith(f".{DOMAIN}"):
                raise Invalid("--dns", f"{name!r}: names in {DOMAIN} follow from the role")
            if not name or not name.isascii():
                raise Invalid("--dns", f"{name!r} is no DNS name")
        for text in self.ips:
            try:
                ipaddress.ip_address(text)
            except ValueError as error:
                raise Invalid("--ip", str(error)) from error

    @property
    def names(self) -> tuple[str, ...]:
        """All DNS names; those of the role first."""
        role = self.peer.role
        own = () if role is Role.ADMIN else (role.server_name,)
        return (*own, *((STORE_CLIENT,) if role.uses_store else ()), *self.dns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a certificate says.

    Attributes:
        peer: whose it is; None: no role of ours, as with a CA.
        is_authority: it is a CA's.
        names: DNS names and addresses.
        starts: when.
        ends: when.
        issuer: name of who made it.
    """

    peer: Peer | None
    is_authority: bool
    names: tuple[str, ...]
    starts: datetime
    ends: datetime
    issuer: str


def authority(*, now: datetime, days: int = CA_DAYS) -> Issued:
    """A new CA, which signs leaves, and CAs that sign leaves.

    Raises:
        Invalid: days is outside DAYS.
    """
    check_days(days)
    key = ec.generate_private_key(ec.SECP256R1())
    # The number keeps two CAs apart that are believed in while one follows the other.
    name = _numbered("deltaplane ca")
    builder = _authority(name, name, key.public_key(), now, now + timedelta(days=days), depth=1)
    return _signed(builder, key, key)


def node_authority(root: Issued, *, now: datetime, days: int = NODE_CA_DAYS) -> Issued:
    """A new CA for nodes' certificates, made by that CA. It ends with it at the latest.

    By its name constraints a leaf of it has no DNS name but that of agents, and no address: with it
    nobody passes for a service, or opens etcd. That its leaves are nodes' only is seen by its name,
    which `deltaplane.runtime.authorising` looks at.

    Raises:
        Invalid: days is outside DAYS, or the CA cannot make another one.
    """
    check_days(days)
    parent, signer = _pair(root)
    basic = parent.extensions.get_extension_for_class(x509.BasicConstraints).value
    if basic.path_length == 0:
        raise Invalid("ca.crt", "signs no other CA, as those of older versions: make a new one")
    key = ec.generate_private_key(ec.SECP256R1())
    ends = _end(parent, now, now + timedelta(days=days))
    name = _numbered(NODE_AUTHORITY)
    builder = _authority(name, parent.subject, key.public_key(), now, ends, depth=0)
    limits = x509.NameConstraints(
        permitted_subtrees=[x509.DNSName(Role.NODE.server_name)], excluded_subtrees=_NO_ADDRESS
    )
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = builder.add_extension(limits, critical=True).add_extension(issuer, critical=False)
    return _signed(builder, key, signer)


def issue(ca: Issued, wanted: Wanted, *, now: datetime) -> Issued:
    """A certificate of that CA, and a key for it.

    Raises:
        Invalid: the CA's files are none, or it has run out.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    ends = now + timedelta(days=wanted.days)
    certificate = certify(ca, wanted, key.public_key(), now=now, ends=ends)
    return Issued(certificate=certificate, key=encode_key(key))


def certify(
    ca: Issued, wanted: Wanted, key: ec.EllipticCurvePublicKey, *, now: datetime, ends: datetime
) -> bytes:
    """A certificate of that CA for somebody's key, PEM, for servers and clients alike.

    Args:
        ca: who signs.
        wanted: what it says; `ends` counts instead of its days.
        key: whose it is.
        now: it begins a little before.
        ends: when it ends, or with the CA if that is earlier.

    Raises:
        Invalid: the CA's files are none, or it has run out.
    """
    parent, signer = _pair(ca)
    usage = _usage(signs_certificates=False)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(wanted.peer.uri)]
    names += [x509.DNSName(name) for name in wanted.names]
    names += [x509.IPAddress(ipaddress.ip_address(text)) for text in wanted.ips]
    identifier = x509.SubjectKeyIdentifier.from_public_key(key)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    purposes = x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    builder = (
        x509.CertificateBuilder(
            issuer_name=parent.subject,
            subject_name=subject(wanted.peer),
            public_key=key,
            serial_number=x509.random_serial_number(),
        )
        .not_valid_before(now - _SKEW)
        .not_valid_after(_end(parent, now, ends))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(purposes, critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(issuer, critical=False)
    )
    return _encoded(builder.sign(signer, hashes.SHA256()))


def describe(pem: bytes) -> Description:
    """What the first certificate of a file says.

    Raises:
        Invalid: there is none.
    """
    found = _read(pem)
    names: tuple[str, ...] = ()
    uris: list[str] = []
    is_authority = False
    for extension in found.extensions:
        match extension.value:
            case x509.SubjectAlternativeName() as value:
                uris = value.get_values_for_type(x509.UniformResourceIdentifier)
                addresses = value.get_values_for_type(x509.IPAddress)
                names = (*value.get_values_for_type(x509.DNSName), *map(str, addresses))
            case x509.BasicConstraints() as value:
                is_authority = value.ca
            case _:
                pass  # what a certificate is for, whose key signed it
    return Description(
        peer=roles.parse(uris[0]) if len(uris) == 1 else None,
        is_authority=is_authority,
        names=names,
        starts=found.not_valid_before_utc,
        ends=found.not_valid_after_utc,
        issuer=found.issuer.rfc4514_string(),
    )


def now() -> datetime:
    """The machine's clock, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def check_days(days: int) -> None:
    """Raises Invalid: it is outside DAYS."""
    if not DAYS[0] <= days <= DAYS[1]:
        raise Invalid("--days", f"{days} is outside {DAYS[0]}..{DAYS[1]}")


def subject(peer: Peer) -> x509.Name:
    """Of a certificate; for people, the role stands in the URI."""
    # At most 64 characters fit.
    return _name(str(peer)[:64])


def encode_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PEM, without a password."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def decode_key(pem: bytes, name: str) -> ec.EllipticCurvePrivateKey:
    """Reads a key. name: of its file, for people.

    Raises:
        Invalid: it is no ECDSA key, or has a password.
    """
    try:
        found = serialization.load_pem_private_key(pem, password=None)
    except (TypeError, ValueError) as error:
        raise Invalid(name, f"this is no key without a password: {error}") from error
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise Invalid(name, "an ECDSA key is needed")
    return found


def _authority(
    name: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    ends: datetime,
    *,
    depth: int,
) -> x509.CertificateBuilder:
    """Of a CA. depth: how many CAs may be between it and a leaf."""
    return (
        x509.CertificateBuilder(
            issuer_name=issuer,
            subject_name=name,
            public_key=key,
            serial_number=x509.random_serial_number(),
        )
        .not_valid_before(now - _SKEW)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(ca: Issued) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A CA's certificate and key. Raises Invalid: they are none, or not of one another."""
    parent, signer = _read(ca.certificate), decode_key(ca.key, "ca.key")
    if signer.public_key() != parent.public_key():
        raise Invalid("ca.key", "is not the key of ca.crt")
    return parent, signer


def _end(parent: x509.Certificate, now: datetime, wanted: datetime) -> datetime:
    """When what a CA signs ends. Raises Invalid: that would be in the past."""
    ends = min(wanted, parent.not_valid_after_utc)
    if ends <= now:
        raise Invalid("ca.crt", f"has run out on {parent.not_valid_after_utc:%Y-%m-%d}")
    return ends


def _signed(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
) -> Issued:
    certificate = builder.sign(signer, hashes.SHA256())
    return Issued(certificate=_encoded(certificate), key=encode_key(key))


def _encoded(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _numbered(text: str) -> x509.Name:
    return _name(f"{text} {x509.random_serial_number() % 0x1_0000_0000:08x}")


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _read(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise Invalid("", f"this is no certificate: {error}") from error

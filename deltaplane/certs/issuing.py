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
from deltaplane.runtime.roles import DOMAIN, STORE_CLIENT, Peer, Role

CA_DAYS = 3650
LEAF_DAYS = 365
DAYS = (1, 36500)
"""The least and the most."""

_SKEW = timedelta(minutes=5)
"""How far a clock may be behind ours and still believe in what is new."""


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
    """A new CA, which signs leaves only.

    Raises:
        Invalid: days is outside DAYS.
    """
    check_days(days)
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # The number keeps two CAs apart that are believed in while one follows the other.
    name = _name(f"deltaplane ca {serial % 0x1_0000_0000:08x}")
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder(
            issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=serial
        )
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _signed(builder, key, key)


def issue(ca: Issued, wanted: Wanted, *, now: datetime) -> Issued:
    """A certificate of that CA, for servers and clients alike.

    Raises:
        Invalid: the CA's files are none, or it has run out.
    """
    parent, signer = _read(ca.certificate), _key(ca.key)
    if signer.public_key() != parent.public_key():
        raise Invalid("ca.key", "is not the key of ca.crt")
    ends = min(now + timedelta(days=wanted.days), parent.not_valid_after_utc)
    if ends <= now:
        raise Invalid("ca.crt", f"has run out on {parent.not_valid_after_utc:%Y-%m-%d}")
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(wanted.peer.uri)]
    names += [x509.DNSName(name) for name in wanted.names]
    names += [x509.IPAddress(ipaddress.ip_address(text)) for text in wanted.ips]
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    purposes = x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    builder = (
        x509.CertificateBuilder(
            issuer_name=parent.subject,
            # At most 64 characters fit; the role stands in the URI, this is for people.
            subject_name=_name(str(wanted.peer)[:64]),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
        )
        .not_valid_before(now - _SKEW)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(purposes, critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(issuer, critical=False)
    )
    return _signed(builder, key, signer)


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


def _signed(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
) -> Issued:
    return Issued(
        certificate=builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _read(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise Invalid("", f"this is no certificate: {error}") from error


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        found = serialization.load_pem_private_key(pem, password=None)
    except (TypeError, ValueError) as error:
        raise Invalid("ca.key", f"this is no key without a password: {error}") from error
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise Invalid("ca.key", "an ECDSA key is needed")
    return found

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from deltaplane.certs import issuing
from deltaplane.certs.issuing import Issued, Wanted
from deltaplane.errors import Invalid
from deltaplane.runtime import roles
from deltaplane.runtime.roles import Peer, Role

NOW = issuing.now()


@pytest.fixture(scope="module")
def ca() -> Issued:
    return issuing.authority(now=NOW)


def test_a_ca_lasts_ten_years(ca: Issued) -> None:
    found = x509.load_pem_x509_certificate(ca.certificate)
    assert found.not_valid_after_utc == NOW + timedelta(days=3650)
    basic = found.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 1)
    key = found.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert issuing.describe(ca.certificate).is_authority


@pytest.mark.parametrize("role", Role)
def test_what_a_certificate_says(ca: Issued, role: Role) -> None:
    peer = Peer(role, "worker-7" if role is Role.NODE else "")
    wanted = Wanted(peer=peer, dns=("a.example",), ips=("192.0.2.1", "2001:db8::1"))
    made = issuing.issue(ca, wanted, now=NOW)
    found = x509.load_pem_x509_certificate(made.certificate)
    found.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.certificate))
    assert found.not_valid_after_utc == NOW + timedelta(days=365)
    purposes = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    described = issuing.describe(made.certificate)
    assert described.peer == peer
    assert not described.is_authority
    expected = {"a.example", "192.0.2.1", "2001:db8::1"}
    expected |= {f"{role}.deltaplane"} if role is not Role.ADMIN else set()
    expected |= {"store-client.deltaplane"} if role.uses_store else set()
    assert set(described.names) == expected
    assert b"PRIVATE" in made.key
    assert "PRIVATE" not in repr(made)


def test_nothing_lasts_longer_than_its_ca() -> None:
    brief = issuing.authority(now=NOW, days=3)
    made = issuing.issue(brief, Wanted(peer=Peer(Role.IPAM)), now=NOW)
    assert issuing.describe(made.certificate).ends == NOW + timedelta(days=3)
    with pytest.raises(Invalid, match="has run out"):
        issuing.issue(brief, Wanted(peer=Peer(Role.IPAM)), now=NOW + timedelta(days=4))


@pytest.mark.parametrize(
    "wrong",
    [
        {"dns": ("slicer.deltaplane",)},
        {"dns": ("deltaplane",)},
        {"dns": ("",)},
        {"dns": ("bücher.example",)},
        {"ips": ("192.0.2.300",)},
        {"ips": ("192.0.2.0/24",)},
        {"days": 0},
        {"days": 36501},
    ],
)
def test_what_cannot_be_wanted(wrong: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        Wanted(peer=Peer(Role.NODE, "n1"), **wrong)  # type: ignore[arg-type]


def test_a_ca_whose_files_do_not_fit(ca: Issued) -> None:
    wanted, other = Wanted(peer=Peer(Role.IPAM)), issuing.authority(now=NOW)
    with pytest.raises(Invalid, match="is not the key of"):
        issuing.issue(Issued(certificate=ca.certificate, key=other.key), wanted, now=NOW)
    with pytest.raises(Invalid, match="no certificate"):
        issuing.issue(Issued(certificate=b"x", key=ca.key), wanted, now=NOW)
    with pytest.raises(Invalid, match="no key"):
        issuing.issue(Issued(certificate=ca.certificate, key=b"x"), wanted, now=NOW)


def test_a_ca_for_nodes(ca: Issued) -> None:
    made = issuing.node_authority(ca, now=NOW)
    found = x509.load_pem_x509_certificate(made.certificate)
    found.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.certificate))
    assert found.not_valid_after_utc == NOW + timedelta(days=1825)
    basic = found.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    limits = found.extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    assert limits.value.permitted_subtrees == [x509.DNSName("node.deltaplane")]
    assert issuing.describe(made.certificate).is_authority
    leaf = issuing.issue(made, Wanted(peer=Peer(Role.NODE, "n1"), days=9000), now=NOW)
    assert issuing.describe(leaf.certificate).ends == found.not_valid_after_utc
    assert roles.is_node_authority(issuing.describe(leaf.certificate).issuer.removeprefix("CN="))
    with pytest.raises(Invalid, match="signs no other CA"):
        issuing.node_authority(made, now=NOW)
    with pytest.raises(Invalid, match="has run out"):
        issuing.node_authority(ca, now=NOW + timedelta(days=3651))


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("deltaplane node ca 1234", True),
        ("Deltaplane  NODE\tca 1234", True),
        (" deltaplane node ca", True),
        ("deltaplane ca 1234", False),
        ("a deltaplane node ca", False),
    ],
)
def test_names_of_cas_for_nodes(name: str, is_one: bool) -> None:
    assert roles.is_node_authority(name) == is_one

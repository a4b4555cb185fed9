"""A node's folder: when another certificate is due, and what becomes of an answer."""

import stat
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from deltaplane.certs import files, issuing, requesting
from deltaplane.certs.issuing import Wanted
from deltaplane.certs.renewal import Renewal
from deltaplane.errors import Refused
from deltaplane.runtime import tls
from deltaplane.runtime.roles import Peer, Role
from tests.trust import Trust, trust

N1 = Peer(Role.NODE, "n1")
NOW = issuing.now()


@pytest.fixture
def ca(tmp_path: Path) -> Trust:
    return trust(tmp_path / "ca")


@pytest.fixture
def renewal(ca: Trust, tmp_path: Path) -> Renewal:
    folder = tmp_path / "n1"
    folder.mkdir()
    return Renewal(folder, N1, (ca.folder / tls.CA).read_bytes())


def answer(ca: Trust, renewal: Renewal, peer: Peer = N1, *, days: int = 7) -> bytes:
    """What the bridge makes of the request."""
    authority = files.read_node_authority(ca.node_authority())
    key = x509.load_pem_x509_csr(renewal.asking().request).public_key()
    ends = NOW + timedelta(days=days)
    leaf = issuing.certify(authority, Wanted(peer=peer), key, now=NOW, ends=ends)  # type: ignore[arg-type]
    return leaf + authority.certificate


def at(**ago: float) -> datetime:
    return NOW + timedelta(**ago)


def test_from_nothing_to_a_certificate_that_is_renewed_in_time(ca: Trust, renewal: Renewal) -> None:
    assert renewal.reason(NOW) == "there is no tls.crt"
    renewal.take(answer(ca, renewal))
    found = tls.read(renewal.folder)
    assert found.peer == N1
    assert found.certificate.count(b"BEGIN CERTIFICATE") == 2
    modes = {it.name: stat.S_IMODE(it.stat().st_mode) for it in renewal.folder.iterdir()}
    assert modes == {"ca.crt": 0o644, "tls.crt": 0o644, "tls.key": 0o600}
    # Seven days and five minutes: a third of that is left after four days and 16 hours.
    assert renewal.reason(at(days=4, hours=15)) == ""
    assert renewal.reason(at(days=4, hours=17)) == "it ends soon"
    assert renewal.reason(at(days=8)) == "it ends soon"
    renewal.take(answer(ca, renewal, days=30))
    assert tls.read(renewal.folder) is not found
    assert renewal.reason(at(days=8)) == ""


def test_who_is_ended_while_he_waits_goes_on_with_the_same_request(
    ca: Trust, renewal: Renewal
) -> None:
    first = renewal.asking()
    place = renewal.folder / ".asked"
    assert [stat.S_IMODE(it.stat().st_mode) for it in (place, place / "tls.key")] == [0o700, 0o600]
    assert renewal.asking().name == first.name
    made = answer(ca, renewal)
    (renewal.folder / ".asked/tls.key").write_bytes(b"half a k")
    assert renewal.asking().name != first.name, "a key that cannot be read is of no use"
    with pytest.raises(Refused, match="KEY_VALUES_MISMATCH"):
        renewal.take(made)
    renewal.forget()
    assert renewal.asking().name != first.name


def test_what_is_not_taken(ca: Trust, renewal: Renewal, tmp_path: Path) -> None:
    renewal.take(answer(ca, renewal))
    in_use = tls.read(renewal.folder)
    with pytest.raises(Refused, match="it is of node/n2, not of node/n1"):
        renewal.take(answer(ca, renewal, Peer(Role.NODE, "n2")))
    with pytest.raises(Refused, match=r"local issuer|signature failure"):
        renewal.take(answer(trust(tmp_path / "other"), renewal))
    leaf = answer(ca, renewal).split(b"-----END")[0] + b"-----END CERTIFICATE-----\n"
    with pytest.raises(Refused, match="local issuer"):
        renewal.take(leaf)
    assert tls.read(renewal.folder) is in_use
    assert not (renewal.folder / ".look").exists(), "no key lies about"


def test_a_certificate_that_came_by_hand_stays(ca: Trust) -> None:
    folder = ca.issue("node/n1", days=365)
    by_hand = Renewal(folder, N1, (ca.folder / tls.CA).read_bytes())
    assert by_hand.reason(at(days=200)) == ""
    assert by_hand.reason(at(days=300)) == "it ends soon"
    other = Renewal(folder, Peer(Role.NODE, "n2"), by_hand.ca)
    assert "it is of node/n1, not of node/n2" in other.reason(NOW)


def test_another_ca_is_believed_in_beside_and_then_alone(
    ca: Trust, renewal: Renewal, tmp_path: Path
) -> None:
    renewal.take(answer(ca, renewal))
    new = trust(tmp_path / "new")
    both = (new.folder / tls.CA).read_bytes() + renewal.ca
    assert Renewal(renewal.folder, N1, both).reason(NOW) == ""
    assert (renewal.folder / tls.CA).read_bytes() == both
    alone = Renewal(renewal.folder, N1, (new.folder / tls.CA).read_bytes())
    assert "cannot be used" in alone.reason(NOW)
    assert (renewal.folder / tls.CA).read_bytes() == both, "what is in use stays so"
    alone.take(answer(new, alone))
    assert alone.reason(NOW) == ""
    assert tls.check(renewal.folder).ca == alone.ca


def test_the_name_of_a_request_is_short_enough_and_follows_from_its_key() -> None:
    key, other = requesting.new_key(), requesting.new_key()
    long = Peer(Role.NODE, "a" * 199 + "." + "b" * 53)
    names = {requesting.name(N1, key), requesting.name(N1, other), requesting.name(long, key)}
    assert len(names) == 3
    for name in names:
        assert len(name) <= 253
        assert ".-" not in name
    assert requesting.name(N1, key) == requesting.name(N1, key)
